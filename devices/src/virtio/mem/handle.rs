//! The machine's end of a memory device.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::published::Published;

/// Requests of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// How many were made.
    pub requests: u64,
    /// How many of them were not carried out.
    pub failed: u64,
    /// How many bytes the others moved.
    pub bytes: u64,
}

impl Moved {
    /// One request more, that moved this many bytes; none, where it was not carried out or there was nothing to do.
    pub(super) fn count(&mut self, bytes: u64) {
        self.requests = self.requests.wrapping_add(1);
        self.failed = self.failed.wrapping_add(u64::from(bytes == 0));
        self.bytes = self.bytes.wrapping_add(bytes);
    }
}

/// What happened since the device was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemCounters {
    /// Memory that the guest took.
    pub plugged: Moved,
    /// Memory that it gave back.
    pub unplugged: Moved,
    /// Requests that are none, or about blocks that are none.
    pub invalid: u64,
    /// What the host could not take back.
    pub host_errors: u64,
}

/// By which the machine says how much of a region the guest should have. Any thread may use it; the device learns of it on
/// the event loop's. Copies are one handle.
#[derive(Debug, Clone)]
pub struct MemHandle(Arc<Shared>);

/// What both ends know.
#[derive(Debug)]
pub(super) struct Shared {
    /// In bytes.
    pub(super) requested: AtomicU64,
    /// In bytes.
    pub(super) plugged: AtomicU64,
    pub(super) counters: Published<MemCounters>,
    /// Readable when `requested` has changed. It is watched edge-triggered, and never read.
    pub(super) wake: EventFd,
}

impl MemHandle {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Shared {
            requested: AtomicU64::new(0),
            plugged: AtomicU64::new(0),
            counters: Published::default(),
            wake: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        })))
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0
    }

    /// How many bytes the guest should have.
    pub fn requested(&self) -> u64 {
        self.0.requested.load(Ordering::Relaxed)
    }

    /// Says how many bytes the guest should have, a multiple of the block size; it is told at once, and follows as far as
    /// it can.
    pub fn request(&self, bytes: u64) -> io::Result<()> {
        self.0.requested.store(bytes, Ordering::Release);
        self.0.wake.write(1)
    }

    /// How many bytes it has.
    pub fn plugged(&self) -> u64 {
        self.0.plugged.load(Ordering::Acquire)
    }

    /// What happened, as of the last call of the device.
    pub fn counters(&self) -> MemCounters {
        self.0.counters.get()
    }
}
