//! Reading a log, also while it is written.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use secovia_agent_api::{LogEvent, LogRecord};

use super::{FileName, Kind, Line, LogError, files};

/// How much is read at a time.
const CHUNK: usize = 128 * 1024;

/// Which part of a log is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only the last so many lines.
    pub tail: Option<u64>,
    /// Only what was written at or after this time (Unix time in milliseconds).
    pub since_ms: Option<u64>,
}

/// A place in a log.
#[derive(Debug)]
pub struct LogReader {
    dir: PathBuf,
    since_ms: u64,
    open: Option<(FileName, BufReader<File>)>,
    /// The writer has left the open file.
    left: bool,
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
    /// Records that were read ahead.
    ready: VecDeque<LogRecord>,
}

impl LogReader {
    /// At the beginning of what is wanted.
    pub fn new(dir: &Path, selection: Selection) -> Result<Self, LogError> {
        let mut reader = Self {
            dir: dir.to_path_buf(),
            since_ms: selection.since_ms.unwrap_or(0),
            open: None,
            left: false,
            partial: Vec::new(),
            ready: VecDeque::new(),
        };
        reader.next_file()?;
        match selection.tail {
            Some(lines) => reader.skip_to_tail(lines)?,
            None if selection.since_ms.is_none() => reader.tell_what_is_gone(),
            None => {}
        }
        Ok(reader)
    }

    /// The next records, or none where all that is written was read; more may come.
    pub fn read(&mut self) -> Result<Vec<LogRecord>, LogError> {
        if !self.ready.is_empty() {
            return Ok(self.ready.drain(..).collect());
        }
        let mut records = Vec::new();
        self.read_lines(|line, _| records.extend(line.record()))?;
        Ok(records)
    }

    /// Turned-over files are gone; the first that is left says how much of its run was before.
    fn tell_what_is_gone(&mut self) {
        if let Some((FileName { base, .. }, _)) = self.open
            && base > 0
        {
            self.ready.push_back(LogRecord {
                at_ms: 0,
                event: LogEvent::Gap(base),
            });
        }
    }

    fn skip_to_tail(&mut self, lines: u64) -> Result<(), LogError> {
        let mut kept: VecDeque<(LogRecord, bool)> = VecDeque::new();
        let mut ends = 0u64;
        loop {
            let more = self.read_lines(|line, ends_line| {
                if let Some(record) = line.record() {
                    ends += u64::from(ends_line);
                    kept.push_back((record, ends_line));
                }
                // What follows the last line end is a line too.
                let open =
                    |kept: &VecDeque<(LogRecord, bool)>| u64::from(kept.back().is_some_and(|(_, end)| !*end));
                while ends + open(&kept) > lines {
                    match kept.pop_front() {
                        Some((_, true)) => ends -= 1,
                        Some((_, false)) => {}
                        None => break,
                    }
                }
            })?;
            if !more {
                break;
            }
        }
        self.ready = kept.into_iter().map(|(record, _)| record).collect();
        Ok(())
    }

    /// Hands whole lines to `take`, about a chunk of them. Returns whether there was any.
    fn read_lines(&mut self, mut take: impl FnMut(&Line<'_>, bool)) -> Result<bool, LogError> {
        let mut bytes = 0;
        while bytes < CHUNK {
            let Some((name, reader)) = &mut self.open else {
                if self.next_file()? {
                    continue;
                }
                break;
            };
            let path = name.path(&self.dir);
            let count = reader
                .read_until(b'\n', &mut self.partial)
                .map_err(LogError::new("read", &path))?;
            bytes += count;
            if count == 0 {
                // The writer leaves a file for good before it makes the next one, so that once the next one is
                // there, one more look finds all of this one.
                if self.left {
                    self.left = false;
                    self.next_file()?;
                } else if self.following()?.is_some() {
                    self.left = true;
                } else {
                    break;
                }
                continue;
            }
            let Some(whole) = self.partial.strip_suffix(b"\n") else {
                continue;
            };
            if let Ok(line) = Line::parse(whole) {
                let is_new = line.at.as_millisecond().max(0) as u64 >= self.since_ms;
                if is_new || matches!(line.kind, Kind::Start) {
                    take(&line, line.ends_line());
                }
            }
            self.partial.clear();
        }
        Ok(bytes > 0)
    }

    /// Opens the file that follows the present one; `false` where there is none.
    fn next_file(&mut self) -> Result<bool, LogError> {
        let Some(next) = self.following()? else {
            return Ok(false);
        };
        let path = next.path(&self.dir);
        match File::open(&path) {
            Ok(file) => {
                self.partial.clear();
                self.open = Some((next, BufReader::new(file)));
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(LogError::new("open", &path)(error)),
        }
    }

    /// The file that follows the present one.
    fn following(&self) -> Result<Option<FileName>, LogError> {
        let names = match files(&self.dir) {
            Ok(names) => names,
            // Nothing was ever written, or the VM is being removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LogError::new("list", &self.dir)(error)),
        };
        let present = self.open.as_ref().map(|(name, _)| *name);
        Ok(names
            .into_iter()
            .find(|name| present.is_none_or(|present| *name > present)))
    }
}
