//! The agent's own log: one line for each message on standard error, where the service manager keeps it.

use std::io::Write;

use jiff::Timestamp;
use log::{LevelFilter, Log, Metadata, Record};

/// Wins over the configuration's `log_level`.
pub const VARIABLE: &str = "SECOVIA_LOG";

struct Logger {
    /// systemd adds a time of its own and takes the level from `<N>`.
    for_journal: bool,
}

/// Starts logging; to be called once.
pub fn start(level: LevelFilter) {
    let level = std::env::var(VARIABLE)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(level);
    let logger = Logger {
        for_journal: std::env::var_os("JOURNAL_STREAM").is_some(),
    };
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(level);
    }
}

impl Log for Logger {
    /// Libraries are heard only where something is wrong.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("secovia") || metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = if self.for_journal {
            // sd-daemon(3): error 3, warning 4, info 6, debug 7.
            let priority = match record.level() {
                log::Level::Error => 3,
                log::Level::Warn => 4,
                log::Level::Info => 6,
                log::Level::Debug | log::Level::Trace => 7,
            };
            format!("<{priority}>{}\n", record.args())
        } else {
            format!(
                "{:.3} {:<5} {}\n",
                Timestamp::now(),
                record.level(),
                record.args()
            )
        };
        // Where standard error is gone there is nobody to tell.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}
