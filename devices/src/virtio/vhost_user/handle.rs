//! The machine's end of a disk that another process serves.

use std::sync::Arc;

use crate::pending::Pending;
use crate::published::Published;

/// What happened with a backend since it was connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VhostUserCounters {
    /// How often it could not be given the queue.
    pub activate_fails: u64,
    /// How often it did not tell its configuration space.
    pub config_fails: u64,
    /// How often it was found to be gone, or to break the protocol, while it had the queue.
    pub lost: u64,
}

/// By which the machine looks after the disk while the guest uses it. Any thread may use it; the device follows in its
/// next call, for which the machine asks by `MmioTransport::again`. Copies are one handle.
#[derive(Debug, Clone, Default)]
pub struct VhostUserHandle(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    counters: Published<VhostUserCounters>,
    refresh: Pending<()>,
}

impl VhostUserHandle {
    /// What happened, as of the device's last call.
    pub fn counters(&self) -> VhostUserCounters {
        self.0.counters.get()
    }

    /// Has the configuration space read anew, and the guest told.
    pub fn refresh(&self) {
        self.0.refresh.put(|_| ());
    }

    pub(super) fn refresh_asked(&self) -> bool {
        self.0.refresh.take().is_some()
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut VhostUserCounters)) {
        let mut counters = self.0.counters.get();
        change(&mut counters);
        self.0.counters.set(counters);
    }
}
