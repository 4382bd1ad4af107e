//! Where metrics go: a file or FIFO to which lines of JSON are added. Each is written by one call, so that lines do not mix;
//! a reader of a FIFO that does not keep up loses lines, and nobody waits for it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::{logger, sys};

/// The process's one file of metrics.
static FILE: OnceLock<File> = OnceLock::new();

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// There is a file already.
    #[error("metrics.metrics_path: metrics have their file already; leave it out")]
    TwoFiles,
    /// It does not open.
    #[error("metrics.metrics_path: {path}: {source}; give a file or FIFO that can be written")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Takes `path` for metrics; once for the process.
pub fn open(path: &Path) -> Result<(), MetricsError> {
    if is_open() {
        return Err(MetricsError::TwoFiles);
    }
    let file = logger::open(path).map_err(|source| MetricsError::Open {
        path: path.into(),
        source,
    })?;
    FILE.set(file).map_err(|_| MetricsError::TwoFiles)
}

/// Whether metrics go anywhere.
pub fn is_open() -> bool {
    FILE.get().is_some()
}

/// Adds a line, which must end in a line's end.
pub fn write(line: &[u8]) -> io::Result<()> {
    match FILE.get() {
        Some(mut file) => file.write_all(line),
        None => Ok(()),
    }
}

/// Adds a line without taking a lock or memory. For signal handlers.
pub fn write_raw(line: &[u8]) {
    if let Some(file) = FILE.get() {
        sys::write_raw(file.as_fd(), line);
    }
}
