//! Values as people type them, parsed once.

use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;

/// A size in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mib(pub u64);

impl FromStr for Mib {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (digits, unit) = split_unit(text);
        let factor = match unit.to_ascii_lowercase().as_str() {
            "" | "m" | "mb" | "mib" => 1,
            "g" | "gb" | "gib" => 1024,
            "t" | "tb" | "tib" => 1024 * 1024,
            _ => return Err("expected a size such as 512M or 2G".to_string()),
        };
        let number: u64 = digits
            .parse()
            .map_err(|_| "expected a size such as 512M or 2G".to_string())?;
        match number.checked_mul(factor) {
            Some(0) => Err("a size of 0 is of no use".to_string()),
            Some(mib) => Ok(Self(mib)),
            None => Err("the size is larger than can be counted".to_string()),
        }
    }
}

/// An environment variable: with its value, or with the one that it has here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EnvVar {
    /// Its name.
    pub key: String,
    /// Its value; `None` takes the caller's.
    pub value: Option<String>,
}

impl FromStr for EnvVar {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value.to_string())),
            None => (text, None),
        };
        if key.is_empty() {
            return Err("expected KEY=VALUE or KEY".to_string());
        }
        Ok(Self {
            key: key.to_string(),
            value,
        })
    }
}

/// A point in time, or a time before now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// So long ago.
    Ago(Duration),
    /// Milliseconds since 1970.
    At(u64),
}

impl Since {
    /// In milliseconds since 1970, where it is `now_ms` now.
    pub(crate) fn resolve(self, now_ms: u64) -> u64 {
        match self {
            Self::Ago(ago) => now_ms.saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)),
            Self::At(at_ms) => at_ms,
        }
    }
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(ago) = duration(text) {
            return Ok(Self::Ago(ago));
        }
        let at: Timestamp = text.parse().map_err(|_| {
            "expected a duration such as 10m, or a time such as 2030-01-31T12:00:00Z".to_string()
        })?;
        u64::try_from(at.as_millisecond())
            .map(Self::At)
            .map_err(|_| "times before 1970 are of no use".to_string())
    }
}

/// CPUs in thousandths, from a number such as 0.5 or 2.
pub(super) fn cpu_millis(text: &str) -> Result<u32, String> {
    let cpus: f64 = text
        .parse()
        .map_err(|_| "expected a number of CPUs such as 0.5 or 2".to_string())?;
    if (0.01..=32.0).contains(&cpus) {
        Ok((cpus * 1_000.0).round() as u32)
    } else {
        Err("expected 0.01 to 32 CPUs".to_string())
    }
}

/// A duration in whole seconds, rounded up.
pub(super) fn seconds(text: &str) -> Result<u32, String> {
    duration(text)
        .and_then(|duration| u32::try_from(duration.as_millis().div_ceil(1000)).ok())
        .ok_or_else(|| "expected a duration such as 10s or 1m".to_string())
}

/// A duration between two looks.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    match duration(text) {
        Some(duration) if duration >= Duration::from_millis(100) => Ok(duration),
        Some(_) => Err("at least 100ms, lest the look be the load".to_string()),
        None => Err("expected a duration such as 1s or 500ms".to_string()),
    }
}

/// `90`, `90s`, `500ms`, `2m`, `1h`, `1d`.
fn duration(text: &str) -> Option<Duration> {
    let (digits, unit) = split_unit(text);
    let number: u64 = digits.parse().ok()?;
    let factor_ms: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(factor_ms).map(Duration::from_millis)
}

fn split_unit(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// The signals that have a name, with their Linux numbers on x86-64.
const SIGNALS: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// A signal's number from its name, with or without SIG, or from its number.
pub(super) fn signal(text: &str) -> Result<i32, String> {
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) {
            Ok(number)
        } else {
            Err("signals are numbered 1 to 64".to_string())
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    SIGNALS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, number)| *number)
        .ok_or_else(|| "expected a signal such as TERM, SIGHUP or 9".to_string())
}
