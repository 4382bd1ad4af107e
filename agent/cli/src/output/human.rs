//! Values as people read them.

use jiff::Timestamp;
use secovia_agent_api::{Vm, VmState};

/// Bytes with a unit, two or three digits.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 999.5 rounds to 1000: the next unit reads better.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value < 9.95 {
        format!("{value:.1} {}", UNITS[unit])
    } else {
        format!("{value:.0} {}", UNITS[unit])
    }
}

/// A size in MiB with a unit.
pub(crate) fn mib(mib: u64) -> String {
    bytes(mib.saturating_mul(1024 * 1024))
}

/// A duration in its largest unit that fits: 42 s, 7 min, 3 h, 12 d.
pub(crate) fn seconds(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Microseconds as milliseconds.
pub(crate) fn millis(micros: u64) -> String {
    format!("{:.1} ms", micros as f64 / 1000.0)
}

/// How long ago something was.
pub(crate) fn ago(at_ms: u64, now_ms: u64) -> String {
    seconds(now_ms.saturating_sub(at_ms) / 1000) + " ago"
}

/// A time, RFC 3339 in UTC.
pub(crate) fn time(at_ms: u64) -> String {
    i64::try_from(at_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .map_or_else(|| format!("{at_ms} ms"), |at| format!("{at:.3}"))
}

/// Now, in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0)
}

/// What a microVM does, with how long it has done so.
pub(crate) fn state(vm: &Vm, now_ms: u64) -> String {
    let since = |at: Option<u64>| at.map_or_else(String::new, |at| format!(" {}", ago(at, now_ms)));
    match &vm.state {
        VmState::Created => "created".to_string(),
        VmState::Starting => "starting".to_string(),
        VmState::Running => match vm.started_at_ms {
            Some(at) => format!("running {}", seconds(now_ms.saturating_sub(at) / 1000)),
            None => "running".to_string(),
        },
        VmState::Stopping => "stopping".to_string(),
        VmState::Exited { code } => format!("exited ({code}){}", since(vm.ended_at_ms)),
        VmState::Failed { .. } => format!("failed{}", since(vm.ended_at_ms)),
        VmState::BackOff { until_ms, .. } => {
            format!(
                "restarts in {}",
                seconds(until_ms.saturating_sub(now_ms).div_ceil(1000))
            )
        }
    }
}

/// A command as it could be typed into a shell.
pub(crate) fn command(words: &[String]) -> String {
    words
        .iter()
        .map(|word| quoted(word))
        .collect::<Vec<_>>()
        .join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The first `width` characters of a text, marked where something is left out.
pub(crate) fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        text.to_string()
    } else {
        text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
    }
}
