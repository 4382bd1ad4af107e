//! `TokenBucket`, against whole numbers: a token is cut into as many parts as a refill has nanoseconds, so that nothing
//! is ever rounded.

use std::time::Duration;

use secovia_devices::limiter::{BucketConfig, TokenBucket};

const MILLI: i128 = 1_000_000;

/// The same bucket in parts of tokens.
#[derive(Debug, Clone)]
struct Model {
    size: i128,
    refill: i128,
    burst: i128,
    /// In parts, of which a token has `refill`; each nanosecond brings `size` of them.
    level: i128,
    now: i128,
}

impl Model {
    fn new(config: BucketConfig) -> Self {
        let (size, refill) = (i128::from(config.size), i128::from(config.refill_time) * MILLI);
        Self {
            size,
            refill,
            burst: config.one_time_burst.into(),
            level: size * refill,
            now: 0,
        }
    }

    fn wait(&mut self, now: i128) -> i128 {
        if now > self.now {
            self.level = (self.level + (now - self.now) * self.size).min(self.size * self.refill);
            self.now = now;
        }
        // A whole token must be there.
        let missing = self.refill - self.level;
        if self.burst > 0 || missing <= 0 {
            return 0;
        }
        (missing + self.size - 1) / self.size
    }

    fn take(&mut self, tokens: i128) {
        let from_burst = tokens.min(self.burst);
        self.burst -= from_burst;
        self.level -= (tokens - from_burst) * self.refill;
    }
}

/// What can be done to a bucket: ask after so many nanoseconds (fewer than none: the clock went back), then take.
type Step = (i128, u64);

fn follow(config: BucketConfig, steps: &[Step]) {
    let mut model = Model::new(config);
    let mut bucket = TokenBucket::new(config, Duration::ZERO).unwrap();
    let mut now = 0;
    for &(after, tokens) in steps {
        now = (now + after).max(0);
        let wait = bucket.wait(Duration::from_nanos(now as u64));
        assert_eq!(
            wait.as_nanos() as i128,
            model.wait(now),
            "{config:?} after {steps:?}"
        );
        bucket.take(tokens);
        model.take(tokens.into());
    }
}

/// Every sequence of four steps, on every small bucket.
#[test]
fn every_small_bucket_and_everything_done_to_it() {
    let mut steps = Vec::new();
    for after in [-MILLI, 0, 1, MILLI - 1, MILLI, 3 * MILLI + 1, 1000 * MILLI] {
        steps.extend([0, 1, 2, 5].map(|tokens| (after, tokens)));
    }
    for size in 1..=3 {
        for refill_time in 1..=3 {
            for one_time_burst in [0, 1, 3] {
                let config = BucketConfig {
                    size,
                    one_time_burst,
                    refill_time,
                };
                for first in &steps {
                    for second in &steps {
                        for third in &steps {
                            follow(config, &[*first, *second, *third, (1, 0)]);
                        }
                    }
                }
            }
        }
    }
}

/// Every edge of every setting and of what is taken: no overflow (which ends a test), and a debt is never forgiven.
#[test]
fn no_setting_overflows_and_no_debt_is_lost() {
    let edges = [1, 2, 999, 1 << 32, u64::MAX / 2, u64::MAX - 1, u64::MAX];
    for size in edges {
        for refill_time in edges {
            for one_time_burst in [0, 1, u64::MAX] {
                for tokens in edges {
                    let config = BucketConfig {
                        size,
                        one_time_burst,
                        refill_time,
                    };
                    let mut bucket = TokenBucket::new(config, Duration::ZERO).unwrap();
                    let mut taken = 0u128;
                    for _ in 0..4 {
                        bucket.take(tokens);
                        taken += u128::from(tokens);
                    }
                    let wait = bucket.wait(Duration::ZERO);
                    let given = u128::from(size) + u128::from(one_time_burst);
                    assert_eq!(wait.is_zero(), taken < given, "{config:?}, 4 times {tokens}");
                    // At the end of all time what has come is all that can have.
                    let end = Duration::from_nanos(i64::MAX as u64);
                    let mut late = bucket.clone();
                    assert!(late.wait(end) <= wait);
                    // Going back in time gives nothing.
                    let debt = bucket.wait(end);
                    assert_eq!(bucket.wait(Duration::ZERO), debt);
                }
            }
        }
    }
}
