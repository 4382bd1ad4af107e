//! Virtio over MMIO (virtio 1.2, 4.2), version 2.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use vmm_sys_util::eventfd::EventFd;

use super::device::VirtioDevice;
use super::registers::Action;
use super::transport::{Core, Counters, Transport, TransportError};
use crate::GuestMemory;
use crate::bus::{BusDevice, Effect};
use crate::interrupt::Interrupt;

pub use super::registers::offset;

/// A virtio device behind 4 KiB of MMIO.
pub struct MmioTransport {
    core: Core,
    interrupt: Arc<dyn Interrupt>,
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
        let core = Core::new(device, memory)?;
        Ok(Self { core, interrupt })
    }

    /// One line for everything.
    fn tell(&mut self) {
        if !self.core.take_raised().is_nothing()
            && let Err(error) = self.interrupt.trigger()
        {
            self.core.lost(&error);
        }
    }
}

impl Transport for MmioTransport {
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

impl BusDevice for MmioTransport {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(config) = offset.checked_sub(offset::CONFIG) {
            if self.core.read_config(config, data) {
                return;
            }
        } else if let Ok(register) = <&mut [u8; 4]>::try_from(&mut *data)
            && offset.is_multiple_of(4)
        {
            *register = self.core.registers.read(offset).to_le_bytes();
            return;
        }
        self.core.ignore("read", offset, data.len());
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        let action = if let Some(config) = offset.checked_sub(offset::CONFIG) {
            self.core.write_config(config, data)
        } else {
            match <[u8; 4]>::try_from(data) {
                Ok(value) => self.core.registers.write(offset, u32::from_le_bytes(value)),
                Err(_) => Action::Ignored,
            }
        };
        self.core.act(action, offset, data.len());
        self.tell();
        Effect::None
    }
}

#[cfg(test)]
mod tests;
