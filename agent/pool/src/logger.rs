//! The log: one line for each message on standard error, where the service manager keeps it.

use std::io::Write;

use k8s_openapi::jiff::Timestamp;
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::plain;

/// Says how much is logged: `warn`, `info`, `debug`.
pub const VARIABLE: &str = "SECOVIA_LOG";

struct Logger {
    /// systemd adds a time of its own.
    for_journal: bool,
}

/// Starts logging; to be called once.
pub fn install() {
    let level = std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok());
    let logger = Logger {
        for_journal: std::env::var_os("JOURNAL_STREAM").is_some(),
    };
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(level.unwrap_or(LevelFilter::Info));
    }
}

impl Log for Logger {
    /// Libraries are heard only where something is wrong.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("secovia") || metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // What a server says stays on its line.
        let text = plain(&record.args().to_string());
        let line = match self.for_journal {
            true => format!("{text}\n"),
            false => format!("{:.3} {:<5} {text}\n", Timestamp::now(), record.level()),
        };
        // Where standard error is gone there is nobody to tell.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}
