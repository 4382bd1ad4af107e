//! How much the owner has used of late: the 95th percentile over a sliding window, in bounded space.
//!
//! The window is one of observed time: it moves on with what was measured, not with a clock. So a machine that was off
//! over the weekend still knows Friday, and a clock that jumps neither empties the window nor fills it.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::resources::{Amounts, Each, Resource};

/// The window moves on in steps of this part of it.
const SLOTS: u64 = 48;

/// One sample stands for no longer than this, however long the measurer slept.
const SAMPLE_MAX_MS: u64 = 60_000;

/// Each power of two is divided into this many buckets: a percentile is too high by 1/32 at most, and never too low.
const SUB_BUCKETS: u64 = 32;
const SUB_BITS: u32 = SUB_BUCKETS.trailing_zeros();

/// The percentile that counts as what the owner uses.
const PERCENT: u64 = 95;

/// How long each amount was in use: buckets of amounts, and milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Histogram(BTreeMap<u32, u64>);

impl Histogram {
    fn add(&mut self, amount: u64, for_ms: u64) {
        let time = self.0.entry(bucket(amount)).or_default();
        *time = time.saturating_add(for_ms);
    }
}

/// The bucket of an amount.
fn bucket(amount: u64) -> u32 {
    if amount < SUB_BUCKETS {
        return amount as u32;
    }
    let shift = amount.ilog2() - SUB_BITS;
    // At least 32, less than 64: the leading bit and the five that follow it.
    let top = (amount >> shift) as u32;
    (shift + 1) * SUB_BUCKETS as u32 + (top - SUB_BUCKETS as u32)
}

/// The largest amount in a bucket.
fn ceiling(bucket: u32) -> u64 {
    let (row, column) = (bucket / SUB_BUCKETS as u32, u64::from(bucket) % SUB_BUCKETS);
    if row == 0 {
        return column;
    }
    // The next bucket's floor, less one; the last bucket's would be one past what can be counted.
    let next = u128::from(SUB_BUCKETS + column + 1) << (row - 1).min(64);
    u64::try_from(next - 1).unwrap_or(u64::MAX)
}

/// A part of the window.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Slot {
    observed_ms: u64,
    use_of: Each<Histogram>,
}

/// What the owner has used within the window.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Oldest first.
    slots: VecDeque<Slot>,
    last: Option<Amounts>,
}

impl Usage {
    /// Takes in what the owner used for the last `elapsed_ms`. `window_ms` is how long it counts.
    pub fn record(&mut self, used: Amounts, elapsed_ms: u64, window_ms: u64) {
        self.last = Some(used);
        let elapsed_ms = elapsed_ms.min(SAMPLE_MAX_MS);
        let slot_ms = (window_ms / SLOTS).max(1);
        if self.slots.back().is_none_or(|slot| slot.observed_ms >= slot_ms) {
            self.slots.push_back(Slot::default());
        }
        if let Some(slot) = self.slots.back_mut() {
            slot.observed_ms = slot.observed_ms.saturating_add(elapsed_ms);
            for resource in Resource::ALL {
                slot.use_of.get_mut(resource).add(*used.get(resource), elapsed_ms);
            }
        }
        // The slot that is being filled comes beside a whole window of full ones.
        while self.slots.len() as u64 > SLOTS + 1 {
            self.slots.pop_front();
        }
        self.forget(window_ms);
    }

    /// Lets go of slots that a window that was made shorter does not reach any more.
    fn forget(&mut self, window_ms: u64) {
        let mut observed = self.observed_ms();
        while let Some(oldest) = self.slots.front() {
            observed = observed.saturating_sub(oldest.observed_ms);
            if observed < window_ms || self.slots.len() == 1 {
                return;
            }
            self.slots.pop_front();
        }
    }

    /// For how long was measured, within the window.
    pub fn observed_ms(&self) -> u64 {
        self.slots
            .iter()
            .fold(0, |sum: u64, slot| sum.saturating_add(slot.observed_ms))
    }

    /// What was measured last.
    pub fn last(&self) -> Option<Amounts> {
        self.last
    }

    /// What the owner used at most for 95 percent of the time; none where nothing was measured.
    pub fn p95(&self) -> Option<Amounts> {
        let mut amounts = Amounts::NONE;
        for resource in Resource::ALL {
            *amounts.get_mut(resource) = self.p95_of(resource)?;
        }
        Some(amounts)
    }

    fn p95_of(&self, resource: Resource) -> Option<u64> {
        let mut all: BTreeMap<u32, u128> = BTreeMap::new();
        for slot in &self.slots {
            for (bucket, time) in &slot.use_of.get(resource).0 {
                *all.entry(*bucket).or_default() += u128::from(*time);
            }
        }
        let total: u128 = all.values().sum();
        let mut below = 0;
        all.iter()
            .find(|(_, time)| {
                below += **time;
                below * 100 >= total * u128::from(PERCENT)
            })
            .map(|(bucket, _)| ceiling(*bucket))
    }
}
