//! A token bucket as a plain value.

use std::time::Duration;

const NANOS_PER_MILLI: u128 = 1_000_000;

/// A bucket's settings, with the names and the meaning of Firecracker's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketConfig {
    /// Tokens that the bucket holds, and that flow into it during `refill_time`. 0: no limit.
    pub size: u64,
    /// Tokens on top of that, which are spent first and never come again.
    pub one_time_burst: u64,
    /// Milliseconds in which an empty bucket fills up. 0: no limit.
    pub refill_time: u64,
}

/// A bucket of tokens that fills up evenly. See the [module](super) for what it promises.
///
/// No input makes it overflow, and no token is lost to rounding: what is left of a division is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBucket {
    size: u64,
    /// Nanoseconds in which `size` tokens flow in; less than 2^84.
    refill: u128,
    /// What is left of the one-time burst.
    burst: u64,
    /// Tokens, at most `size`. Negative: a debt.
    level: i128,
    /// A fraction of a token, in parts of `refill`, and less than that.
    part: u128,
    /// When it was filled up last.
    now: Duration,
}

impl TokenBucket {
    /// A full bucket; `None` where the settings mean no limit.
    pub fn new(config: BucketConfig, now: Duration) -> Option<Self> {
        if config.size == 0 || config.refill_time == 0 {
            return None;
        }
        Some(Self {
            size: config.size,
            refill: u128::from(config.refill_time).saturating_mul(NANOS_PER_MILLI),
            burst: config.one_time_burst,
            level: i128::from(config.size),
            part: 0,
            now,
        })
    }

    /// How long until there is a token: zero, if there is one now. A `now` before the last one counts as that.
    pub fn wait(&mut self, now: Duration) -> Duration {
        self.fill(now);
        if self.burst > 0 || self.level > 0 {
            return Duration::ZERO;
        }
        // The debt, and one token more. Past 2^128 the sum stays where it is, which is longer than any timer waits.
        let missing = self.level.unsigned_abs().saturating_add(1);
        let parts = missing.saturating_mul(self.refill).saturating_sub(self.part);
        let nanos = parts.div_ceil(u128::from(self.size).max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Takes tokens, also more than there are.
    pub fn take(&mut self, tokens: u64) {
        let from_burst = tokens.min(self.burst);
        self.burst = self.burst.saturating_sub(from_burst);
        let rest = tokens.saturating_sub(from_burst);
        self.level = self.level.saturating_sub(i128::from(rest));
    }

    /// Lets in what has flowed since the last call.
    fn fill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.now);
        self.now = self.now.max(now);
        // 292 years at most: then the product is less than 2^127, and the sum fits too.
        let nanos = elapsed.as_nanos().min(i64::MAX as u128);
        let parts = nanos
            .saturating_mul(u128::from(self.size))
            .saturating_add(self.part);
        let tokens = parts.checked_div(self.refill).unwrap_or(0);
        let full = i128::from(self.size);
        let level = self.level.saturating_add_unsigned(tokens);
        (self.level, self.part) = if level >= full {
            (full, 0)
        } else {
            (level, parts.checked_rem(self.refill).unwrap_or(0))
        };
    }
}
