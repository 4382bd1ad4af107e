//! The log: one line a message, to standard error or a file. Nothing of the guest's data is ever logged.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use log::{LevelFilter, Log, Metadata, Record};

/// Writes each line with one call, so that lines of several threads or processes do not mix.
struct Logger {
    id: String,
    /// Standard error where there is no file.
    file: Option<File>,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let time = crate::sys::utc_now();
        let line = format!("{time} [{}] {:<5} {}\n", self.id, record.level(), record.args());
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
    let logger = Box::new(Logger { id: id.into(), file });
    log::set_boxed_logger(logger).map_err(io::Error::other)?;
    log::set_max_level(level);
    Ok(())
}
