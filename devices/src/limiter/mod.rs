//! Limits of bandwidth and of operations: what a device may move in a time.
//!
//! [`TokenBucket`] and [`RateLimiter`] are plain values, to which time is an argument. [`Gate`] and [`Alarm`] are the shell
//! that a device holds: a clock, and the timer that wakes the device when it may go on.
//!
//! # What is promised
//! An operation may start while a bucket has a token or more; then it takes all that it costs, even if that is more than
//! there is. What it takes too much is a debt, and nothing starts until that is paid. So a bucket of size `S`, refilled
//! in `T`, with a one-time burst `B` lets through at most `S + B + S * t / T` in any time `t`, and the cost of one
//! operation more; and in the long run exactly `S / T`, whatever the sizes of the operations.

mod bucket;
mod gate;

use std::time::Duration;

pub use bucket::{BucketConfig, TokenBucket};
pub use gate::{Alarm, Gate, LimitHandle};

/// The limits of one direction of a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LimiterConfig {
    /// Bytes.
    pub bandwidth: Option<BucketConfig>,
    /// Operations: requests of a disk, packets of a network.
    pub operations: Option<BucketConfig>,
}

/// Both limits together: an operation starts when both buckets allow it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RateLimiter {
    bandwidth: Option<TokenBucket>,
    operations: Option<TokenBucket>,
}

impl RateLimiter {
    /// A limiter with full buckets. `now` is the time since any moment, the same one for all calls.
    pub fn new(config: &LimiterConfig, now: Duration) -> Self {
        let bucket = |config: Option<BucketConfig>| config.and_then(|config| TokenBucket::new(config, now));
        Self {
            bandwidth: bucket(config.bandwidth),
            operations: bucket(config.operations),
        }
    }

    /// Replaces the buckets that `change` names by new, full ones (or by none, where the settings mean no limit).
    pub fn change(&mut self, change: &LimiterConfig, now: Duration) {
        if let Some(config) = change.bandwidth {
            self.bandwidth = TokenBucket::new(config, now);
        }
        if let Some(config) = change.operations {
            self.operations = TokenBucket::new(config, now);
        }
    }

    /// Whether it limits anything at all.
    pub fn is_unlimited(&self) -> bool {
        self.bandwidth.is_none() && self.operations.is_none()
    }

    /// How long until an operation may start: zero, if one may start now.
    pub fn wait(&mut self, now: Duration) -> Duration {
        let wait = |bucket: &mut Option<TokenBucket>| bucket.as_mut().map_or(Duration::ZERO, |b| b.wait(now));
        wait(&mut self.bandwidth).max(wait(&mut self.operations))
    }

    /// Takes what one operation over `bytes` costs, at the time that [`RateLimiter::wait`] was told last.
    pub fn charge(&mut self, bytes: u64) {
        if let Some(bucket) = &mut self.bandwidth {
            bucket.take(bytes);
        }
        if let Some(bucket) = &mut self.operations {
            bucket.take(1);
        }
    }
}

#[cfg(test)]
mod tests;
