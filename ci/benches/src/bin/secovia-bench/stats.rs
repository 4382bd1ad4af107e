//! Smallest, middle and largest of a row of times.

use std::time::Duration;

use serde::Serialize;

/// In microseconds.
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
}
