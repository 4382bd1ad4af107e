//! How often something may be done: pure, with the time as an argument.

/// Lets a number of things happen at once, and then one after each interval.
#[derive(Debug, Clone)]
pub struct Bucket {
    most: u32,
    every_ms: u64,
    left: u32,
    /// Up to here what came back is counted.
    counted_ms: u64,
}

impl Bucket {
    /// A full one: `most` at once, then one each `every_ms` milliseconds, which are not 0.
    pub const fn new(most: u32, every_ms: u64) -> Self {
        Self {
            most,
            every_ms,
            left: most,
            counted_ms: 0,
        }
    }

    /// Whether one more may happen at `now_ms`, on a clock that never goes back; where it may, it is counted.
    pub fn take(&mut self, now_ms: u64) -> bool {
        let back = now_ms.saturating_sub(self.counted_ms) / self.every_ms.max(1);
        self.counted_ms = self.counted_ms.saturating_add(back.saturating_mul(self.every_ms));
        let back = u32::try_from(back).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(back).min(self.most);
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }

    /// Whether it is full: nothing has happened for so long that it may as well be forgotten.
    pub fn is_full(&self, now_ms: u64) -> bool {
        let back = now_ms.saturating_sub(self.counted_ms) / self.every_ms.max(1);
        u64::from(self.left).saturating_add(back) >= u64::from(self.most)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn some_at_once_and_then_one_each_interval() {
        let mut bucket = Bucket::new(2, 100);
        let may: Vec<bool> = [1_000, 1_000, 1_000, 1_050, 1_100, 1_100, 9_000, 9_000, 9_000]
            .into_iter()
            .map(|now_ms| bucket.take(now_ms))
            .collect();
        assert_eq!(may, [true, true, false, false, true, false, true, true, false]);
        assert!(!bucket.is_full(9_100) && bucket.is_full(9_200));
    }

    proptest! {
        #[test]
        fn never_more_than_it_says(steps in proptest::collection::vec(0_u64..500, 1..200)) {
            let mut bucket = Bucket::new(3, 100);
            let (mut now_ms, mut taken) = (0, 0);
            for step in steps {
                now_ms += step;
                taken += u64::from(bucket.take(now_ms));
                prop_assert!(taken <= 3 + now_ms / 100);
            }
        }
    }
}
