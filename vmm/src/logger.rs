//! The log: one line a message, to standard error or a file. Nothing of the guest's data is ever logged.
//!
//! What a guest does can lead to a warning, and it can do it as often as it likes. So `BURST` lines are written at
//! once and one more every `PACE_MS` milliseconds; the others are counted, and the next line tells how many they were.
//! Levels below `info` are not bounded: whoever asks for them looks on, and wants to see every line.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use log::{Level, LevelFilter, Log, Metadata, Record};
use secovia_devices::limiter::{BucketConfig, TokenBucket};
use secovia_vmm_api::{LogLevel, LoggerSpec};

use crate::sys;

/// Lines that may be written at once.
const BURST: u64 = 100;
/// After which time each of them comes again: a day has 144 of these.
const PACE_MS: u64 = 600_000;

/// Writes each line with one call, so that lines of several threads or processes do not mix.
struct Logger {
    id: String,
    /// Standard error where there is no file. Once there is one, it stays.
    file: OnceLock<File>,
    show_level: AtomicBool,
    show_origin: AtomicBool,
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
        let level = match self.show_level.load(Ordering::Relaxed) {
            true => format!(" {level:<5}"),
            false => String::new(),
        };
        let origin = match (
            self.show_origin.load(Ordering::Relaxed),
            record.file(),
            record.line(),
        ) {
            (true, Some(file), Some(line)) => format!(" [{file}:{line}]"),
            _ => String::new(),
        };
        let line = format!("{time} [{}]{level}{origin} {text}{left_out}\n", self.id);
        // There is nowhere to complain to.
        let _ = match self.file.get() {
            Some(file) => { file }.write_all(line.as_bytes()),
            None => io::stderr().write_all(line.as_bytes()),
        };
    }

    fn flush(&self) {}
}

/// Starts the log of machine `id`; once for the process. The file, if any, is created or added to.
pub fn start(id: &str, path: Option<&Path>, level: LevelFilter) -> io::Result<()> {
    let file = match path {
        Some(path) => OnceLock::from(open(path)?),
        None => OnceLock::new(),
    };
    let logger = LOGGER.get_or_init(|| Logger {
        id: id.into(),
        file,
        show_level: AtomicBool::new(true),
        show_origin: AtomicBool::new(false),
        began: Instant::now(),
        pace: Mutex::new(Pace::new()),
    });
    log::set_logger(logger).map_err(io::Error::other)?;
    log::set_max_level(level);
    Ok(())
}

/// Has each line say where in the program it comes from.
pub fn show_origin() {
    if let Some(logger) = LOGGER.get() {
        logger.show_origin.store(true, Ordering::Relaxed);
    }
}

/// Why the log is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// There is one already.
    #[error("logger.log_path: the log has its file already; leave it out")]
    TwoFiles,
    /// It does not open.
    #[error("logger.log_path: {path}: {source}; give a file or FIFO that can be written")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Changes the log as `spec` says; what it does not say stays.
pub fn change(spec: &LoggerSpec) -> Result<(), LogError> {
    let Some(logger) = LOGGER.get() else {
        return Ok(());
    };
    if let Some(path) = &spec.log_path {
        if logger.file.get().is_some() {
            return Err(LogError::TwoFiles);
        }
        let file = open(path).map_err(|source| LogError::Open {
            path: path.clone(),
            source,
        })?;
        logger.file.set(file).map_err(|_| LogError::TwoFiles)?;
    }
    if let Some(level) = spec.level {
        log::set_max_level(filter(level));
    }
    for (value, place) in [
        (spec.show_level, &logger.show_level),
        (spec.show_log_origin, &logger.show_origin),
    ] {
        if let Some(value) = value {
            place.store(value, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Opens a file to be added to; one that is a FIFO without a reader makes nobody wait.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).append(true).custom_flags(libc::O_NONBLOCK);
    match options.open(path) {
        // A FIFO that nobody reads yet: to be its reader, too, is the way in.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => options.read(true).open(path),
        opened => opened,
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Off => LevelFilter::Off,
        LogLevel::Error => LevelFilter::Error,
        LogLevel::Warning => LevelFilter::Warn,
        LogLevel::Info => LevelFilter::Info,
        LogLevel::Debug => LevelFilter::Debug,
        LogLevel::Trace => LevelFilter::Trace,
    }
}

/// How many lines were left out and not told of yet.
pub fn left_out() -> u64 {
    LOGGER.get().map_or(0, |logger| {
        logger
            .pace
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .left_out
    })
}

/// The machine's name, also in a signal handler; empty before the log is started.
pub fn id() -> &'static str {
    LOGGER.get().map_or("", |logger| &logger.id)
}

/// Writes a whole line, whatever the level, without taking a lock or memory. For signal handlers.
pub fn write_raw(line: &[u8]) {
    let stderr = io::stderr();
    let fd: BorrowedFd<'_> = match LOGGER.get().and_then(|logger| logger.file.get()) {
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
