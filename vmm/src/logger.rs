//! The log: one line a message, to standard error or a file. Nothing of the guest's data is ever logged.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::OnceLock;

use log::{LevelFilter, Log, Metadata, Record};

use crate::sys;

/// Writes each line with one call, so that lines of several threads or processes do not mix.
struct Logger {
    id: String,
    /// Standard error where there is no file.
    file: Option<File>,
}

/// The process's one log.
static LOGGER: OnceLock<Logger> = OnceLock::new();

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = format!(
            "{} [{}] {:<5} {}\n",
            sys::utc_now(),
            self.id,
            record.level(),
            record.args()
        );
        // There is nowhere to complain to.
        let _ = match &self.file {
            Some(file) => { file }.write_all(line.as_bytes()),
            None => io::stderr().write_all(line.as_bytes()),
        };
    }

    fn flush(&self) {}
}

/// Starts the log of machine `id`; once for the process. The file, if any, is created or added to.
pub fn start(id: &str, path: Option<&Path>, level: LevelFilter) -> io::Result<()> {
    let file = path
        .map(|path| File::options().create(true).append(true).open(path))
        .transpose()?;
    let logger = LOGGER.get_or_init(|| Logger { id: id.into(), file });
    log::set_logger(logger).map_err(io::Error::other)?;
    log::set_max_level(level);
    Ok(())
}

/// The machine's name, also in a signal handler; empty before the log is started.
pub fn id() -> &'static str {
    LOGGER.get().map_or("", |logger| &logger.id)
}

/// Writes a whole line, whatever the level, without taking a lock or memory. For signal handlers.
pub fn write_raw(line: &[u8]) {
    let stderr = io::stderr();
    let fd: BorrowedFd<'_> = match LOGGER.get().and_then(|logger| logger.file.as_ref()) {
        Some(file) => file.as_fd(),
        None => stderr.as_fd(),
    };
    sys::write_raw(fd, line);
}
