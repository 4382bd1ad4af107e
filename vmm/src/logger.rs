//! The log: one line a message, to standard error or a file. Nothing of the guest's data is ever logged.
//!
//! What a guest does can lead to a warning, and it can do it as often as it likes. So `BURST` lines are written at
//! once and one more every `PACE_MS` milliseconds; the others are counted, and the next line tells how many they were.
//! Levels below `info` are not bounded: whoever asks for them looks on, and wants to see every line.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use log::{Level, LevelFilter, Log, Metadata, Record};
use secovia_devices::limiter::{BucketConfig, TokenBucket};

use crate::sys;

/// Lines that may be written at once.
const BURST: u64 = 100;
/// After which time each of them comes again: a day has 144 of these.
const PACE_MS: u64 = 600_000;

/// Writes each line with one call, so that lines of several threads or processes do not mix.
struct Logger {
    id: String,
    /// Standard error where there is no file.
    file: Option<File>,
    began: Instant,
    pace: Mutex<Pace>,
}

/// How many lines may be written.
struct Pace {
    bucket: Option<TokenBucket>,
    left_out: u64,
}

impl Pace {
    fn new() -> Self {
        let config = BucketConfig {
            size: BURST,
            one_time_burst: 0,
            refill_time: BURST * PACE_MS,
        };
        Self {
            bucket: TokenBucket::new(config, Duration::ZERO),
            left_out: 0,
        }
    }

    /// How many lines were left out before this one; `None` where it is left out too.
    fn pass(&mut self, level: Level, now: Duration) -> Option<u64> {
        if level <= Level::Info
            && let Some(bucket) = &mut self.bucket
        {
            if !bucket.wait(now).is_zero() {
                self.left_out = self.left_out.saturating_add(1);
                return None;
            }
            bucket.take(1);
        }
        Some(std::mem::take(&mut self.left_out))
    }
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
        let passed = self
            .pace
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pass(record.level(), self.began.elapsed());
        let left_out = match passed {
            None => return,
            Some(0) => String::new(),
            Some(count) => format!(" [{count} lines left out before this one]"),
        };
        let time = sys::utc_now();
        let (level, text) = (record.level(), record.args());
        let line = format!("{time} [{}] {level:<5} {text}{left_out}\n", self.id);
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
    let logger = LOGGER.get_or_init(|| Logger {
        id: id.into(),
        file,
        began: Instant::now(),
        pace: Mutex::new(Pace::new()),
    });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_pace_are_counted_and_told() {
        let mut pace = Pace::new();
        let minute = Duration::from_secs(60);
        for _ in 0..BURST {
            assert_eq!(pace.pass(Level::Warn, Duration::ZERO), Some(0));
        }
        for _ in 0..1000 {
            assert_eq!(pace.pass(Level::Error, minute), None);
        }
        // Whoever asked for more sees all of it, and that something is missing.
        assert_eq!(pace.pass(Level::Debug, minute), Some(1000));
        assert_eq!(pace.pass(Level::Debug, minute), Some(0));
        assert_eq!(pace.pass(Level::Warn, minute * 9), None);
        assert_eq!(pace.pass(Level::Warn, minute * 10), Some(1));
        assert_eq!(pace.pass(Level::Warn, minute * 10), None);
        let lines = (0..24 * 60).filter(|at| pace.pass(Level::Warn, minute * (10 + at)).is_some());
        assert_eq!(lines.count(), 143, "of a day's 1440");
    }
}
