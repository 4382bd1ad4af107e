//! Virtio over MMIO (virtio 1.2, 4.2), version 2.
//!
//! `registers` is the pure part; [`MmioTransport`] lends queues and memory to the device,
//! and raises interrupts.

use std::os::fd::RawFd;
use std::sync::Arc;

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryBackend};

use self::registers::{Action, INTERRUPT_CONFIG, INTERRUPT_USED, Phase, QueueRegisters, Registers};
use super::device::{Active, DeviceError, Outcome, VirtioDevice};
use crate::GuestMemory;
use crate::bus::{BusDevice, Effect};
use crate::interrupt::Interrupt;

pub mod offset;
mod registers;

/// The feature bits of the ring and of the transport, offered for every device.
pub const TRANSPORT_FEATURES: u64 =
    (1 << VIRTIO_F_VERSION_1) | (1 << VIRTIO_RING_F_EVENT_IDX) | (1 << VIRTIO_RING_F_INDIRECT_DESC);

/// After so many failures of one device the log falls silent (the counter goes on): a guest can break its device
/// as often as it likes.
const LOUD_FAILURES: u64 = 8;

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
}

/// A virtio device behind 4 KiB of MMIO.
///
/// Lives in an `Arc<Mutex<_>>`: on the bus as a [`BusDevice`], and with the event loop, which calls
/// [`handle_host`](Self::handle_host) when [`host_fd`](Self::host_fd) becomes ready.
///
/// Every queue that the device has must be ready and lie inside of memory when the driver sets DRIVER_OK; else the
/// device is not activated and asks for a reset.
pub struct MmioTransport {
    device: Box<dyn VirtioDevice>,
    memory: GuestMemory,
    interrupt: Arc<dyn Interrupt>,
    registers: Registers,
    queues: Vec<Queue>,
    counters: Counters,
}

impl MmioTransport {
    /// The length of the register window.
    pub const LEN: u64 = 0x1000;

    /// Puts `device` behind a transport.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: GuestMemory,
        interrupt: Arc<dyn Interrupt>,
    ) -> Result<Self, TransportError> {
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
        let registers = Registers::new(device_type, device.features() | TRANSPORT_FEATURES, sizes);
        Ok(Self {
            device,
            memory,
            interrupt,
            registers,
            queues,
            counters: Counters::default(),
        })
    }

    /// The descriptor whose readiness the event loop waits for, edge-triggered.
    pub fn host_fd(&self) -> Option<RawFd> {
        self.device.host_fd()
    }

    /// `host_fd` became ready. Not to be called while the machine is paused.
    pub fn handle_host(&mut self) {
        if self.registers.phase() == Phase::Running {
            self.call(|device, active| device.handle_host(active));
        }
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Lends the queues to the device and tells the driver what came of it.
    fn call(
        &mut self,
        work: impl FnOnce(&mut dyn VirtioDevice, &mut Active<'_>) -> Result<Outcome, DeviceError>,
    ) {
        let mut active = Active {
            memory: &self.memory,
            queues: &mut self.queues,
            features: self.registers.features(),
        };
        match work(&mut *self.device, &mut active) {
            Ok(outcome) => {
                let mut bits = 0;
                if outcome.interrupt {
                    bits |= INTERRUPT_USED;
                }
                if outcome.config_changed {
                    self.registers.config_changed();
                    bits |= INTERRUPT_CONFIG;
                }
                self.raise(bits);
            }
            Err(error) => self.fail(&error),
        }
    }

    fn raise(&mut self, bits: u32) {
        if bits == 0 {
            return;
        }
        self.registers.raise(bits);
        self.counters.interrupts = self.counters.interrupts.wrapping_add(1);
        if let Err(error) = self.interrupt.trigger() {
            self.counters.lost_interrupts = self.counters.lost_interrupts.wrapping_add(1);
            log::debug!("{}: interrupt: {error}", self.name());
        }
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
            self.raise(INTERRUPT_CONFIG);
        }
    }

    fn activate(&mut self) {
        let event_idx = self.registers.features() & (1 << VIRTIO_RING_F_EVENT_IDX) != 0;
        for (index, (queue, registers)) in self.queues.iter_mut().zip(self.registers.queues()).enumerate() {
            if let Err(error) = set_up(queue, registers, event_idx, &self.memory) {
                let error = QueueSetUp { index, error };
                return self.fail(&error);
            }
        }
        self.call(|device, active| {
            let first = device.activate(active)?;
            let second = device.handle_host(active)?;
            Ok(Outcome {
                interrupt: first.interrupt || second.interrupt,
                config_changed: first.config_changed || second.config_changed,
            })
        });
    }

    fn reset(&mut self) {
        self.device.reset();
        self.registers.reset();
        for queue in &mut self.queues {
            queue.reset();
        }
    }

    fn ignore(&mut self, what: &str, register: u64, len: usize) {
        self.counters.ignored = self.counters.ignored.wrapping_add(1);
        log::debug!("{}: {what} of {len} bytes at {register:#x} ignored", self.name());
    }

    fn name(&self) -> DeviceName {
        DeviceName(self.device.device_type())
    }
}

impl BusDevice for MmioTransport {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(config) = offset.checked_sub(offset::CONFIG) {
            if config_access(config, data.len()) {
                self.device.read_config(config, data);
                return;
            }
        } else if let Ok(register) = <&mut [u8; 4]>::try_from(&mut *data)
            && offset.is_multiple_of(4)
        {
            *register = self.registers.read(offset).to_le_bytes();
            return;
        }
        self.ignore("read", offset, data.len());
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        let action = if let Some(config) = offset.checked_sub(offset::CONFIG) {
            if config_access(config, data.len()) && self.registers.config_writable() {
                self.device.write_config(config, data);
                Action::None
            } else {
                Action::Ignored
            }
        } else {
            match <[u8; 4]>::try_from(data) {
                Ok(value) => self.registers.write(offset, u32::from_le_bytes(value)),
                Err(_) => Action::Ignored,
            }
        };
        match action {
            Action::None => {}
            Action::Ignored => self.ignore("write", offset, data.len()),
            Action::Reset => self.reset(),
            Action::Activate => self.activate(),
            Action::Notify(index) => {
                self.counters.notifications = self.counters.notifications.wrapping_add(1);
                self.call(|device, active| device.handle_queue(index, active));
            }
            Action::StopQueue(index) => {
                if let Some(queue) = self.queues.get_mut(usize::from(index)) {
                    queue.set_ready(false);
                }
            }
        }
        Effect::None
    }
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
            other => write!(formatter, "virtio device type {other}"),
        }
    }
}

#[cfg(test)]
mod tests;
