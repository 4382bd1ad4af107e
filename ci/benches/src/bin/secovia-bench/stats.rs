//! What a row of times comes to.

use std::time::Duration;

use serde::Serialize;

/// Smallest, middle and largest, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Stats {
    pub(super) min_us: u64,
    pub(super) median_us: u64,
    pub(super) max_us: u64,
}

impl Stats {
    /// `None` for an empty row.
    pub(super) fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort_unstable();
        let us = |time: &Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Some(Self {
            min_us: us(times.first()?),
            median_us: us(times.get(times.len() / 2)?),
            max_us: us(times.last()?),
        })
    }
}

/// The smallest, the one that a quarter is below, the middle one, the one that a quarter is above, and the largest; `None`
/// for an empty row.
pub(super) fn quarters(mut row: Vec<i64>) -> Option<[i64; 5]> {
    row.sort_unstable();
    let last = row.len().checked_sub(1)?;
    Some([0, 1, 2, 3, 4].map(|quarter| row[last * quarter / 4]))
}

/// Nanoseconds, to be subtracted from each other.
pub(super) fn signed_ns(time: &Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_the_middle() {
        let times = [5, 1, 9, 3, 7].map(Duration::from_micros).to_vec();
        let expected = Stats {
            min_us: 1,
            median_us: 5,
            max_us: 9,
        };
        assert_eq!(Stats::of(times), Some(expected));
        assert_eq!(Stats::of(Vec::new()), None);
    }

    #[test]
    fn quarters_are_what_the_row_is_shared_by() {
        assert_eq!(quarters(vec![7, -1, 9, 3, 5]), Some([-1, 3, 5, 7, 9]));
        assert_eq!(quarters(vec![4]), Some([4; 5]));
        assert_eq!(quarters(Vec::new()), None);
    }
}
