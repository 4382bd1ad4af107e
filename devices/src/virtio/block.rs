//! The block device (virtio 1.2, 5.2) on a file or a block device of the host.
//!
//! `request` turns a descriptor chain into a checked request, `disk` does the I/O, this module is the device
//! between them. What a limit holds back stays in the queue until the alarm rings, and is then served by the event loop.
//!
//! With the engine Sync requests are served one after the other on the thread that the notification came on. With Async
//! (`flight`) that thread has the kernel begin them; the event loop answers them as they end, in any order. A flush covers
//! the writes that were answered before it was asked for (5.2.6.2), which are in the host's page cache by then: it need
//! not wait for those under way. Discards, zeroes and the serial number are served at once with either engine.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX,
    VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_WRITE_ZEROES,
};
use vm_memory::Bytes;

use self::flight::{Begun, Flights};
use self::handle::{Change, Shared};
use self::request::{DATA_MAX, Limits, QUEUE_SIZE, Request, SECTOR, SEG_MAX, SIZE_MAX, Status};
use super::chain::{Buffers, Chain};
use super::device::{Active, DeviceError, Outcome, VirtioDevice};
use super::limited::{Answer, LimitedQueue};
use crate::GuestMemory;
use crate::ring::Done;

mod config;
mod disk;
mod flight;
mod handle;
mod request;

pub use config::{BlockConfig, BlockError, Cache, Engine};
pub use disk::Disk;
pub use handle::{BlockCounters, BlockHandle};

const DEVICE_TYPE: u32 = 2;
const QUEUE_SIZES: [u16; 1] = [QUEUE_SIZE];

/// After so many errors of one disk the log falls silent; the counter goes on.
const LOUD_ERRORS: u64 = 8;

/// The block device.
#[derive(Debug)]
pub struct Block {
    core: Core,
    queue: LimitedQueue,
    handle: BlockHandle,
    features: u64,
    config_space: [u8; CONFIG_LEN],
}

/// What serves a request.
#[derive(Debug)]
struct Core {
    disk: Disk,
    /// With the engine Async.
    flights: Option<Flights>,
    read_only: bool,
    id: [u8; request::ID_LEN],
    counters: BlockCounters,
}

impl Block {
    /// Opens the disk, and locks it: shared for reading, exclusively for writing, so that no second machine writes
    /// what this one uses.
    pub fn open(config: &BlockConfig) -> Result<Self, BlockError> {
        let disk = Disk::open(config)?;
        if !disk.size().is_multiple_of(SECTOR) {
            log::warn!(
                "disk {}: {} bytes are no whole number of sectors; the guest does not see the last {}",
                disk.path().display(),
                disk.size(),
                disk.size() % SECTOR
            );
        }
        let mut features =
            (1 << VIRTIO_BLK_F_BLK_SIZE) | (1 << VIRTIO_BLK_F_SEG_MAX) | (1 << VIRTIO_BLK_F_SIZE_MAX);
        if config.read_only {
            features |= 1 << VIRTIO_BLK_F_RO;
        } else {
            features |= (1 << VIRTIO_BLK_F_DISCARD) | (1 << VIRTIO_BLK_F_WRITE_ZEROES);
        }
        if config.cache == Cache::Writeback {
            features |= 1 << VIRTIO_BLK_F_FLUSH;
        }
        let mut id = [0; request::ID_LEN];
        for (to, from) in id.iter_mut().zip(config.id.bytes()) {
            *to = from;
        }
        let queue = LimitedQueue::new(&config.limit).map_err(|source| BlockError::Timer {
            path: config.path.clone(),
            source,
        })?;
        let flights = match config.engine {
            Engine::Sync => None,
            Engine::Async => Some(Flights::new(disk.file()).map_err(|source| BlockError::Ring {
                path: config.path.clone(),
                source,
            })?),
        };
        Ok(Self {
            handle: BlockHandle::new(queue.limit()),
            config_space: config_space(disk.sectors()),
            core: Core {
                disk,
                flights,
                read_only: config.read_only,
                id,
                counters: BlockCounters::default(),
            },
            queue,
            features,
        })
    }

    /// The capacity in sectors of 512 bytes.
    pub fn sectors(&self) -> u64 {
        self.core.disk.sectors()
    }

    /// What happened so far.
    pub fn counters(&self) -> BlockCounters {
        self.core.counters
    }

    /// By which the machine changes its limit and its disk.
    pub fn handle(&self) -> BlockHandle {
        self.handle.clone()
    }

    fn shared(&self) -> &Shared {
        self.handle.shared()
    }

    /// Takes another disk over, if there is one; then the driver has to look how large it is.
    fn change_disk(&mut self) -> Result<bool, DeviceError> {
        match self.shared().change.take() {
            None => return Ok(false),
            Some(Change::Other(disk)) => {
                if let Some(flights) = &mut self.core.flights {
                    flights.change_disk(&disk)?;
                }
                self.core.disk = disk;
            }
            Some(Change::Size(sectors)) => self.core.disk.resize(sectors),
        }
        self.config_space = config_space(self.core.disk.sectors());
        Ok(true)
    }

    /// Answers what has ended and serves what waits in the queue, as far as limits and room allow.
    fn serve(&mut self, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        let mut outcome = Outcome::default();
        loop {
            outcome.interrupt |= self.core.answer_ended(active)?;
            if self.shared().change.is_waiting() && self.core.is_under_way() {
                // Another disk comes in when the old one is done; what waits in the queue is for the new one.
                break;
            }
            outcome.config_changed |= self.change_disk()?;
            let Self { core, queue, .. } = self;
            let limits = Limits {
                sectors: core.disk.sectors(),
                data: DATA_MAX,
                read_only: core.read_only,
                features: active.features,
            };
            let served = queue.serve(active, |chain, memory| core.answer(&limits, chain, memory))?;
            outcome.interrupt |= served.interrupt;
            let counters = &mut core.counters;
            counters.limited = counters.limited.wrapping_add(served.limited.into());
            counters.full = counters.full.wrapping_add(served.full.into());
            if !core.submit()? || active.share.is_over() {
                break;
            }
        }
        self.core.listen()?;
        self.shared().counters.set(self.core.counters);
        Ok(outcome)
    }
}

/// The length of the configuration space, up to and with `write_zeroes_may_unmap`.
const CONFIG_LEN: usize = 60;

/// The configuration space (5.2.4), little-endian.
fn config_space(sectors: u64) -> [u8; CONFIG_LEN] {
    let mut space = [0; CONFIG_LEN];
    let mut put = |offset: usize, bytes: &[u8]| {
        for (to, from) in space.iter_mut().skip(offset).zip(bytes) {
            *to = *from;
        }
    };
    put(0, &sectors.to_le_bytes());
    put(8, &SIZE_MAX.to_le_bytes());
    put(12, &SEG_MAX.to_le_bytes());
    put(20, &(SECTOR as u32).to_le_bytes());
    put(34, &1u16.to_le_bytes());
    put(36, &request::MAX_DISCARD_SECTORS.to_le_bytes());
    put(40, &request::MAX_SEGMENTS.to_le_bytes());
    // Discards are aligned to 4 KiB, the block size of nearly every file system.
    put(44, &8u32.to_le_bytes());
    put(48, &request::MAX_ZERO_SECTORS.to_le_bytes());
    put(52, &request::MAX_SEGMENTS.to_le_bytes());
    put(56, &[1]);
    space
}

impl Core {
    /// Serves one request.
    fn answer(
        &mut self,
        limits: &Limits,
        chain: &Chain,
        memory: &GuestMemory,
    ) -> Result<Answer, DeviceError> {
        let writable = chain.writable(memory);
        // The status is the last writable byte; without one the driver cannot be answered.
        let Some((room, status)) = writable
            .len()
            .checked_sub(1)
            .and_then(|last| writable.split_at(last))
        else {
            return Err(chain.malformed("a block request has no room for its status"));
        };
        let request = request::parse(chain.readable(memory), room, limits);
        if let (Ok(request), Some(flights)) = (&request, &mut self.flights) {
            match flights.begin(request, chain, status, writable.len())? {
                Begun::Under { moved } => {
                    self.counters.begun(request);
                    return Ok(Answer::Later { moved });
                }
                Begun::Full => return Ok(Answer::Full),
                Begun::NotMine => {}
            }
        }
        let result = request.and_then(|request| self.run(request));
        let (code, written, moved) = match result {
            Ok(moved) => {
                self.counters.served = self.counters.served.wrapping_add(1);
                (Status::Ok, writable.len(), moved)
            }
            Err(code) => {
                self.counters.failed = self.counters.failed.wrapping_add(1);
                // What is before the status is undefined.
                (code, 1, 0)
            }
        };
        status.write(&[code as u8])?;
        Ok(Answer::Now { written, moved })
    }

    /// Does what the request says; returns how many bytes of data it moved.
    fn run(&mut self, request: Request<'_>) -> Result<u64, Status> {
        let Self {
            disk, id, counters, ..
        } = self;
        counters.begun(&request);
        let moved = request.moves();
        let (what, result) = match request {
            Request::Read { offset, data } => ("read", disk.read(offset, data)),
            Request::Write { offset, data } => ("write", disk.write(offset, data)),
            Request::Flush => ("flush", disk.flush()),
            Request::Id { data } => return write_id(data, id).map(|()| moved),
            Request::Discard { segments } => (
                "discard",
                segments.iter().try_for_each(|range| disk.discard(range)),
            ),
            Request::WriteZeroes { segments } => (
                "write zeroes",
                segments.iter().try_for_each(|range| disk.write_zeroes(range)),
            ),
        };
        result.map(|()| moved).map_err(|error| {
            tell(counters, disk, what, &error);
            Status::IoErr
        })
    }
}

impl Core {
    /// Whether there are requests that are begun and not answered.
    fn is_under_way(&self) -> bool {
        self.flights.as_ref().is_some_and(Flights::is_busy)
    }

    /// Answers the requests that have ended. Says whether the driver wants to be told.
    fn answer_ended(&mut self, active: &mut Active<'_>) -> Result<bool, DeviceError> {
        let Self {
            disk,
            flights: Some(flights),
            counters,
            ..
        } = self
        else {
            return Ok(false);
        };
        LimitedQueue::answer(active, |memory| {
            let Some(Done { tag, result }) = flights.next()? else {
                return Ok(None);
            };
            let (code, written) = match result {
                Ok(()) => {
                    counters.served = counters.served.wrapping_add(1);
                    (Status::Ok, tag.written)
                }
                Err(error) => {
                    tell(counters, disk, tag.what, &error);
                    counters.failed = counters.failed.wrapping_add(1);
                    (Status::IoErr, 1)
                }
            };
            if let Some(memory) = memory {
                memory
                    .write_obj(code as u8, tag.status)
                    .map_err(|error| DeviceError::Host {
                        operation: "write a block request's status",
                        source: io::Error::other(error),
                    })?;
            }
            Ok(Some((tag.head, written)))
        })
    }

    /// Hands to the kernel what was begun. Says whether something has ended at once.
    fn submit(&mut self) -> Result<bool, DeviceError> {
        self.flights.as_mut().map_or(Ok(false), Flights::submit)
    }

    /// From now on the event loop learns of ends.
    fn listen(&mut self) -> Result<(), DeviceError> {
        self.flights.as_mut().map_or(Ok(()), Flights::listen)
    }
}

/// Counts and logs that the host failed a request.
fn tell(counters: &mut BlockCounters, disk: &Disk, what: &str, error: &io::Error) {
    counters.host_errors = counters.host_errors.wrapping_add(1);
    // A full disk would otherwise fill the host's log with each write.
    let level = match counters.host_errors {
        ..=LOUD_ERRORS => log::Level::Warn,
        _ => log::Level::Debug,
    };
    log::log!(level, "disk {}: {what}: {error}", disk.path().display());
}

impl BlockCounters {
    /// Counts a request that the disk is asked for.
    fn begun(&mut self, request: &Request<'_>) {
        let (requests, bytes) = match request {
            Request::Read { .. } => (&mut self.reads, Some(&mut self.read_bytes)),
            Request::Write { .. } => (&mut self.writes, Some(&mut self.written_bytes)),
            Request::Flush => (&mut self.flushes, None),
            Request::Id { .. } | Request::Discard { .. } | Request::WriteZeroes { .. } => return,
        };
        *requests = requests.wrapping_add(1);
        if let Some(bytes) = bytes {
            *bytes = bytes.wrapping_add(request.moves());
        }
    }
}

fn write_id(data: Buffers<'_>, id: &[u8]) -> Result<(), Status> {
    data.write(id).map_err(|_| Status::IoErr)
}

impl VirtioDevice for Block {
    fn device_type(&self) -> u32 {
        DEVICE_TYPE
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (to, from) in data.iter_mut().zip(self.config_space.iter().skip(start)) {
            *to = *from;
        }
    }

    fn activate(&mut self, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        if let Some(flights) = &mut self.core.flights {
            flights.activate(active.memory)?;
        }
        Ok(Outcome::default())
    }

    fn handle_queue(&mut self, _index: u16, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        self.serve(active)
    }

    fn host_fds(&self) -> Vec<RawFd> {
        let ended = self.core.flights.as_ref().map(Flights::event_fd);
        [self.queue.alarm_fd()].into_iter().chain(ended).collect()
    }

    fn handle_host(&mut self, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        if self.queue.is_behind() || self.core.is_under_way() {
            self.serve(active)
        } else {
            Ok(Outcome {
                interrupt: false,
                config_changed: self.change_disk()?,
            })
        }
    }

    fn settle(&mut self, patience: Duration) -> bool {
        match &mut self.core.flights {
            Some(flights) => flights.settle(patience),
            None => true,
        }
    }

    fn reset(&mut self) {
        self.queue.reset();
        if let Some(flights) = &mut self.core.flights {
            flights.reset();
        }
    }
}

#[cfg(test)]
mod tests;
