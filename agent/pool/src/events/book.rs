//! What was told already, and how often something more may be: pure.

use std::collections::BTreeMap;

use crate::rate::Bucket;

/// Of one object: so many at once, and then one each so many milliseconds.
const OF_ONE: Bucket = Bucket::new(25, 60_000);

/// Of all objects.
const OF_ALL: Bucket = Bucket::new(50, 200);

/// So many different ones are remembered.
const MOST: usize = 256;

/// An object's uid, what happened to it, and the words for that.
pub(super) type Key = (String, String, String);

/// What becomes of something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// It is told.
    New,
    /// It was told under this name; now it has happened so often.
    Again { name: String, count: i32 },
    /// It happens too often to be told.
    Untold,
}

/// What was told.
#[derive(Debug)]
pub(super) struct Book {
    all: Bucket,
    each: BTreeMap<String, Bucket>,
    /// When it was told last, under which name, and how often it has happened.
    told: BTreeMap<Key, (u64, String, i32)>,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            all: OF_ALL,
            each: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }
}

impl Book {
    /// Something happened; `name` is what it is told under, where it is new.
    pub(super) fn enter(&mut self, key: &Key, name: &str, now_ms: u64) -> Entry {
        self.each.retain(|_, bucket| !bucket.is_full(now_ms));
        let own = self.each.entry(key.0.clone()).or_insert(OF_ONE);
        if let Some((_, _, count)) = self.told.get_mut(key) {
            // It is counted, told or not.
            *count = count.saturating_add(1);
        }
        if !own.take(now_ms) || !self.all.take(now_ms) {
            return Entry::Untold;
        }
        if let Some((at_ms, name, count)) = self.told.get_mut(key) {
            *at_ms = now_ms;
            let (name, count) = (name.clone(), *count);
            return Entry::Again { name, count };
        }
        if self.told.len() >= MOST {
            let oldest = self.told.iter().min_by_key(|(_, (at_ms, ..))| *at_ms);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                self.told.remove(&key);
            }
        }
        self.told.insert(key.clone(), (now_ms, name.into(), 1));
        Entry::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(uid: &str, reason: &str) -> Key {
        (uid.into(), reason.into(), "why".into())
    }

    #[test]
    fn what_happens_again_is_counted_on_what_was_told() {
        let mut book = Book::default();
        assert_eq!(book.enter(&key("a", "BackOff"), "a.1", 0), Entry::New);
        assert_eq!(book.enter(&key("a", "Started"), "a.2", 0), Entry::New);
        let again = Entry::Again {
            name: "a.1".into(),
            count: 2,
        };
        assert_eq!(book.enter(&key("a", "BackOff"), "a.3", 10), again);
    }

    #[test]
    fn one_that_never_rests_is_told_of_seldom_and_others_are_told_of() {
        let mut book = Book::default();
        let mut told = 0;
        for second in 0..600 {
            let entry = book.enter(&key("loops", "BackOff"), "x", second * 1_000);
            told += u32::from(entry != Entry::Untold);
        }
        assert!((25..=35).contains(&told), "{told} in ten minutes");
        assert_eq!(book.enter(&key("b", "Started"), "b.1", 600_000), Entry::New);
        let again = book.enter(&key("loops", "BackOff"), "x", 700_000);
        assert!(matches!(again, Entry::Again { count: 601, .. }), "{again:?}");
        for n in 0..1_000 {
            book.enter(&key(&n.to_string(), "Started"), "n", 1_000_000 + n * 1_000);
        }
        assert!(book.told.len() <= MOST && book.each.len() <= 64);
    }
}
