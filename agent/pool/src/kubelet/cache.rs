//! Answers of the region's that hold for a short while: pure, with the time as an argument.

use std::collections::BTreeMap;

/// So many are remembered; the one that ends first goes for a new one.
const MOST: usize = 256;

/// What was answered, and until when that holds.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    known: BTreeMap<K, (u64, V)>,
}

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self {
            known: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone, V: Clone> Cache<K, V> {
    /// What is known at `now_ms`.
    pub(super) fn get(&self, key: &K, now_ms: u64) -> Option<V> {
        let (until_ms, value) = self.known.get(key)?;
        (now_ms < *until_ms).then(|| value.clone())
    }

    /// Remembers it for `hold_ms` milliseconds.
    pub(super) fn put(&mut self, key: K, value: V, now_ms: u64, hold_ms: u64) {
        self.known.retain(|_, (until_ms, _)| now_ms < *until_ms);
        if self.known.len() >= MOST {
            let first = self.known.iter().min_by_key(|(_, (until_ms, _))| *until_ms);
            if let Some(key) = first.map(|(key, _)| key.clone()) {
                self.known.remove(&key);
            }
        }
        self.known.insert(key, (now_ms.saturating_add(hold_ms), value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_for_its_time_and_there_are_not_too_many() {
        let mut cache = Cache::default();
        cache.put("a".to_string(), 1, 0, 100);
        assert_eq!(cache.get(&"a".into(), 99), Some(1));
        assert_eq!(cache.get(&"a".into(), 100), None);
        cache.put("b".into(), 2, 200, 10_000);
        for n in 0..1_000_u64 {
            cache.put(n.to_string(), 3, 300, 100 + n);
        }
        assert_eq!(cache.known.len(), MOST);
        assert_eq!(cache.get(&"b".into(), 300), Some(2), "what ends first goes first");
    }
}
