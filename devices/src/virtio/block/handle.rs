//! The machine's end of a disk.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::BlockCounters;
use super::disk::Disk;
use crate::limiter::LimitHandle;
use crate::published::Published;

/// By which the machine changes a disk while the guest uses it. Any thread may use it; the device takes a change over
/// in its next call, for which the machine asks by `MmioTransport::again`. Copies are one handle.
#[derive(Debug, Clone)]
pub struct BlockHandle(Arc<Shared>);

/// What both ends know.
#[derive(Debug)]
pub(super) struct Shared {
    limit: LimitHandle,
    pub(super) counters: Published<BlockCounters>,
    /// So that a device without changes takes no lock.
    waiting: AtomicBool,
    disk: Mutex<Option<Disk>>,
}

impl BlockHandle {
    pub(super) fn new(limit: LimitHandle) -> Self {
        Self(Arc::new(Shared {
            limit,
            counters: Published::default(),
            waiting: AtomicBool::new(false),
            disk: Mutex::new(None),
        }))
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0
    }

    /// Its limit.
    pub fn limit(&self) -> &LimitHandle {
        &self.0.limit
    }

    /// What happened, as of the device's last call.
    pub fn counters(&self) -> BlockCounters {
        self.0.counters.get()
    }

    /// Gives the guest another disk in the place of this one, opened with the same settings; the guest is told that its
    /// size has changed. Requests that wait are served from the new one.
    pub fn replace(&self, disk: Disk) {
        let old = self.0.lock().replace(disk);
        self.0.waiting.store(true, Ordering::Release);
        // One that the device never took over.
        drop(old);
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Disk>> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take_disk(&self) -> Option<Disk> {
        if !self.waiting.load(Ordering::Acquire) {
            return None;
        }
        let mut disk = self.lock();
        self.waiting.store(false, Ordering::Relaxed);
        disk.take()
    }
}
