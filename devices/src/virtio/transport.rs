//! What all transports do: lend queues and memory to the device, and bring out what is to be told to the driver.
//!
//! `Core` has the device and its `Registers`; a transport in front of it (`mmio`, `pci`) gives the registers their places
//! and brings the driver what was `Raised`. [`Transport`] is how the machine sees them all.

use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryBackend};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::device::{Active, DeviceError, Outcome, Share, VirtioDevice};
use super::registers::{Action, INTERRUPT_CONFIG, INTERRUPT_USED, Phase, QueueRegisters, Registers};
use crate::GuestMemory;
use crate::bus::BusDevice;

/// The feature bits of the ring and of the transport, offered for every device.
pub const TRANSPORT_FEATURES: u64 =
    (1 << VIRTIO_F_VERSION_1) | (1 << VIRTIO_RING_F_EVENT_IDX) | (1 << VIRTIO_RING_F_INDIRECT_DESC);

/// After so many failures of one device the log falls silent (the counter goes on): a guest can break its device
/// as often as it likes.
const LOUD_FAILURES: u64 = 8;

/// After so long a wait for the host the log says so.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why a device cannot be put behind a transport.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The device names a queue size that no queue can have.
    #[error("virtio device type {device_type}: queue {queue} of size {size}: {source}")]
    QueueSize {
        /// The device's type.
        device_type: u32,
        /// The queue's index.
        queue: usize,
        /// The size that was asked for.
        size: u16,
        /// What is wrong with it.
        source: virtio_queue::Error,
    },
    /// The event that asks for another call cannot be made.
    #[error("virtio device type {device_type}: make an event: {source}")]
    Event {
        /// The device's type.
        device_type: u32,
        /// Why not.
        source: std::io::Error,
    },
}

/// What a call of the device was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// The driver is ready.
    Activate,
    /// The requests of this queue.
    Queue(u16),
    /// The host's side.
    Host,
}

/// What happened on a transport since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Queue notifications that reached the device.
    pub notifications: u64,
    /// Interrupts that were raised.
    pub interrupts: u64,
    /// Interrupts that the machine failed to deliver.
    pub lost_interrupts: u64,
    /// How often the device set DEVICE_NEEDS_RESET.
    pub needs_reset: u64,
    /// Accesses that the driver should not have made: wrong width, wrong state, no such register.
    pub ignored: u64,
    /// Calls of the device that ended with work left, which another call took up.
    pub cut_short: u64,
}

/// What the driver is to be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Raised {
    /// The queues that have new answers, a bit each; all from the 64th on share the last bit.
    pub(super) queues: u64,
    /// The configuration space changed, or the device needs a reset.
    pub(super) config: bool,
}

impl Raised {
    /// Whether there is nothing.
    pub(super) fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

/// A device behind a transport, as the machine sees it.
///
/// Lives in an `Arc<Mutex<_>>`: on a bus, and with the event loop, which calls [`handle_host`](Self::handle_host) when one of
/// [`host_fds`](Self::host_fds) becomes ready.
///
/// The vCPUs of a hostile guest can hold the lock nearly all the time (each call of the device for as long as its
/// [`Share`]), so that a thread which must not wait for a guest takes it with `try_lock`, and where that fails writes
/// to [`again`](Self::again) and comes back.
///
/// Every queue that the device needs must be ready and lie inside of memory when the driver sets DRIVER_OK; else the
/// device is not activated and asks for a reset.
pub trait Transport: BusDevice {
    /// The descriptors whose readiness the event loop waits for, edge-triggered: the device's own, and the one that
    /// says that there is work left.
    fn host_fds(&self) -> Vec<RawFd>;

    /// What makes one of [`host_fds`](Self::host_fds) ready, for whoever could not have the lock, or has changed something
    /// by a device's handle.
    fn again(&self) -> std::io::Result<EventFd>;

    /// One of `host_fds` became ready. Not to be called while the machine is paused; once after it was.
    fn handle_host(&mut self);

    /// Before a pause: nothing writes the guest's memory on the device's behalf after this returned true, until
    /// [`handle_host`](Self::handle_host) is called. False if that was not to be had within `patience`.
    fn settle(&mut self, patience: Duration) -> bool;

    /// What happened so far.
    fn counters(&self) -> Counters;
}

/// A device, its queues and its registers.
pub(super) struct Core {
    device: Box<dyn VirtioDevice>,
    memory: GuestMemory,
    pub(super) registers: Registers,
    queues: Vec<Queue>,
    /// What calls left when their share was over, by queue.
    left: Vec<bool>,
    again: EventFd,
    raised: Raised,
    /// Where each queue's answers stood before a call; here only so that no call has to ask for memory.
    before: Vec<u16>,
    counters: Counters,
}

impl Core {
    /// `device` with its registers as they are after a reset.
    pub(super) fn new(device: Box<dyn VirtioDevice>, memory: GuestMemory) -> Result<Self, TransportError> {
        let device_type = device.device_type();
        let sizes = device.queue_max_sizes();
        let mut queues = Vec::with_capacity(sizes.len());
        for (queue, &size) in sizes.iter().enumerate() {
            queues.push(Queue::new(size).map_err(|source| TransportError::QueueSize {
                device_type,
                queue,
                size,
                source,
            })?);
        }
        let features = device.features() | (TRANSPORT_FEATURES & device.ring_features());
        let registers = Registers::new(device_type, features, sizes);
        let again = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)
            .map_err(|source| TransportError::Event { device_type, source })?;
        Ok(Self {
            device,
            memory,
            registers,
            left: vec![false; queues.len()],
            queues,
            again,
            raised: Raised::default(),
            before: Vec::new(),
            counters: Counters::default(),
        })
    }

    /// See [`Transport::host_fds`].
    pub(super) fn host_fds(&self) -> Vec<RawFd> {
        let mut fds = self.device.host_fds();
        fds.push(self.again.as_raw_fd());
        fds
    }

    /// See [`Transport::again`].
    pub(super) fn again(&self) -> std::io::Result<EventFd> {
        self.again.try_clone()
    }

    /// See [`Transport::handle_host`].
    pub(super) fn handle_host(&mut self) {
        // Empty unless it is what became ready.
        let _ = self.again.read();
        if self.registers.phase() != Phase::Running {
            return;
        }
        for index in 0..self.left.len() {
            if self.left.get_mut(index).is_some_and(std::mem::take)
                && let Ok(index) = u16::try_from(index)
            {
                self.call(Work::Queue(index));
            }
        }
        self.call(Work::Host);
    }

    /// See [`Transport::settle`].
    pub(super) fn settle(&mut self, patience: Duration) -> bool {
        self.device.settle(patience)
    }

    /// See [`Transport::counters`].
    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    /// The kind of device (virtio 1.2, 5).
    pub(super) fn device_type(&self) -> u32 {
        self.device.device_type()
    }

    /// What the driver is to be told since this was asked last. Where telling it fails, [`lost`](Self::lost) wants to know.
    pub(super) fn take_raised(&mut self) -> Raised {
        std::mem::take(&mut self.raised)
    }

    /// The driver could not be told.
    pub(super) fn lost(&mut self, error: &std::io::Error) {
        self.counters.lost_interrupts = self.counters.lost_interrupts.wrapping_add(1);
        log::debug!("{}: interrupt: {error}", self.name());
    }

    /// The driver reads the configuration space; false where no field can be so read. `data` arrives zeroed.
    pub(super) fn read_config(&self, offset: u64, data: &mut [u8]) -> bool {
        let fits = config_access(offset, data.len());
        if fits {
            self.device.read_config(offset, data);
        }
        fits
    }

    /// The driver writes the configuration space.
    pub(super) fn write_config(&mut self, offset: u64, data: &[u8]) -> Action {
        if config_access(offset, data.len()) && self.registers.config_writable() {
            self.device.write_config(offset, data);
            Action::None
        } else {
            Action::Ignored
        }
    }

    /// Does what came of the driver's write of `len` bytes at `register`.
    pub(super) fn act(&mut self, action: Action, register: u64, len: usize) {
        match action {
            Action::None => {}
            Action::Ignored => self.ignore("write", register, len),
            Action::Reset => self.reset(),
            Action::Activate => self.activate(),
            Action::Notify(index) => {
                self.counters.notifications = self.counters.notifications.wrapping_add(1);
                self.call(Work::Queue(index));
            }
            Action::StopQueue(index) => {
                // What the driver does with the queue's memory from now on is its own business.
                while !self.device.settle(PATIENCE) {
                    log::debug!("{}: waiting for the host, to stop queue {index}", self.name());
                }
                if let Some(queue) = self.queues.get_mut(usize::from(index)) {
                    queue.set_ready(false);
                }
            }
        }
    }

    /// Lends the queues to the device and tells the driver what came of it.
    fn call(&mut self, work: Work) {
        if self.registers.phase() != Phase::Running {
            return;
        }
        self.before.clear();
        self.before.extend(self.queues.iter().map(QueueT::next_used));
        let mut active = Active {
            memory: &self.memory,
            queues: &mut self.queues,
            features: self.registers.features(),
            share: Share::begin(),
        };
        let device = &mut *self.device;
        let result = match work {
            Work::Activate => activate(device, &mut active),
            Work::Queue(index) => device.handle_queue(index, &mut active),
            Work::Host => device.handle_host(&mut active),
        };
        let cut_short = active.share.was_cut_short();
        if cut_short && result.is_ok() {
            self.come_back(work);
        }
        match result {
            Ok(outcome) => {
                if outcome.config_changed {
                    self.registers.config_changed();
                }
                self.raise(Raised {
                    queues: if outcome.interrupt { self.answered() } else { 0 },
                    config: outcome.config_changed,
                });
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Has the event loop take up what the call left.
    fn come_back(&mut self, work: Work) {
        self.counters.cut_short = self.counters.cut_short.wrapping_add(1);
        if let Work::Queue(index) = work
            && let Some(left) = self.left.get_mut(usize::from(index))
        {
            *left = true;
        }
        if let Err(error) = self.again.write(1) {
            // Only if it was written 2^64 times before.
            log::debug!(
                "{}: tell the event loop of work that is left: {error}",
                self.name()
            );
        }
    }

    /// The queues on which there are answers that were not there before the call; all that are ready, where it is the host that
    /// answers, out of sight.
    fn answered(&self) -> u64 {
        let bits = |wanted: &dyn Fn(&Queue, u16) -> bool| {
            let queues = self.queues.iter().zip(&self.before).enumerate();
            queues
                .filter(|(_, (queue, before))| wanted(queue, **before))
                .fold(0, |bits, (index, _)| bits | 1 << index.min(63))
        };
        match bits(&|queue, before| queue.next_used() != before) {
            0 => bits(&|queue, _| queue.ready()),
            moved => moved,
        }
    }

    fn raise(&mut self, raised: Raised) {
        if raised.is_nothing() {
            return;
        }
        let mut bits = 0;
        if raised.queues != 0 {
            bits |= INTERRUPT_USED;
        }
        if raised.config {
            bits |= INTERRUPT_CONFIG;
        }
        self.registers.raise(bits);
        self.counters.interrupts = self.counters.interrupts.wrapping_add(1);
        self.raised.queues |= raised.queues;
        self.raised.config |= raised.config;
    }

    /// The device cannot go on: it says so to the driver and does nothing until it is reset.
    fn fail(&mut self, error: &dyn std::error::Error) {
        self.counters.needs_reset = self.counters.needs_reset.wrapping_add(1);
        let name = self.name();
        if self.counters.needs_reset <= LOUD_FAILURES {
            log::warn!("{name} needs a reset by its driver: {error}");
        } else {
            log::debug!("{name} needs a reset by its driver: {error}");
        }
        if self.registers.set_needs_reset() {
            self.raise(Raised {
                config: true,
                ..Raised::default()
            });
        }
    }

    fn activate(&mut self) {
        let event_idx = self.registers.features() & (1 << VIRTIO_RING_F_EVENT_IDX) != 0;
        let needed = self.device.queues_needed(self.registers.features());
        let queues = self.queues.iter_mut().zip(self.registers.queues());
        for (index, (queue, registers)) in queues.take(needed).enumerate() {
            if let Err(error) = set_up(queue, registers, event_idx, &self.memory) {
                let error = QueueSetUp { index, error };
                return self.fail(&error);
            }
        }
        self.call(Work::Activate);
    }

    fn reset(&mut self) {
        self.device.reset();
        self.registers.reset();
        self.raised = Raised::default();
        self.left.fill(false);
        for queue in &mut self.queues {
            queue.reset();
        }
    }

    /// The driver did what it should not have done.
    pub(super) fn ignore(&mut self, what: &str, register: u64, len: usize) {
        self.counters.ignored = self.counters.ignored.wrapping_add(1);
        log::debug!("{}: {what} of {len} bytes at {register:#x} ignored", self.name());
    }

    fn name(&self) -> DeviceName {
        DeviceName(self.device.device_type())
    }
}

/// The driver is ready, and so may the host's side be.
fn activate(device: &mut dyn VirtioDevice, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
    let first = device.activate(active)?;
    let second = device.handle_host(active)?;
    Ok(Outcome {
        interrupt: first.interrupt || second.interrupt,
        config_changed: first.config_changed || second.config_changed,
    })
}

/// The configuration space is read and written by its fields' widths (4.2.2.2), each at its natural alignment.
fn config_access(offset: u64, len: usize) -> bool {
    matches!(len, 1 | 2 | 4 | 8) && offset.is_multiple_of(len as u64)
}

/// Takes over what the driver wrote about a queue, if it holds.
fn set_up(
    queue: &mut Queue,
    registers: &QueueRegisters,
    event_idx: bool,
    memory: &GuestMemory,
) -> Result<(), virtio_queue::Error> {
    if !registers.ready {
        return Err(virtio_queue::Error::QueueNotReady);
    }
    let size = u16::try_from(registers.size).map_err(|_| virtio_queue::Error::InvalidSize)?;
    queue.try_set_size(size)?;
    queue.try_set_desc_table_address(GuestAddress(registers.descriptors))?;
    queue.try_set_avail_ring_address(GuestAddress(registers.available))?;
    queue.try_set_used_ring_address(GuestAddress(registers.used))?;
    // The sizes of 2.7: flags, index and event index are 2 bytes each.
    let size = usize::from(size);
    for (address, entry, meta) in [
        (registers.descriptors, 16, 0),
        (registers.available, 2, 6),
        (registers.used, 8, 6),
    ] {
        let len = size.saturating_mul(entry).saturating_add(meta);
        if !memory.check_range(GuestAddress(address), len) {
            return Err(virtio_queue::Error::FindMemoryRegion);
        }
    }
    queue.set_event_idx(event_idx);
    queue.set_ready(true);
    Ok(())
}

/// A queue that the driver set up wrongly.
#[derive(Debug, thiserror::Error)]
#[error("queue {index} is not set up rightly: {error}")]
struct QueueSetUp {
    index: usize,
    error: virtio_queue::Error,
}

/// A device's name in messages.
struct DeviceName(u32);

impl std::fmt::Display for DeviceName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            1 => formatter.write_str("virtio-net"),
            2 => formatter.write_str("virtio-blk"),
            4 => formatter.write_str("virtio-rng"),
            5 => formatter.write_str("virtio-balloon"),
            19 => formatter.write_str("virtio-vsock"),
            24 => formatter.write_str("virtio-mem"),
            27 => formatter.write_str("virtio-pmem"),
            other => write!(formatter, "virtio device type {other}"),
        }
    }
}
