//! Which blocks of a region are plugged.

use std::ops::Range;

/// What a run of blocks is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// All are plugged.
    Plugged,
    /// None is.
    Unplugged,
    /// Some are.
    Mixed,
}

/// Blocks of the region, at least one, one behind the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    blocks: Range<usize>,
    start: u64,
    length: u64,
}

impl Run {
    /// Where the guest sees it.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// In bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }
}

/// All blocks of a region.
#[derive(Debug)]
pub(super) struct Blocks {
    start: u64,
    /// The size of one in bytes.
    size: u64,
    /// Whether each is plugged.
    plugged: Vec<bool>,
    /// How many of them are.
    count: u64,
}

impl Blocks {
    /// `count` blocks of `size` bytes from `start` on, none of which is plugged.
    pub(super) fn new(start: u64, size: u64, count: u64) -> Self {
        Self {
            start,
            size,
            plugged: vec![false; usize::try_from(count).unwrap_or(0)],
            count: 0,
        }
    }

    /// The `count` blocks from guest address `address` on; `None` where they are not whole blocks of the region.
    pub(super) fn run(&self, address: u64, count: u16) -> Option<Run> {
        let offset = address.checked_sub(self.start)?;
        if count == 0 || offset.checked_rem(self.size)? != 0 {
            return None;
        }
        let first = usize::try_from(offset.checked_div(self.size)?).ok()?;
        let blocks = first..first.checked_add(usize::from(count))?;
        self.plugged.get(blocks.clone())?;
        Some(Run {
            blocks,
            start: address,
            length: u64::from(count).checked_mul(self.size)?,
        })
    }

    /// What the blocks of `run` are.
    pub(super) fn state(&self, run: &Run) -> State {
        let blocks = self.plugged.get(run.blocks.clone()).unwrap_or_default();
        match (blocks.contains(&true), blocks.contains(&false)) {
            (true, true) => State::Mixed,
            (true, false) => State::Plugged,
            (false, _) => State::Unplugged,
        }
    }

    /// Plugs or unplugs all of `run`.
    pub(super) fn set(&mut self, run: &Run, plugged: bool) {
        for block in self.plugged.get_mut(run.blocks.clone()).unwrap_or_default() {
            match (*block, plugged) {
                (false, true) => self.count = self.count.saturating_add(1),
                (true, false) => self.count = self.count.saturating_sub(1),
                _ => {}
            }
            *block = plugged;
        }
    }

    /// Unplugs all.
    pub(super) fn clear(&mut self) {
        self.plugged.fill(false);
        self.count = 0;
    }

    /// How many bytes are plugged.
    pub(super) fn plugged(&self) -> u64 {
        self.count.saturating_mul(self.size)
    }

    /// Start and length of the region.
    pub(super) fn extent(&self) -> (u64, u64) {
        (self.start, (self.plugged.len() as u64).saturating_mul(self.size))
    }
}
