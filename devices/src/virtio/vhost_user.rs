//! A disk that another process serves (vhost-user-block): the backend has the queue and all of the guest's memory, and
//! works without this process.
//!
//! # What a backend is trusted with
//! The guest's memory, all of it. With this process it can do nothing but answer wrongly or not at all: answers are
//! checked, and waited for for 5 seconds, and the part of a sixth; then, and where it goes away, the device asks for a reset that it
//! does not recover from, and the machine lives on. Only where it is to stop it may take a minute, as it is to end first what
//! it is at: until then there is no pause. Addresses that it is told are the guest's, not this process's. Descriptors
//! that it shares with this process it can make block: so the one by which it calls is never read (each write to it is
//! an edge to the event loop), and the one by which it is called is written by vCPUs alone, which a signal fetches back,
//! and is a new one for each start of the ring.
//!
//! The protocol is spoken here rather than by the crate `vhost` (0.18), whose waits for an answer go on through every
//! timeout of the socket, so that a backend that does not answer would hold the machine for ever.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX,
    VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use virtio_queue::QueueT;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use self::link::{Link, LinkError};
use self::wire::{Request, numbers32, numbers64};
use super::block::Cache;
use super::device::{Active, DeviceError, Outcome, VirtioDevice};

mod handle;
mod link;
#[cfg(test)]
mod tests;
mod wire;

pub use handle::{VhostUserCounters, VhostUserHandle};

/// What a backend has for all that one call asks of it. The waits look at the time once a second.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a backend has to end what it is at.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

const QUEUE_SIZES: [u16; 1] = [256];

/// What is passed on to the driver if the backend offers it.
const FEATURES: u64 = (1 << VIRTIO_BLK_F_SIZE_MAX)
    | (1 << VIRTIO_BLK_F_SEG_MAX)
    | (1 << VIRTIO_BLK_F_RO)
    | (1 << VIRTIO_BLK_F_BLK_SIZE)
    | (1 << VIRTIO_BLK_F_TOPOLOGY)
    | (1 << VIRTIO_BLK_F_DISCARD)
    | (1 << VIRTIO_BLK_F_WRITE_ZEROES);

/// The settings of such a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VhostUserConfig {
    /// Its name.
    pub id: String,
    /// The backend's Unix socket.
    pub socket: PathBuf,
    /// Whether a flush is offered; what one does is the backend's.
    pub cache: Cache,
}

/// Why there is no such disk.
#[derive(Debug, thiserror::Error)]
pub enum VhostUserError {
    /// Nobody listens.
    #[error("connect to {socket}: {source}; start the vhost-user-block backend first, and let this process use its socket", socket = socket.display())]
    Connect {
        /// Where.
        socket: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is no backend, or does not work.
    #[error("backend at {socket}: {reason}; give the socket of a vhost-user-block backend", socket = socket.display())]
    Talk {
        /// Where.
        socket: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// It cannot do what is needed.
    #[error("backend at {socket}: it has no {what}; give another, or a newer one", socket = socket.display())]
    Lacks {
        /// Where.
        socket: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// There is no event.
    #[error("make an event for the backend at {socket}: {source}", socket = socket.display())]
    Event {
        /// Of which disk.
        socket: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Where the ring is.
#[derive(Debug)]
enum Ring {
    /// Nobody's.
    Idle,
    /// The backend's, which is called by this.
    Running(EventFd),
    /// The backend's, which was asked to stop then and has not answered.
    Stopping(Instant),
    /// The driver has given it, the backend was told to stop before this entry.
    Held(u16),
    /// There is no backend any more.
    Gone,
}

/// The device.
pub struct VhostUserBlock {
    link: Link,
    /// All that the backend offers.
    offered: u64,
    features: u64,
    config: [u8; wire::CONFIG],
    call: EventFd,
    ring: Ring,
    handle: VhostUserHandle,
}

impl VhostUserBlock {
    /// Connects to the backend.
    pub fn open(config: &VhostUserConfig) -> Result<Self, VhostUserError> {
        let socket = || config.socket.clone();
        let talk = |reason: LinkError| VhostUserError::Talk {
            socket: socket(),
            reason: reason.to_string(),
        };
        let lacks = |what| VhostUserError::Lacks {
            socket: socket(),
            what,
        };
        let mut link = Link::connect(&config.socket).map_err(|source| VhostUserError::Connect {
            socket: socket(),
            source,
        })?;
        link.within(PATIENCE);
        link.tell(Request::SetOwner, &[], &[]).map_err(talk)?;
        let offered = link.ask_number(Request::GetFeatures).map_err(talk)?;
        if offered & (1 << VIRTIO_F_VERSION_1) == 0 {
            return Err(lacks("virtio 1.0"));
        }
        if offered & wire::F_PROTOCOL_FEATURES == 0 {
            return Err(lacks("protocol features"));
        }
        let protocol = link.ask_number(Request::GetProtocolFeatures).map_err(talk)?;
        if protocol & wire::P_CONFIG == 0 {
            return Err(lacks("configuration space to read (protocol feature CONFIG)"));
        }
        let protocol = protocol & (wire::P_CONFIG | wire::P_REPLY_ACK);
        link.tell(Request::SetProtocolFeatures, &numbers64(&[protocol]), &[])
            .map_err(talk)?;
        if protocol & wire::P_REPLY_ACK != 0 {
            link.with_acks();
        }
        let space = read_config(&link).map_err(talk)?;
        let call = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(|errno| {
            VhostUserError::Event {
                socket: socket(),
                source: errno.into(),
            }
        })?;
        let passed_on = match config.cache {
            Cache::Unsafe => FEATURES,
            Cache::Writeback => FEATURES | (1 << VIRTIO_BLK_F_FLUSH),
        };
        Ok(Self {
            link,
            offered,
            features: offered & passed_on,
            config: space,
            call,
            ring: Ring::Idle,
            handle: VhostUserHandle::default(),
        })
    }

    /// The machine's end.
    pub fn handle(&self) -> VhostUserHandle {
        self.handle.clone()
    }

    /// Hands the queue to the backend, which begins at entry `base`.
    fn start(&mut self, active: &Active<'_>, base: u16) -> Result<(), LinkError> {
        // One that has been written to: there may be requests from before a stop.
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let kick = EventFd::from_value_and_flags(1, flags).map_err(|errno| LinkError::Io {
            request: Request::SetVringKick,
            source: errno.into(),
        })?;
        let (table, files) = memory_table(active)?;
        let queue = active.queues.first().ok_or(LinkError::Unasked)?;
        let link = &mut self.link;
        link.within(PATIENCE);
        let features = active.features | wire::F_PROTOCOL_FEATURES;
        link.tell(Request::SetFeatures, &numbers64(&[features]), &[])?;
        link.tell(Request::SetMemTable, &table, &files)?;
        link.tell(
            Request::SetVringNum,
            &numbers32(&[0, u32::from(queue.size())]),
            &[],
        )?;
        link.tell(Request::SetVringBase, &numbers32(&[0, u32::from(base)]), &[])?;
        let addresses = [queue.desc_table(), queue.used_ring(), queue.avail_ring(), 0];
        let mut payload = numbers32(&[0, 0]);
        payload.extend(numbers64(&addresses));
        link.tell(Request::SetVringAddr, &payload, &[])?;
        let first = numbers64(&[0]);
        link.tell(Request::SetVringCall, &first, &[self.call.as_raw_fd()])?;
        link.tell(Request::SetVringKick, &first, &[kick.as_raw_fd()])?;
        link.tell(Request::SetVringEnable, &numbers32(&[0, 1]), &[])?;
        self.ring = Ring::Running(kick);
        Ok(())
    }

    /// Has the backend leave the queue, once it is done with what it took from it. Says whether it did in time; if not, it
    /// is asked for its answer again.
    fn stop(&mut self, patience: Duration) -> Result<bool, LinkError> {
        self.link.within(patience.min(PATIENCE));
        let since = match self.ring {
            Ring::Idle | Ring::Held(_) | Ring::Gone => return Ok(true),
            Ring::Stopping(since) => since,
            Ring::Running(_) => {
                self.link.begin(Request::GetVringBase, &numbers32(&[0, 0]))?;
                let now = Instant::now();
                self.ring = Ring::Stopping(now);
                now
            }
        };
        match self.link.answer(Request::GetVringBase) {
            // The index in the upper half, which the ring alone could go wrong by; the guest alone suffers from it.
            Ok::<[u8; 8], _>([_, _, _, _, low, high, ..]) => {
                self.ring = Ring::Held(u16::from_le_bytes([low, high]));
                Ok(true)
            }
            Err(LinkError::Late(_)) if since.elapsed() < STOP_PATIENCE => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// There is no backend any more.
    fn lose(&mut self, error: &LinkError) -> DeviceError {
        self.ring = Ring::Gone;
        self.link.end();
        DeviceError::Host {
            operation: "the disk's vhost-user backend is given up",
            source: io::Error::other(error.to_string()),
        }
    }

    fn look(&mut self, active: &Active<'_>) -> Result<Outcome, LinkError> {
        if let Ring::Stopping(_) = self.ring
            && !(self.link.has_answer()? && self.stop(PATIENCE)?)
        {
            // It is looked at again when it comes.
            return Ok(Outcome::default());
        }
        if let Ring::Held(base) = self.ring
            && active.queues.first().is_some_and(QueueT::ready)
        {
            self.start(active, base)?;
        }
        self.link.check()?;
        let config_changed = self.handle.refresh_asked();
        if config_changed {
            self.link.within(PATIENCE);
            self.config = read_config(&self.link).inspect_err(|_| {
                self.handle
                    .count(|counters| counters.config_fails = counters.config_fails.wrapping_add(1));
            })?;
        }
        // Whether the backend has called is not looked at: an interrupt for nothing does no harm.
        Ok(Outcome {
            interrupt: true,
            config_changed,
        })
    }
}

impl VirtioDevice for VhostUserBlock {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn ring_features(&self) -> u64 {
        self.offered
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.config.get(offset..));
        for (to, from) in data.iter_mut().zip(rest.unwrap_or_default()) {
            *to = *from;
        }
    }

    fn activate(&mut self, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        let started = match self.ring {
            Ring::Gone => Err(LinkError::Closed),
            Ring::Stopping(_) => Err(LinkError::Late(Request::GetVringBase)),
            Ring::Idle | Ring::Running(_) | Ring::Held(_) => self.start(active, 0),
        };
        started.map_err(|error| {
            self.handle
                .count(|counters| counters.activate_fails = counters.activate_fails.wrapping_add(1));
            self.lose(&error)
        })?;
        Ok(Outcome::default())
    }

    fn handle_queue(&mut self, _index: u16, _active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        if let Ring::Running(kick) = &self.ring
            && let Err(error) = kick.write(1)
        {
            // It is full, so that the backend has been called, or a signal came while the backend had made it block.
            log::debug!("call a vhost-user backend: {error}");
        }
        Ok(Outcome::default())
    }

    fn host_fds(&self) -> Vec<RawFd> {
        vec![self.call.as_raw_fd(), self.link.as_raw_fd()]
    }

    fn handle_host(&mut self, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        self.look(active).map_err(|error| {
            self.handle
                .count(|counters| counters.lost = counters.lost.wrapping_add(1));
            self.lose(&error)
        })
    }

    fn settle(&mut self, patience: Duration) -> bool {
        self.stop(patience).unwrap_or_else(|error| {
            self.handle
                .count(|counters| counters.lost = counters.lost.wrapping_add(1));
            let done = matches!(error, LinkError::Closed);
            log::warn!("{}", self.lose(&error));
            done
        })
    }

    fn reset(&mut self) {
        self.settle(PATIENCE);
        match self.ring {
            Ring::Held(_) => self.ring = Ring::Idle,
            // The driver does not wait, and has its memory back.
            Ring::Stopping(_) => {
                let error = LinkError::Late(Request::GetVringBase);
                log::warn!("{}", self.lose(&error));
            }
            Ring::Idle | Ring::Running(_) | Ring::Gone => {}
        }
    }
}

/// The configuration space, as the backend has it.
fn read_config(link: &Link) -> Result<[u8; wire::CONFIG], LinkError> {
    const WHOLE: usize = wire::CONFIG_HEAD + wire::CONFIG;
    let mut payload = numbers32(&[0, wire::CONFIG as u32, 0]);
    payload.resize(WHOLE, 0);
    let answer: [u8; WHOLE] = link.ask(Request::GetConfig, &payload)?;
    let mut space = [0; wire::CONFIG];
    for (to, from) in space.iter_mut().zip(answer.iter().skip(wire::CONFIG_HEAD)) {
        *to = *from;
    }
    Ok(space)
}

/// All of the guest's memory, as its own addresses, and the files that it is.
fn memory_table(active: &Active<'_>) -> Result<(Vec<u8>, Vec<RawFd>), LinkError> {
    let mut regions = Vec::new();
    let mut files = Vec::new();
    for region in active.memory.iter() {
        let file = region.file_offset().ok_or_else(|| LinkError::Io {
            request: Request::SetMemTable,
            source: io::Error::other("the guest's memory is no file's"),
        })?;
        let start = region.start_addr().0;
        regions.extend([start, region.len(), start, file.start()]);
        files.push(file.file().as_raw_fd());
    }
    let count = u32::try_from(files.len()).unwrap_or(u32::MAX);
    let mut table = numbers32(&[count, 0]);
    table.extend(numbers64(&regions));
    Ok((table, files))
}
