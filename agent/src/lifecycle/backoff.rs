//! How long to wait before another try.

/// Delays that double from `first_ms` to `max_ms`, and begin anew after a run of `stable_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Before the first restart.
    pub first_ms: u64,
    /// Never longer than this.
    pub max_ms: u64,
    /// A run this long counts as healthy.
    pub stable_ms: u64,
}

impl Backoff {
    /// The delay before the restart that follows `restarts` others in a row.
    pub fn delay_ms(&self, restarts: u32) -> u64 {
        let factor = 1u64.checked_shl(restarts).unwrap_or(u64::MAX);
        self.first_ms.saturating_mul(factor).min(self.max_ms)
    }
}
