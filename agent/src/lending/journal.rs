//! The audit log on the disk: a file that grows, and older ones beside it.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use secovia_agent_api::audit::{self, Head, VerifyError};
use secovia_agent_api::{AuditBreak, AuditEvent, AuditRecord, AuditVerdict};

use crate::process::make_private_dir;

/// The file that grows.
const CURRENT: &str = "audit.jsonl";

/// How many older files are kept.
const OLDER: usize = 8;

/// Records that wait for a disk that has room again. More are lost, and said to be in the agent's own log.
const WAITING_MAX: usize = 1_000;

/// Why the audit log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file cannot be read or written.
    #[error("{operation} audit log {path}: {source}; check the disk and its free space")]
    File {
        /// What was to be done.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The last line is no record, so that none can follow it.
    #[error(
        "audit log {path}: its last line {problem}; keep the file for an inquiry, and move it out of the directory"
    )]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A record cannot be put into words.
    #[error("write a record for the audit log: {0}")]
    Record(serde_json::Error),
}

/// The audit log.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    file: File,
    size: u64,
    /// The number of the first record in the file.
    first: u64,
    head: Head,
    max_bytes: u64,
    waiting: VecDeque<(u64, AuditEvent)>,
}

impl Journal {
    /// Opens the log in `dir`, or begins one. A line that has no end was never acted on: it is removed, and that is
    /// recorded.
    pub fn open(dir: &Path, max_bytes: u64, now_ms: u64) -> Result<Self, JournalError> {
        make_private_dir(dir).map_err(failed("make directory of", dir))?;
        let path = dir.join(CURRENT);
        let mut file = open_for_append(&path)?;
        let torn = cut_torn_line(&mut file).map_err(failed("repair", &path))?;
        let mut last = last_line(&path)?;
        let mut first = first_seq(&path)?;
        if last.is_none() {
            if let Some(older) = older_files(dir)?.last() {
                last = last_line(older)?;
            }
            first = None;
        }
        let head = match last {
            None => Head::default(),
            Some(line) => head_of(&line).map_err(|problem| JournalError::Unusable {
                path: path.clone(),
                problem,
            })?,
        };
        let size = file.metadata().map_err(failed("look at", &path))?.len();
        let mut journal = Self {
            dir: dir.to_path_buf(),
            file,
            size,
            first: first.unwrap_or(head.seq + 1),
            head,
            max_bytes,
            waiting: VecDeque::new(),
        };
        if torn > 0 {
            journal.append(now_ms, AuditEvent::TornLineRemoved { bytes: torn })?;
        }
        Ok(journal)
    }

    /// Records an event: it is on the disk when this returns.
    pub fn append(&mut self, at_ms: u64, event: AuditEvent) -> Result<(), JournalError> {
        while let Some((at_ms, event)) = self.waiting.front() {
            let (at_ms, event) = (*at_ms, event.clone());
            self.write(at_ms, &event)?;
            self.waiting.pop_front();
        }
        self.write(at_ms, &event)
    }

    /// Records an event that nothing may wait for: what gives the owner the machine back is done also when the disk is
    /// full. The record is then written before the next one that can be.
    pub fn append_or_keep(&mut self, at_ms: u64, event: AuditEvent) {
        let Err(error) = self.append(at_ms, event.clone()) else {
            return;
        };
        if self.waiting.len() < WAITING_MAX {
            log::error!("{error}; the record is kept and tried again");
            self.waiting.push_back((at_ms, event));
        } else {
            log::error!("{error}; lost, as {WAITING_MAX} wait already: {event:?} at {at_ms}");
        }
    }

    fn write(&mut self, at_ms: u64, event: &AuditEvent) -> Result<(), JournalError> {
        let (mut line, mut head) = audit::seal(&self.head, at_ms, event).map_err(JournalError::Record)?;
        if self.size > 0 && self.size + line.len() as u64 > self.max_bytes {
            self.turn_over()?;
            (line, head) = audit::seal(&self.head, at_ms, event).map_err(JournalError::Record)?;
        }
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            // What is there of the line must not be continued by the next.
            let path = self.dir.join(CURRENT);
            self.file.set_len(self.size).map_err(failed("repair", &path))?;
            return Err(failed("append to", &path)(source));
        }
        self.size += line.len() as u64;
        self.head = head;
        Ok(())
    }

    fn turn_over(&mut self) -> Result<(), JournalError> {
        let path = self.dir.join(CURRENT);
        let aside = self.dir.join(format!("audit-{:020}.jsonl", self.first));
        fs::rename(&path, &aside).map_err(failed("turn over", &path))?;
        self.file = open_for_append(&path)?;
        (self.size, self.first) = (0, self.head.seq + 1);
        sync_dir(&self.dir).map_err(failed("sync directory of", &path))?;
        let older = older_files(&self.dir)?;
        for path in older.iter().rev().skip(OLDER) {
            fs::remove_file(path).map_err(failed("remove", path))?;
        }
        Ok(())
    }

    /// The last records, at most so many where `tail` says, oldest first.
    pub fn records(&self, tail: Option<usize>) -> Result<Vec<AuditRecord>, JournalError> {
        let most = tail.unwrap_or(usize::MAX);
        let mut records = VecDeque::new();
        for path in self.files()? {
            let file = File::open(&path).map_err(failed("open", &path))?;
            for line in BufReader::new(file).lines() {
                let line = line.map_err(failed("read", &path))?;
                // A line that was tampered with is for `verify` to name.
                if let Ok(record) = serde_json::from_str::<AuditRecord>(&line) {
                    records.push_back(record);
                    if records.len() > most {
                        records.pop_front();
                    }
                }
            }
        }
        Ok(records.into())
    }

    /// Checks the whole chain.
    pub fn verify(&self) -> Result<AuditVerdict, JournalError> {
        let mut head: Option<Head> = None;
        for path in self.files()? {
            let file = File::open(&path).map_err(failed("open", &path))?;
            match audit::verify(BufReader::new(file), head.clone()) {
                Ok(next) => head = next,
                Err(VerifyError::Read(source)) => return Err(failed("read", &path)(source)),
                Err(VerifyError::Broken(broken)) => {
                    return Ok(verdict(
                        &self.head,
                        Some(AuditBreak {
                            file: path.display().to_string(),
                            line: broken.line,
                            problem: broken.problem,
                        }),
                    ));
                }
            }
        }
        let end = head.unwrap_or_default();
        // Lines that were cut off at the end leave a chain that holds; we know better.
        let broken = (end != self.head).then(|| AuditBreak {
            file: self.dir.join(CURRENT).display().to_string(),
            line: end.seq + 2 - self.first.min(end.seq + 1),
            problem: format!("is missing: the last record is number {}", self.head.seq),
        });
        Ok(verdict(&self.head, broken))
    }

    /// All files, oldest first.
    fn files(&self) -> Result<Vec<PathBuf>, JournalError> {
        let mut files = older_files(&self.dir)?;
        files.push(self.dir.join(CURRENT));
        Ok(files)
    }
}

fn verdict(head: &Head, broken: Option<AuditBreak>) -> AuditVerdict {
    AuditVerdict {
        records: head.seq,
        head: head.hash.clone(),
        broken,
    }
}

fn open_for_append(path: &Path) -> Result<File, JournalError> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(failed("open", path))
}

/// The older files, oldest first: their names begin with the number of their first record.
fn older_files(dir: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed("read directory of", dir))? {
        let name = entry.map_err(failed("read directory of", dir))?.file_name();
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("audit-") && name.ends_with(".jsonl"))
        {
            files.push(dir.join(name));
        }
    }
    files.sort();
    Ok(files)
}

/// Removes what stands behind the last line's end: how many bytes.
fn cut_torn_line(file: &mut File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let mut end = length;
    let mut block = [0; 4096];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let part = &mut block[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if end < length {
        file.set_len(end)?;
        file.sync_all()?;
    }
    Ok(length - end)
}

fn last_line(path: &Path) -> Result<Option<String>, JournalError> {
    let file = File::open(path).map_err(failed("open", path))?;
    let mut last = None;
    for line in BufReader::new(file).lines() {
        last = Some(line.map_err(failed("read", path))?);
    }
    Ok(last)
}

fn first_seq(path: &Path) -> Result<Option<u64>, JournalError> {
    let mut line = String::new();
    let file = File::open(path).map_err(failed("open", path))?;
    BufReader::new(file)
        .read_line(&mut line)
        .map_err(failed("read", path))?;
    Ok(audit::check(None, line.trim_end().as_bytes())
        .ok()
        .map(|head| head.seq))
}

/// What the next record follows.
fn head_of(line: &str) -> Result<Head, String> {
    audit::check(None, line.as_bytes())
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_path_buf();
    move |source| JournalError::File {
        operation,
        path,
        source,
    }
}
