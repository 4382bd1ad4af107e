//! Virtio over PCI (virtio 1.2, 4.1), modern devices only, with MSI-X only: a guest without it has no interrupts.
//!
//! The one BAR holds, a page or more each: the common configuration, the interrupt status, the device's own configuration,
//! the notifications, and the messages with those that wait.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use vmm_sys_util::eventfd::EventFd;

use super::device::VirtioDevice;
use super::registers::{Action, offset};
use super::transport::{Core, Counters, Raised, Transport, TransportError};
use crate::GuestMemory;
use crate::bus::{BusDevice, Effect};
use crate::interrupt::{Msi, MsiSink};
use crate::pci::{BAR, BAR_LEN, CONFIG_LEN, Class, ConfigSpace, Identity, Msix, Place};

mod capability;
mod common;
mod part;
#[cfg(test)]
mod tests;

use capability::{Capabilities, ConfigAccess};

/// Virtio's (4.1.2).
const VENDOR: u16 = 0x1af4;
/// The device's number is this and its type (4.1.2).
const FIRST_DEVICE: u16 = 0x1040;
/// As of 4.1.2.1, for devices that are no transitional ones.
const REVISION: u8 = 1;
const SUBSYSTEM: u16 = 0x0040;

/// A queue or the configuration without a message (4.1.5.1.2).
const NO_VECTOR: u16 = 0xffff;

/// A virtio device that is a PCI function: its configuration space, and behind [`BAR`] what its BAR holds.
pub struct PciTransport {
    core: Core,
    sink: Arc<dyn MsiSink>,
    config: ConfigSpace,
    capabilities: Capabilities,
    place: Arc<Place>,
    msix: Msix,
    /// The message for a change of the configuration.
    config_vector: u16,
    /// The message for each queue.
    queue_vectors: Vec<u16>,
}

impl PciTransport {
    /// Makes `device` a function whose messages go to `sink`, and whose BAR is to lie at `base`.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: GuestMemory,
        sink: Arc<dyn MsiSink>,
        base: u32,
    ) -> Result<Self, TransportError> {
        let core = Core::new(device, memory)?;
        let queues = core.registers.queues().len();
        let vectors = u16::try_from(queues).unwrap_or(u16::MAX).saturating_add(1);
        let device_type = core.device_type();
        let mut config = ConfigSpace::new(Identity {
            vendor: VENDOR,
            device: FIRST_DEVICE.saturating_add(device_type as u16),
            revision: REVISION,
            class: class(device_type),
            subsystem: SUBSYSTEM,
        });
        config.set_bar(base, BAR_LEN);
        Ok(Self {
            capabilities: Capabilities::add(&mut config, vectors),
            core,
            sink,
            config,
            place: Arc::default(),
            msix: Msix::new(vectors),
            config_vector: NO_VECTOR,
            queue_vectors: vec![NO_VECTOR; queues],
        })
    }

    /// Where its BAR is.
    pub fn place(&self) -> Arc<Place> {
        self.place.clone()
    }

    /// Tells the driver what there is to be told, each message once.
    fn tell(&mut self) {
        let Raised { queues, config } = self.core.take_raised();
        if config {
            self.raise(self.config_vector);
        }
        let mut told = (config, self.config_vector);
        for index in 0..self.queue_vectors.len() {
            if queues & 1 << index.min(63) == 0 {
                continue;
            }
            let vector = self.queue_vectors.get(index).copied().unwrap_or(NO_VECTOR);
            if told != (true, vector) {
                self.raise(vector);
                told = (true, vector);
            }
        }
    }

    fn raise(&mut self, vector: u16) {
        if let Some(message) = self.msix.raise(vector) {
            self.send(message);
        }
    }

    fn send(&mut self, message: Msi) {
        if let Err(error) = self.sink.signal(message) {
            self.core.lost(&error);
        }
    }

    fn write_config(&mut self, at: u64, data: &[u8]) {
        self.config.write(at, data);
        self.place.set(self.config.bar());
        let control = self.config.u16_at(self.capabilities.message_control);
        for message in self.msix.set_control(control) {
            self.send(message);
        }
    }

    fn read_bar(&mut self, at: u32, data: &mut [u8]) {
        let (part, offset) = (at & !part::INSIDE, at & part::INSIDE);
        let known = match part {
            part::COMMON => self.read_common(offset, data),
            // Reading takes it (4.1.4.5).
            part::STATUS if offset == 0 => {
                let status = self.core.registers.take_interrupt_status();
                data.iter_mut().take(1).for_each(|byte| *byte = status as u8);
                true
            }
            part::DEVICE => self.core.read_config(offset.into(), data),
            part::MESSAGES => {
                self.msix.read_table(offset.into(), data);
                true
            }
            part::PENDING => {
                self.msix.read_pending(offset.into(), data);
                true
            }
            _ => false,
        };
        if !known {
            self.core.ignore("read", at.into(), data.len());
        }
    }

    fn write_bar(&mut self, at: u32, data: &[u8]) {
        let (part, offset) = (at & !part::INSIDE, at & part::INSIDE);
        let action = match part {
            part::COMMON => self.write_common(offset, data),
            part::DEVICE => self.core.write_config(offset.into(), data),
            // The address says which queue; the value is the same number (4.1.5.2).
            part::NOTIFY if offset.is_multiple_of(part::NOTIFY_STRIDE) => self
                .core
                .registers
                .write(offset::QUEUE_NOTIFY, offset / part::NOTIFY_STRIDE),
            part::MESSAGES => {
                if let Some(message) = self.msix.write_table(offset.into(), data) {
                    self.send(message);
                }
                Action::None
            }
            _ => Action::Ignored,
        };
        if action == Action::Reset {
            self.config_vector = NO_VECTOR;
            self.queue_vectors.fill(NO_VECTOR);
        }
        self.core.act(action, at.into(), data.len());
        self.tell();
    }
}

impl Transport for PciTransport {
    fn host_fds(&self) -> Vec<RawFd> {
        self.core.host_fds()
    }

    fn again(&self) -> std::io::Result<EventFd> {
        self.core.again()
    }

    fn handle_host(&mut self) {
        self.core.handle_host();
        self.tell();
    }

    fn settle(&mut self, patience: Duration) -> bool {
        self.core.settle(patience)
    }

    fn counters(&self) -> Counters {
        self.core.counters()
    }
}

impl BusDevice for PciTransport {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(at) = offset.checked_sub(BAR) {
            if let Ok(at) = u32::try_from(at) {
                self.read_bar(at, data);
            }
        } else if offset < CONFIG_LEN {
            match self.capabilities.config_access(&self.config, offset, data.len()) {
                Some(ConfigAccess { at, len }) => {
                    let data = data.get_mut(..len).unwrap_or_default();
                    self.read_bar(at, data);
                }
                None => self.config.read(offset, data),
            }
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        if let Some(at) = offset.checked_sub(BAR) {
            if let Ok(at) = u32::try_from(at) {
                self.write_bar(at, data);
            }
        } else if offset < CONFIG_LEN {
            match self.capabilities.config_access(&self.config, offset, data.len()) {
                Some(ConfigAccess { at, len }) => self.write_bar(at, data.get(..len).unwrap_or_default()),
                None => self.write_config(offset, data),
            }
        }
        Effect::None
    }
}

/// What kind of function a device is; drivers go by the device's number.
fn class(device_type: u32) -> Class {
    match device_type {
        // Network: Ethernet.
        1 => Class(0x02, 0x00, 0),
        // Mass storage: other.
        2 => Class(0x01, 0x80, 0),
        // Memory: other.
        24 | 27 => Class(0x05, 0x80, 0),
        // Simple communication: other.
        19 => Class(0x07, 0x80, 0),
        _ => Class(0xff, 0x00, 0),
    }
}
