//! The machine's end of a disk.

use std::sync::Arc;

use super::disk::Disk;
use crate::limiter::LimitHandle;
use crate::pending::Pending;
use crate::published::Published;

/// What happened on a disk since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlockCounters {
    /// Bytes read by the guest.
    pub read_bytes: u64,
    /// Bytes written by the guest.
    pub written_bytes: u64,
    /// Requests that were answered with success.
    pub served: u64,
    /// Requests that were answered with an error or as not supported.
    pub failed: u64,
    /// Those of them that the host failed.
    pub host_errors: u64,
    /// Requests that read.
    pub reads: u64,
    /// Requests that write.
    pub writes: u64,
    /// Requests for a flush.
    pub flushes: u64,
    /// How often a limit held a request back.
    pub limited: u64,
    /// How often a request had to wait because as many were under way as the engine takes at once.
    pub full: u64,
}

/// By which the machine changes a disk while the guest uses it. Any thread may use it; the device takes a change over
/// in its next call, for which the machine asks by `Transport::again`. Copies are one handle.
#[derive(Debug, Clone)]
pub struct BlockHandle(Arc<Shared>);

/// What both ends know.
#[derive(Debug)]
pub(super) struct Shared {
    limit: LimitHandle,
    pub(super) counters: Published<BlockCounters>,
    pub(super) change: Pending<Change>,
}

/// What becomes of the disk.
#[derive(Debug)]
pub(super) enum Change {
    /// Another takes its place.
    Other(Disk),
    /// It has so many sectors now.
    Size(u64),
}

impl BlockHandle {
    pub(super) fn new(limit: LimitHandle) -> Self {
        Self(Arc::new(Shared {
            limit,
            counters: Published::default(),
            change: Pending::default(),
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
        self.change(Change::Other(disk));
    }

    /// The disk has become longer or shorter: the guest is told that it has so many sectors of 512 bytes now.
    pub fn resize(&self, sectors: u64) {
        self.change(Change::Size(sectors));
    }

    fn change(&self, change: Change) {
        self.0.change.put(|waiting| match (waiting, change) {
            (Some(Change::Other(mut disk)), Change::Size(sectors)) => {
                disk.resize(sectors);
                Change::Other(disk)
            }
            (_, change) => change,
        });
    }
}
