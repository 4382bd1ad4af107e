//! Writing a log: appends, turns over, and knows how far it came.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{FileName, Kind, Line, LogError, files};

/// How many files a log may have.
const FILES_MAX: usize = 2;

/// A piece of a workload's output, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Standard output.
    Stdout(Vec<u8>),
    /// Standard error.
    Stderr(Vec<u8>),
    /// So many bytes are missing.
    Gap(u64),
}

/// A log that is written. One at a time for each log.
#[derive(Debug)]
pub struct LogWriter {
    dir: PathBuf,
    name: FileName,
    file: File,
    /// Bytes in the file.
    size: u64,
    /// Bytes of output in the present run.
    output: u64,
    /// The present run's number, where runs have one.
    run: Option<u32>,
    size_max: u64,
    /// Bytes of output that could not be written, to be told before what comes next.
    lost: u64,
}

impl LogWriter {
    /// Goes on with the log in `dir`, or begins it. A last line that was cut off is removed: its bytes are read from
    /// the guest again.
    pub fn open(dir: &Path, size_max: u64) -> Result<Self, LogError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(LogError::new("make directory of", dir))?;
        let names = files(dir).map_err(LogError::new("list", dir))?;
        let name = names.last().copied().unwrap_or(FileName { sequence: 0, base: 0 });
        let path = name.path(dir);
        let file = open(&path).map_err(LogError::new("open", &path))?;
        let Scanned { size, output, run } = scan(&file, name.base).map_err(LogError::new("read", &path))?;
        file.set_len(size).map_err(LogError::new("truncate", &path))?;
        Ok(Self {
            dir: dir.to_path_buf(),
            name,
            file,
            size,
            output,
            run,
            size_max,
            lost: 0,
        })
    }

    /// How many bytes of the present run's output are in the log, or given up: where to go on reading.
    pub fn output(&self) -> u64 {
        self.output.saturating_add(self.lost)
    }

    /// The number of the present run; none before the first, and where runs have none.
    pub fn run(&self) -> Option<u32> {
        self.run
    }

    /// A new run begins; its output counts from zero.
    pub fn begin_run(&mut self, number: Option<u32>) -> Result<(), LogError> {
        self.write_start(number, 0)?;
        self.output = 0;
        self.lost = 0;
        self.run = number;
        Ok(())
    }

    fn write_start(&mut self, number: Option<u32>, output: u64) -> Result<(), LogError> {
        let text = number.map_or_else(String::new, |number| format!("{number} {output}"));
        let mut line = Vec::new();
        let start = Line {
            at: Timestamp::now(),
            kind: Kind::Start,
            text: text.as_bytes(),
        };
        start.write(&mut line);
        self.write(&line)
    }

    /// Appends output in the order in which it came.
    pub fn append(&mut self, pieces: &[Piece]) -> Result<(), LogError> {
        let at = Timestamp::now();
        let mut lines = Vec::new();
        let mut output = 0;
        let mut add = |kind, text| {
            let line = Line { at, kind, text };
            line.write(&mut lines);
            output = line.output().saturating_add(output);
        };
        let lost = (self.lost > 0).then_some(Piece::Gap(self.lost));
        for piece in lost.iter().chain(pieces) {
            match piece {
                Piece::Gap(count) => add(Kind::Gap(*count), b"output is missing here"),
                Piece::Stdout(bytes) => split(bytes, |text, full| add(Kind::Stdout { full }, text)),
                Piece::Stderr(bytes) => split(bytes, |text, full| add(Kind::Stderr { full }, text)),
            }
        }
        if self.size >= self.size_max {
            self.turn_over()?;
        }
        self.write(&lines)?;
        self.output = self.output.saturating_add(output);
        self.lost = 0;
        Ok(())
    }

    /// Gives up on output that could not be appended. The next append tells how much it was.
    pub fn lose(&mut self, pieces: &[Piece]) {
        for piece in pieces {
            let count = match piece {
                Piece::Stdout(bytes) | Piece::Stderr(bytes) => bytes.len() as u64,
                Piece::Gap(count) => *count,
            };
            self.lost = self.lost.saturating_add(count);
        }
    }

    fn write(&mut self, lines: &[u8]) -> Result<(), LogError> {
        if let Err(error) = self.file.write_all(lines) {
            // Half a line would spoil the count; where even this fails, the next opening repairs it.
            let _ = self.file.set_len(self.size);
            return Err(LogError::new("write", &self.name.path(&self.dir))(error));
        }
        self.size += lines.len() as u64;
        Ok(())
    }

    /// Begins a new file, and removes those that are too many.
    fn turn_over(&mut self) -> Result<(), LogError> {
        let name = FileName {
            sequence: self.name.sequence + 1,
            base: self.output,
        };
        let path = name.path(&self.dir);
        self.file = open(&path).map_err(LogError::new("open", &path))?;
        self.name = name;
        self.size = 0;
        let names = files(&self.dir).map_err(LogError::new("list", &self.dir))?;
        for old in names.iter().rev().skip(FILES_MAX) {
            let path = old.path(&self.dir);
            fs::remove_file(&path).map_err(LogError::new("remove", &path))?;
        }
        if self.run.is_some() {
            self.write_start(self.run, self.output)?;
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// Calls `take` for each line of output in `bytes`, and for what follows the last line end.
fn split<'a>(bytes: &'a [u8], mut take: impl FnMut(&'a [u8], bool)) {
    for part in bytes.split_inclusive(|byte| *byte == b'\n') {
        match part.strip_suffix(b"\n") {
            Some(text) => take(text, true),
            None => take(part, false),
        }
    }
}

/// What a file holds.
struct Scanned {
    /// Bytes of whole lines.
    size: u64,
    /// Bytes of output that its last run had after them.
    output: u64,
    /// The number of that run, where it has one.
    run: Option<u32>,
}

fn scan(file: &File, base: u64) -> io::Result<Scanned> {
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    let (mut size, mut output, mut run) = (0, base, None);
    while reader.read_until(b'\n', &mut line)? > 0 {
        let Some(whole) = line.strip_suffix(b"\n") else {
            break;
        };
        size += line.len() as u64;
        // A line that is none of ours (a file that someone edited) counts for nothing.
        if let Ok(line) = Line::parse(whole) {
            output = match line.kind {
                Kind::Start => {
                    let text = str::from_utf8(line.text).unwrap_or_default();
                    let (number, before) = text.split_once(' ').unwrap_or((text, ""));
                    run = number.parse().ok();
                    before.parse().unwrap_or(0)
                }
                _ => line.output().saturating_add(output),
            };
        }
        line.clear();
    }
    Ok(Scanned { size, output, run })
}
