//! The wall clock. The cores get the time as an argument; their shells take it from here.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix time in milliseconds; 0 where the clock stands before 1970.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
