//! How long to wait after a failure: pure, with chance as an argument.

use std::time::Duration;

/// Waits that double from failure to failure, up to a longest one.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// The first wait, and the longest.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            failures: 0,
        }
    }

    /// It went well: the next wait is the first again.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// How long to wait now that it failed once more: between a half and the whole of what the number of failures makes,
    /// as `chance` says, so that nodes that failed together do not come back together.
    pub fn failed(&mut self, chance: u32) -> Duration {
        let whole = self
            .first
            .saturating_mul(1 << self.failures.min(20))
            .min(self.longest);
        self.failures = self.failures.saturating_add(1);
        let share = f64::from(chance) / f64::from(u32::MAX);
        whole.mul_f64(0.5 + share / 2.0)
    }

    /// How often it failed in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// Chance. Without any it goes on all the same: it is about manners, not about secrets.
pub fn chance() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        let waits: Vec<u64> = (0..6).map(|_| backoff.failed(u32::MAX).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
        backoff.succeeded();
        assert_eq!(backoff.failed(0), Duration::from_millis(500));
    }

    #[test]
    fn no_number_of_failures_makes_it_hasty() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        for _ in 0..100 {
            backoff.failed(0);
        }
        assert_eq!(backoff.failed(0), Duration::from_secs(15));
    }
}
