use super::*;

const MILLI: Duration = Duration::from_millis(1);

fn bucket(size: u64, one_time_burst: u64, refill_time: u64) -> TokenBucket {
    let config = BucketConfig {
        size,
        one_time_burst,
        refill_time,
    };
    TokenBucket::new(config, Duration::ZERO).unwrap()
}

/// xorshift64: the same choices on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Small, large, or at an edge.
    fn any(&mut self) -> u64 {
        match self.below(6) {
            0 => 0,
            1 => 1,
            2 => u64::MAX - self.below(2),
            3 => 1 << self.below(64),
            4 => self.below(10_000),
            _ => self.next(),
        }
    }
}

#[test]
fn zero_means_no_limit() {
    for (size, refill_time) in [(0, 0), (0, 5), (5, 0)] {
        let config = BucketConfig {
            size,
            one_time_burst: 7,
            refill_time,
        };
        assert_eq!(TokenBucket::new(config, Duration::ZERO), None);
    }
    let mut limiter = RateLimiter::new(&LimiterConfig::default(), Duration::ZERO);
    assert!(limiter.is_unlimited());
    limiter.charge(u64::MAX);
    assert_eq!(limiter.wait(MILLI), Duration::ZERO);
}

#[test]
fn a_full_bucket_empties_and_fills_up_evenly() {
    // 1000 tokens a second: one each millisecond.
    let mut bucket = bucket(1000, 0, 1000);
    assert_eq!(bucket.wait(Duration::ZERO), Duration::ZERO);
    bucket.take(1000);
    assert_eq!(bucket.wait(Duration::ZERO), MILLI);
    assert_eq!(bucket.wait(MILLI / 2), MILLI / 2);
    assert_eq!(bucket.wait(MILLI), Duration::ZERO);
    bucket.take(1);
    assert_eq!(bucket.wait(MILLI), MILLI);
    // It holds no more than its size, however long it is left alone.
    assert_eq!(bucket.wait(MILLI * 1_000_000), Duration::ZERO);
    bucket.take(1000);
    assert_eq!(bucket.wait(MILLI * 1_000_000), MILLI);
}

#[test]
fn the_burst_is_spent_first_and_once() {
    let mut bucket = bucket(10, 100, 10);
    bucket.take(100);
    // The bucket itself is untouched.
    assert_eq!(bucket.wait(Duration::ZERO), Duration::ZERO);
    bucket.take(10);
    assert_eq!(bucket.wait(Duration::ZERO), MILLI);
    assert_eq!(bucket.wait(MILLI * 1000), Duration::ZERO);
    bucket.take(10);
    assert_eq!(bucket.wait(MILLI * 1000), MILLI);
}

#[test]
fn an_operation_larger_than_the_bucket_is_paid_off_before_the_next() {
    let mut bucket = bucket(100, 0, 100);
    bucket.take(1100);
    assert_eq!(bucket.wait(Duration::ZERO), MILLI * 1001);
    assert_eq!(bucket.wait(MILLI * 1000), MILLI);
    assert_eq!(bucket.wait(MILLI * 1001), Duration::ZERO);
}

#[test]
fn a_clock_that_goes_back_gives_nothing_and_takes_nothing() {
    let mut bucket = bucket(10, 0, 10);
    assert_eq!(bucket.wait(MILLI * 50), Duration::ZERO);
    bucket.take(10);
    assert_eq!(bucket.wait(MILLI * 20), MILLI);
    assert_eq!(bucket.wait(MILLI * 50), MILLI);
    assert_eq!(bucket.wait(MILLI * 51), Duration::ZERO);
}

#[test]
fn no_token_is_lost_to_rounding() {
    // 3 tokens in 7 ms, asked every nanosecond-odd moment: after 7 seconds exactly 3000 have come.
    let mut bucket = bucket(3, 0, 7);
    bucket.take(3);
    let (mut taken, mut now) = (0, Duration::ZERO);
    let mut random = Random(5);
    while now < Duration::from_secs(7) {
        let step = Duration::from_nanos(1 + random.below(1_000_003));
        now = (now + step).min(Duration::from_secs(7));
        while bucket.wait(now).is_zero() {
            bucket.take(1);
            taken += 1;
        }
    }
    assert_eq!(taken, 3000);
}

/// What the module promises, for settings and operations of ordinary size: never more than the bound, never less than
/// what a caller that is always ready can be given.
#[test]
fn the_promise_holds_in_both_directions() {
    let mut random = Random(0x5eed);
    for round in 0..300 {
        let (size, refill) = (1 + random.below(1 << 20), 1 + random.below(2000));
        let burst = random.below(2) * random.below(1 << 21);
        let largest = 1 + random.below(1 << 17);
        let mut bucket = bucket(size, burst, refill);
        let (mut now, mut taken) = (Duration::ZERO, 0u128);
        for _ in 0..400 {
            let wait = bucket.wait(now);
            if wait.is_zero() {
                let cost = 1 + random.below(largest);
                bucket.take(cost);
                taken += u128::from(cost);
            } else {
                // Sometimes it is asked before its time, and must not open.
                if random.below(4) == 0 {
                    assert!(!bucket.wait(now + wait - Duration::from_nanos(1)).is_zero());
                }
                now += wait;
                assert!(bucket.wait(now).is_zero(), "round {round}");
            }
            let flowed = now.as_nanos() * u128::from(size) / (u128::from(refill) * 1_000_000);
            let given = u128::from(size) + u128::from(burst) + flowed;
            assert!(
                taken <= given + u128::from(largest),
                "round {round}: {taken} of {given}"
            );
            // Whoever waited as long as was asked has had all but what is in the bucket now, which is nothing or debt.
            if !bucket.wait(now).is_zero() {
                assert!(taken >= given, "round {round}: {taken} of {given}");
            }
        }
    }
}

/// The same against exact arithmetic, with any settings there are: no overflow (tests check arithmetic), no wrong answer.
#[test]
fn no_input_overflows() {
    let mut random = Random(0xdead);
    for _ in 0..2000 {
        let config = LimiterConfig {
            bandwidth: Some(BucketConfig {
                size: random.any(),
                one_time_burst: random.any(),
                refill_time: random.any(),
            }),
            operations: Some(BucketConfig {
                size: random.any(),
                one_time_burst: random.any(),
                refill_time: random.any(),
            }),
        };
        let time = |random: &mut Random| Duration::new(random.any(), random.below(1_000_000_000) as u32);
        let mut limiter = RateLimiter::new(&config, time(&mut random));
        for _ in 0..100 {
            let now = time(&mut random);
            let wait = limiter.wait(now);
            assert_eq!(limiter.wait(now), wait, "asking changes nothing");
            limiter.charge(random.any());
        }
    }
}

#[test]
fn both_limits_count() {
    let small = BucketConfig {
        size: 2,
        one_time_burst: 0,
        refill_time: 2,
    };
    let large = BucketConfig {
        size: 1000,
        one_time_burst: 0,
        refill_time: 1000,
    };
    let config = LimiterConfig {
        bandwidth: Some(large),
        operations: Some(small),
    };
    let mut limiter = RateLimiter::new(&config, Duration::ZERO);
    assert!(!limiter.is_unlimited());
    limiter.charge(1);
    limiter.charge(1);
    assert_eq!(limiter.wait(Duration::ZERO), MILLI, "operations are spent");
    assert_eq!(limiter.wait(MILLI * 2), Duration::ZERO);
    limiter.charge(1100);
    assert_eq!(limiter.wait(MILLI * 2), MILLI * 101, "bytes are spent");
}

/// A device that always has something to do, as a device works: it asks, does one thing, and where it has to wait it is
/// called some time after its alarm, up to `late`. On a clock of its own. Says how much it moved in each tenth of a
/// second: bytes and operations. `at` is when `change` comes, which calls the device.
fn ten_seconds(
    config: &LimiterConfig,
    largest: u64,
    late: Duration,
    (at, change): (Duration, LimiterConfig),
) -> Vec<(u64, u64)> {
    const TENTH: Duration = Duration::from_millis(100);
    let mut random = Random(0x7e57);
    let mut moved = vec![(0, 0); 100];
    let mut limiter = RateLimiter::new(config, Duration::ZERO);
    let (mut now, mut changed) = (Duration::ZERO, false);
    loop {
        let wait = limiter.wait(now);
        if wait.is_zero() {
            let Some((bytes, operations)) = moved.get_mut((now.as_nanos() / TENTH.as_nanos()) as usize)
            else {
                return moved;
            };
            let cost = 1 + random.below(largest);
            limiter.charge(cost);
            (*bytes, *operations) = (*bytes + cost, *operations + 1);
            // What one operation takes at least.
            now += Duration::from_micros(1);
        } else {
            now += wait + Duration::from_nanos(random.below(late.as_nanos() as u64 + 1));
        }
        if !changed && now >= at {
            (now, changed) = (at, true);
            limiter.change(&change, now);
        }
    }
}

/// What users of limits rely on: over ten seconds as much as the settings say, within a twentieth, whatever the sizes of
/// the operations and however late a busy host calls the device; and after a change as much as that says, from its first
/// tenth of a second on.
#[test]
fn ten_seconds_hold_within_a_twentieth_and_a_change_within_a_tenth_of_a_second() {
    let bucket = |size, one_time_burst, refill_time| BucketConfig {
        size,
        one_time_burst,
        refill_time,
    };
    let bandwidth = |bandwidth| LimiterConfig {
        bandwidth: Some(bandwidth),
        operations: None,
    };
    let operations = |operations| LimiterConfig {
        bandwidth: None,
        operations: Some(operations),
    };
    let never = (Duration::MAX, LimiterConfig::default());
    let near = |found: u64, expected: u64, what: &str| {
        let expected = expected as f64;
        let off = (found as f64 - expected).abs() / expected;
        assert!(off <= 0.05, "{what}: {found} instead of {expected}");
    };
    for late in [Duration::ZERO, MILLI, MILLI * 20] {
        for (size, burst, refill) in [
            (1 << 20, 0, 1000),
            (1 << 20, 5 << 20, 1000),
            (100 << 10, 1 << 20, 100),
            (10 << 20, 1, 500),
        ] {
            let bucket = bucket(size, burst, refill);
            let expected = size + burst + size * 10_000 / refill;
            let what = format!("{bucket:?}, called {late:?} late");
            let moved = ten_seconds(&bandwidth(bucket), 64 << 10, late, never);
            near(moved.iter().map(|(bytes, _)| bytes).sum(), expected, &what);
        }
        for (size, burst, refill) in [(100, 0, 1000), (100, 500, 1000), (1000, 0, 100)] {
            let bucket = bucket(size, burst, refill);
            let expected = size + burst + size * 10_000 / refill;
            let what = format!("{bucket:?}, called {late:?} late");
            let moved = ten_seconds(&operations(bucket), 4096, late, never);
            near(
                moved.iter().map(|(_, operations)| operations).sum(),
                expected,
                &what,
            );
        }

        // At the fifth second: ten times as much, a tenth, nothing for an hour, and no limit.
        let slow = operations(bucket(100, 0, 100));
        for (change, first, later) in [
            (bucket(1000, 0, 100), 2000, 1000),
            (bucket(10, 0, 100), 20, 10),
            (bucket(1, 0, 3_600_000), 1, 0),
            (bucket(0, 0, 0), 100_000, 100_000),
        ] {
            let at = Duration::from_secs(5);
            let moved = ten_seconds(&slow, 4096, late, (at, operations(change)));
            let what = format!("after the change to {change:?}, called {late:?} late");
            let tenth = |number: usize| moved[number].1;
            // A device that is called late has what came meanwhile in the tenth of a second that follows.
            let slack = (later as f64 * late.as_secs_f64() * 10.0) as u64 + 1;
            assert!(tenth(50).abs_diff(first) <= slack, "{what}: {}", tenth(50));
            for number in 51..100 {
                assert!(
                    tenth(number).abs_diff(later) <= slack,
                    "{what}: {}",
                    tenth(number)
                );
            }
        }
    }
}

#[test]
fn a_gate_opens_when_its_alarm_rings() {
    let config = LimiterConfig {
        bandwidth: None,
        operations: Some(BucketConfig {
            size: 1,
            one_time_burst: 0,
            refill_time: 20,
        }),
    };
    let mut alarm = Alarm::new().unwrap();
    let mut gate = Gate::new(&config);
    assert!(gate.may_pass(&mut alarm));
    gate.charge(0);
    assert!(!gate.may_pass(&mut alarm));
    assert!(rings(&alarm, 5000), "the alarm rings");
    assert!(gate.may_pass(&mut alarm));
    // Other limits take effect at once.
    gate.charge(0);
    assert!(!gate.may_pass(&mut alarm));
    let operations = |size| LimiterConfig {
        bandwidth: None,
        operations: Some(BucketConfig {
            size,
            one_time_burst: 0,
            refill_time: 3_600_000,
        }),
    };
    let handle = gate.handle();
    handle.change(&operations(2));
    for _ in 0..2 {
        assert!(gate.may_pass(&mut alarm));
        gate.charge(0);
    }
    assert!(!gate.may_pass(&mut alarm));
    // What a change does not name stays as it is, and the last of several counts.
    handle.change(&LimiterConfig::default());
    assert!(!gate.may_pass(&mut alarm));
    handle.change(&operations(1));
    handle.change(&operations(0));
    handle.change(&LimiterConfig::default());
    assert!(gate.may_pass(&mut alarm));
    // An alarm that is stopped does not ring.
    alarm.ring_in(MILLI * 10);
    alarm.stop();
    assert!(!rings(&alarm, 50));
    // The earlier of two moments counts, in whichever order they are set.
    alarm.ring_in(MILLI * 10);
    alarm.ring_in(Duration::MAX);
    assert!(rings(&alarm, 5000));
    alarm.ring_in(Duration::MAX);
    alarm.ring_in(Duration::ZERO);
    assert!(rings(&alarm, 5000));
}

fn rings(alarm: &Alarm, milliseconds: u16) -> bool {
    use std::os::fd::AsFd;

    use nix::poll::{PollFd, PollFlags, poll};
    poll(&mut [PollFd::new(alarm.as_fd(), PollFlags::POLLIN)], milliseconds).unwrap() == 1
}
