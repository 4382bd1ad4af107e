use proptest::prelude::*;

use super::*;

const WINDOW: u64 = 48_000;

fn all(amount: u64) -> Amounts {
    Each::from_fn(|_| amount)
}

#[test]
fn buckets_are_in_order_and_barely_too_high() {
    let mut last = 0;
    for amount in (0..100_000).chain((17..64).flat_map(|bit| {
        let power = 1u64 << bit;
        [power - 1, power, power + 1, power + power / 3]
    })) {
        let ceiling = ceiling(bucket(amount));
        assert!(ceiling >= amount, "{amount}: {ceiling}");
        assert!(ceiling - amount <= amount / SUB_BUCKETS, "{amount}: {ceiling}");
        if amount < 100_000 {
            assert!(bucket(amount) >= last, "{amount}");
            last = bucket(amount);
        }
    }
    assert_eq!(ceiling(bucket(u64::MAX)), u64::MAX);
    assert_eq!(ceiling(u32::MAX), u64::MAX, "what a damaged file may hold");
}

#[test]
fn a_peak_of_five_percent_is_let_pass_and_one_of_six_is_not() {
    for (peaks, expected) in [(5, 10), (6, 30)] {
        let mut usage = Usage::default();
        for second in 0..100 {
            usage.record(all(if second < peaks { 30 } else { 10 }), 100, WINDOW);
        }
        assert_eq!(usage.p95(), Some(all(expected)), "{peaks}");
    }
}

#[test]
fn what_lies_behind_the_window_is_forgotten() {
    let mut usage = Usage::default();
    assert_eq!(usage.p95(), None);
    for _ in 0..48 {
        usage.record(all(20), 1_000, WINDOW);
    }
    assert_eq!(usage.p95(), Some(all(20)));
    for _ in 0..49 {
        usage.record(all(5), 1_000, WINDOW);
    }
    assert_eq!(usage.p95(), Some(all(5)));
    assert!(usage.observed_ms() >= WINDOW, "{}", usage.observed_ms());
    // A shorter window counts at once.
    usage.record(all(7), 1_000, 1_000);
    assert!(usage.observed_ms() <= 2_000, "{}", usage.observed_ms());
}

#[test]
fn a_long_sleep_counts_as_one_sample() {
    let mut usage = Usage::default();
    usage.record(all(9), u64::MAX, 24 * 3_600_000);
    assert_eq!(usage.observed_ms(), SAMPLE_MAX_MS);
    assert_eq!(usage.last(), Some(all(9)));
}

#[test]
fn it_survives_being_written_down() {
    let mut usage = Usage::default();
    for amount in 0..500 {
        usage.record(all(amount * 12_345), 700, WINDOW);
    }
    let text = serde_json::to_string(&usage).unwrap();
    assert_eq!(serde_json::from_str::<Usage>(&text).unwrap(), usage);
    assert!(text.len() < 100_000, "{}", text.len());
}

proptest! {
    /// Whatever comes: bounded space, and a percentile between the least and (barely above) the most of all samples.
    #[test]
    fn it_is_bounded(samples in prop::collection::vec((0u64..1 << 45, 0u64..100_000), 1..400), window in 1u64..1_000_000) {
        let mut usage = Usage::default();
        let most = samples.iter().map(|(amount, _)| *amount).max().unwrap_or(0);
        for (amount, elapsed) in &samples {
            usage.record(all(*amount), *elapsed, window);
            prop_assert!(usage.slots.len() as u64 <= SLOTS + 1);
            let p95 = usage.p95().unwrap();
            prop_assert!(p95.memory <= most + most / SUB_BUCKETS, "{p95:?}");
        }
    }
}
