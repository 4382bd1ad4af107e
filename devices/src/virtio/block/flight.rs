//! Requests that the kernel works on while the device does other things: the engine Async.

use std::fs::File;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use vm_memory::GuestAddress;

use super::disk::Disk;
use super::request::{DATA_MAX, Request};
use crate::GuestMemory;
use crate::ring::{Done, Operation, Ring};
use crate::virtio::chain::{Buffers, Chain};
use crate::virtio::device::DeviceError;

/// After so long a wait for the host the log says so.
const PATIENCE: Duration = Duration::from_secs(1);

/// All requests under way.
#[derive(Debug)]
pub(super) struct Flights {
    ring: Ring<Tag>,
    /// The bytes that they move together.
    bytes: u64,
}

/// By what a request is answered.
#[derive(Debug)]
pub(super) struct Tag {
    pub(super) what: &'static str,
    pub(super) head: u16,
    pub(super) status: GuestAddress,
    /// Bytes that will have been written to the chain.
    pub(super) written: u32,
    bytes: u64,
}

/// What became of a request.
pub(super) enum Begun {
    /// It is under way.
    Under {
        /// The bytes that it moves.
        moved: u64,
    },
    /// There is no room for it now.
    Full,
    /// It is none that the ring serves.
    NotMine,
}

fn failed(operation: &'static str) -> impl FnOnce(io::Error) -> DeviceError {
    move |source| DeviceError::Host { operation, source }
}

impl Flights {
    /// For requests to `file`.
    pub(super) fn new(file: &File) -> io::Result<Self> {
        Ok(Self {
            ring: Ring::new(file)?,
            bytes: 0,
        })
    }

    pub(super) fn activate(&mut self, memory: &GuestMemory) -> Result<(), DeviceError> {
        self.ring
            .set_memory(memory)
            .map_err(failed("give a disk's io_uring the guest's memory"))
    }

    /// Takes another disk over; nothing is under way.
    pub(super) fn change_disk(&mut self, disk: &Disk) -> Result<(), DeviceError> {
        self.ring
            .set_file(disk.file())
            .map_err(failed("give a disk's io_uring another file"))
    }

    pub(super) fn event_fd(&self) -> RawFd {
        self.ring.event_fd()
    }

    /// Begins `request`, whose answer goes to `status` and says that `written` bytes of `chain` were written.
    ///
    /// All that is under way together moves no more bytes than one request may: whoever resets the device waits for all of
    /// it.
    pub(super) fn begin(
        &mut self,
        request: &Request<'_>,
        chain: &Chain,
        status: Buffers<'_>,
        written: u32,
    ) -> Result<Begun, DeviceError> {
        let (what, operation, data) = match request {
            Request::Read { offset, data } => ("read", Operation::Read(*offset), Some(data)),
            Request::Write { offset, data } => ("write", Operation::Write(*offset), Some(data)),
            Request::Flush => ("flush", Operation::Flush, None),
            Request::Id { .. } | Request::Discard { .. } | Request::WriteZeroes { .. } => {
                return Ok(Begun::NotMine);
            }
        };
        let bytes = request.moves();
        if data.is_some() && bytes == 0 {
            return Ok(Begun::NotMine);
        }
        let together = self.bytes.saturating_add(bytes);
        if !self.ring.has_room() || (self.bytes > 0 && together > u64::from(DATA_MAX)) {
            return Ok(Begun::Full);
        }
        let Some((status, _)) = status.pieces().next() else {
            return Err(chain.malformed("a block request has no room for its status"));
        };
        let tag = Tag {
            what,
            head: chain.head(),
            status,
            written,
            bytes,
        };
        self.ring.hush();
        let pieces = data.into_iter().flat_map(|data| data.pieces());
        self.ring
            .begin(operation, pieces, tag)
            .map_err(failed("prepare a request for a disk's io_uring"))?;
        self.bytes = together;
        Ok(Begun::Under { moved: bytes })
    }

    /// The end of a request, if one has ended.
    pub(super) fn next(&mut self) -> Result<Option<Done<Tag>>, DeviceError> {
        let done = self
            .ring
            .next()
            .map_err(failed("take an answer from a disk's io_uring"))?;
        if let Some(done) = &done {
            self.bytes = self.bytes.saturating_sub(done.tag.bytes);
        }
        Ok(done)
    }

    /// Waits until nothing is under way; says whether that is so.
    pub(super) fn settle(&mut self, patience: Duration) -> bool {
        self.ring.wait(patience).unwrap_or_else(|error| {
            log::error!("wait for a disk's io_uring: {error}");
            false
        })
    }

    /// Waits for all that is under way, and forgets it.
    pub(super) fn reset(&mut self) {
        loop {
            match self.ring.wait(PATIENCE) {
                Ok(true) => break,
                Ok(false) => log::debug!("a disk's io_uring: waiting for the host, to reset the device"),
                // With something under way it takes no memory again, and the device stays broken.
                Err(error) => {
                    log::error!("wait for a disk's io_uring: {error}");
                    break;
                }
            }
        }
        while let Ok(Some(_)) = self.next() {}
    }

    /// Whether there are requests that are begun and not answered.
    pub(super) fn is_busy(&self) -> bool {
        self.ring.is_busy()
    }

    /// Hands to the kernel what was begun. Says whether something has ended at once.
    pub(super) fn submit(&mut self) -> Result<bool, DeviceError> {
        self.ring
            .submit()
            .map_err(failed("submit to a disk's io_uring"))?;
        Ok(self.ring.has_ended())
    }

    /// From now on the event loop learns of ends.
    pub(super) fn listen(&mut self) -> Result<(), DeviceError> {
        self.ring.listen().map_err(failed("ring a disk's event"))
    }
}
