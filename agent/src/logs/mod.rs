//! The output of workloads on disk, in the line format of the Kubernetes container runtime interface:
//! `TIME STREAM TAGS TEXT`, where the tag `F` ends a line of output and `P` does not.
//!
//! A VM's log is a directory of at most two files. Each file's name is the number of bytes that its run had written
//! before it. With that, and because every byte of output is written in the order in which it came, the log itself
//! says up to which byte the guest was read: an agent that comes back goes on exactly there.
//!
//! Two more tags are ours, in the place that the format has for them: `F:start` begins a run (where runs have numbers its
//! text is the number and how much output the run had before, for a file may begin in the middle of one), and `F:gap=N` stands for
//! N bytes that the guest had to drop because nobody read them.

mod line;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use line::{Kind, Line, ParseLineError};
pub use reader::{LogReader, Selection};
pub use writer::{LogWriter, Piece};

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Why a log cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{operation} log {path}: {source}")]
pub struct LogError {
    /// What was to be done.
    pub operation: &'static str,
    /// On what.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

impl LogError {
    fn new(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self {
            operation,
            path: path.to_path_buf(),
            source,
        }
    }
}

/// The files of the log in `dir`, oldest first, each with its place in the sequence.
fn files(dir: &Path) -> io::Result<Vec<FileName>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        if let Ok(name) = entry?.file_name().into_string()
            && let Some(name) = FileName::parse(&name)
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// `SEQUENCE-BASE.log`: the sequence orders the files, the base is how much output its run had before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct FileName {
    sequence: u64,
    base: u64,
}

impl FileName {
    fn parse(name: &str) -> Option<Self> {
        let (sequence, base) = name.strip_suffix(".log")?.split_once('-')?;
        Some(Self {
            sequence: sequence.parse().ok()?,
            base: base.parse().ok()?,
        })
    }

    fn path(self, dir: &Path) -> PathBuf {
        dir.join(format!("{}-{}.log", self.sequence, self.base))
    }
}
