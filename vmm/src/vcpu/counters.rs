//! What a vCPU left the guest for.

use std::sync::atomic::{AtomicU64, Ordering};

/// Exits of one vCPU. Written by its thread alone, read by any.
#[derive(Debug, Default)]
pub struct ExitCounters {
    /// Reads of ports.
    pub io_in: Counter,
    /// Writes of ports.
    pub io_out: Counter,
    /// Reads of registers in memory.
    pub mmio_read: Counter,
    /// Writes of registers in memory.
    pub mmio_write: Counter,
    /// Ends that nobody wished for.
    pub failures: Counter,
}

/// A number that one thread counts up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more. As there is one writer, no locked instruction is needed.
    pub fn count(&self) {
        self.0
            .store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
