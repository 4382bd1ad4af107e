//! When a certificate is to be renewed: pure.

/// From when to when something holds, in seconds of Unix time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first.
    pub from_s: i64,
    /// The last.
    pub until_s: i64,
}

impl Validity {
    /// When to renew: between seven and nine tenths of the time, as `chance` says, so that a region's nodes, which may have
    /// joined on one day, do not all ask on one day.
    pub fn renew_at_s(self, chance: u32) -> i64 {
        let whole = self.until_s.saturating_sub(self.from_s).max(0);
        let share = 0.7 + 0.2 * f64::from(chance) / f64::from(u32::MAX);
        self.from_s.saturating_add((whole as f64 * share) as i64)
    }

    /// Whether it holds no more.
    pub fn is_over(self, now_s: i64) -> bool {
        now_s > self.until_s
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_renewed_well_before_its_end(from_s in 0_i64..1 << 40, long_s in 100_i64..1 << 32, chance: u32) {
            let validity = Validity { from_s, until_s: from_s + long_s };
            let at_s = validity.renew_at_s(chance);
            prop_assert!(at_s - from_s >= long_s * 69 / 100 && validity.until_s - at_s >= long_s * 9 / 100);
            prop_assert!(!validity.is_over(at_s));
        }
    }

    #[test]
    fn one_that_never_held_is_due() {
        let upside_down = Validity {
            from_s: 10,
            until_s: 5,
        };
        assert_eq!(upside_down.renew_at_s(u32::MAX), 10);
        assert!(upside_down.is_over(10));
    }
}
