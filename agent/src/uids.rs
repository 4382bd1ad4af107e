//! The user ids that VMs run as: a range of the host's that nobody else has.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// Ids below this one are the host's own users (login.defs(5): UID_MIN).
const FIRST_MIN: u32 = 1_000;

/// Ids with a meaning of their own: `nobody`, and the two that mean "no id" to old and new calls.
const RESERVED: [u32; 3] = [65_534, 65_535, u32::MAX];

/// A range of user ids; each VM's group has the same number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UidRange(RangeInclusive<u32>);

/// Why a range cannot be used; the text says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UidRangeError {
    /// It has no ids.
    #[error("has `count` 0; each microVM needs a user id of its own, give at least 1")]
    Empty,
    /// It begins among the host's own users, or ends beyond all ids.
    #[error(
        "is {first} and the {count} ids from there on; begin at {FIRST_MIN} or above and end below {}",
        u32::MAX
    )]
    Outside {
        /// The first id.
        first: u32,
        /// How many.
        count: u32,
    },
    /// It holds an id that means something else.
    #[error("holds {0}, which has a meaning of its own; choose a range without it")]
    Reserved(u32),
}

impl UidRange {
    /// The `count` ids from `first` on.
    pub fn new(first: u32, count: u32) -> Result<Self, UidRangeError> {
        let beyond = count.checked_sub(1).ok_or(UidRangeError::Empty)?;
        let range = match first.checked_add(beyond) {
            Some(last) if first >= FIRST_MIN => first..=last,
            _ => return Err(UidRangeError::Outside { first, count }),
        };
        match RESERVED.into_iter().find(|id| range.contains(id)) {
            Some(id) => Err(UidRangeError::Reserved(id)),
            None => Ok(Self(range)),
        }
    }

    /// Whether the id is one of them.
    pub fn contains(&self, uid: u32) -> bool {
        self.0.contains(&uid)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.clone().count()
    }

    /// An id that is not `taken`. The search begins behind `last`, the one given before: what a VM left behind under its
    /// id should not become another's, so an id rests as long as it can.
    pub fn pick(&self, taken: &BTreeSet<u32>, last: Option<u32>) -> Option<u32> {
        let (first, end) = (*self.0.start(), *self.0.end());
        let behind = last
            .filter(|last| (first..end).contains(last))
            .map_or(first, |last| last + 1);
        (behind..=end)
            .chain(first..behind)
            .find(|uid| !taken.contains(uid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_keeps_clear_of_ids_that_mean_something() {
        for (first, count, words) in [
            (900_000, 0, "`count` 0"),
            (0, 10, "begin at 1000"),
            (999, 10, "begin at 1000"),
            (u32::MAX, 2, "end below 4294967295"),
            (65_000, 1_000, "holds 65534"),
            (65_535, 1, "holds 65535"),
            (u32::MAX, 1, "holds 4294967295"),
        ] {
            let error = UidRange::new(first, count).unwrap_err().to_string();
            assert!(error.contains(words), "{first} {count}: {error}");
        }
        let range = UidRange::new(900_000, 3).unwrap();
        let inside = [899_999, 900_000, 900_002, 900_003].map(|uid| range.contains(uid));
        assert_eq!((inside, range.count()), ([false, true, true, false], 3));
    }

    #[test]
    fn no_id_is_given_twice_at_once_and_a_freed_one_rests() {
        let range = UidRange::new(2_000, 4).unwrap();
        let (mut taken, mut last) = (BTreeSet::new(), None);
        let mut given = Vec::new();
        while let Some(uid) = range.pick(&taken, last) {
            assert!(range.contains(uid) && taken.insert(uid));
            given.push(uid);
            last = Some(uid);
        }
        assert_eq!(given, [2_000, 2_001, 2_002, 2_003]);
        taken.remove(&2_001);
        assert_eq!(range.pick(&taken, last), Some(2_001));
        taken = BTreeSet::new();
        assert_eq!(range.pick(&taken, Some(2_001)), Some(2_002));
        assert_eq!(range.pick(&taken, Some(2_003)), Some(2_000));
        // One that the range no longer has, since it was changed.
        assert_eq!(range.pick(&taken, Some(7)), Some(2_000));
    }

    #[test]
    fn the_last_of_all_ids_is_no_trap() {
        let range = UidRange::new(u32::MAX - 2, 2).unwrap();
        let taken = BTreeSet::from([u32::MAX - 2]);
        assert_eq!(range.pick(&taken, Some(u32::MAX - 2)), Some(u32::MAX - 1));
        assert_eq!(range.pick(&taken, Some(u32::MAX - 1)), Some(u32::MAX - 1));
    }
}
