//! Who has what: every microVM's claim on the machine, checked before it is given.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::resources::{Amounts, Resource};
use crate::records::VmId;

/// What a microVM needs while it is active, and what it keeps when it rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// While it is active.
    pub active: Amounts,
    /// While it rests: its disk.
    pub resting: Amounts,
}

/// How far a claim has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Given, but no record says so yet: lost where its holder is.
    Reserved,
    /// A record stands for it.
    Committed,
    /// A record stands for it, and it rests.
    Resting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    claim: Claim,
    stage: Stage,
    /// What it held before it was reserved, where it rested then.
    rested: bool,
}

impl Entry {
    fn held(&self) -> Amounts {
        match self.stage {
            Stage::Reserved | Stage::Committed => self.claim.active,
            Stage::Resting => self.claim.resting,
        }
    }
}

/// Why a claim was refused: what lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Each resource that does not suffice, with what was wanted of it and what is free.
    pub lacking: Vec<(Resource, u64, u64)>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<String> = self
            .lacking
            .iter()
            .map(|(resource, wanted, free)| {
                let (wanted, free) = (resource.show(*wanted), resource.show(*free));
                format!("{} (it needs {wanted}, {free} is free)", resource.word())
            })
            .collect();
        write!(f, "too little {}", parts.join(" and "))
    }
}

impl std::error::Error for Refusal {}

/// All claims.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    entries: BTreeMap<VmId, Entry>,
}

impl Ledger {
    /// The claims that records stand for, each with whether it is active.
    pub fn rebuild(records: impl IntoIterator<Item = (VmId, Claim, bool)>) -> Self {
        let entry = |(id, claim, active): (VmId, Claim, bool)| {
            let stage = if active { Stage::Committed } else { Stage::Resting };
            let rested = !active;
            (id, Entry { claim, stage, rested })
        };
        Self {
            entries: records.into_iter().map(entry).collect(),
        }
    }

    /// What all hold together.
    pub fn lent(&self) -> Amounts {
        self.entries
            .values()
            .fold(Amounts::NONE, |sum, entry| sum.plus(entry.held()))
    }

    /// What one holds.
    pub fn held(&self, id: VmId) -> Amounts {
        self.entries.get(&id).map_or(Amounts::NONE, Entry::held)
    }

    /// Gives a microVM what it needs to be active, where all that is lent stays within `limit` then. One that is
    /// active already has it.
    ///
    /// Only what is added is checked: a limit that fell below what is lent refuses whoever wants more of the resource,
    /// and nobody who wants none of it.
    pub fn reserve(&mut self, id: VmId, claim: Claim, limit: Amounts) -> Result<(), Refusal> {
        let before = self.entries.get(&id).copied();
        if before.is_some_and(|entry| entry.stage != Stage::Resting) {
            return Ok(());
        }
        let lent = self.lent();
        let added = claim.active.minus(self.held(id));
        let lacking: Vec<(Resource, u64, u64)> = Resource::ALL
            .into_iter()
            .map(|resource| {
                let free = limit.get(resource).saturating_sub(*lent.get(resource));
                (resource, *added.get(resource), free)
            })
            .filter(|(_, wanted, free)| wanted > free)
            .collect();
        if !lacking.is_empty() {
            return Err(Refusal { lacking });
        }
        let entry = Entry {
            claim,
            stage: Stage::Reserved,
            rested: before.is_some(),
        };
        self.entries.insert(id, entry);
        Ok(())
    }

    /// A record stands for what was reserved from now on.
    pub fn commit(&mut self, id: VmId) {
        if let Some(entry) = self.entries.get_mut(&id)
            && entry.stage == Stage::Reserved
        {
            entry.stage = Stage::Committed;
        }
    }

    /// What was reserved and not committed goes back; a microVM that rested before rests again.
    pub fn cancel(&mut self, id: VmId) {
        let Some(entry) = self
            .entries
            .get_mut(&id)
            .filter(|entry| entry.stage == Stage::Reserved)
        else {
            return;
        };
        if entry.rested {
            entry.stage = Stage::Resting;
        } else {
            self.entries.remove(&id);
        }
    }

    /// A microVM rests: it keeps its disk.
    pub fn rest(&mut self, id: VmId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.stage = Stage::Resting;
        }
    }

    /// A microVM is gone: all goes back.
    pub fn release(&mut self, id: VmId) {
        self.entries.remove(&id);
    }
}
