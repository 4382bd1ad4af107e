//! The I/O APIC (82093AA), for edge-triggered pins only.
//!
//! [`Ioapic`] is the plain state: registers in, messages out. [`IoapicDevice`] puts it on the bus and sends its
//! messages, [`IoapicPin`] is the line that a device holds.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::bus::{BusDevice, Effect};
use crate::interrupt::{Interrupt, Msi, MsiSink};

/// The number of pins.
pub const PINS: u8 = 24;

const IOREGSEL: u64 = 0x00;
const IOWIN: u64 = 0x10;

const REGISTER_ID: u8 = 0;
const REGISTER_VERSION: u8 = 1;
const REGISTER_ARBITRATION: u8 = 2;
const REGISTER_REDIRECTION: u8 = 0x10;

/// Version 0x11 is the 82093AA's: no EOI register, which only level-triggered pins would need.
const VERSION: u32 = 0x11;
const ID_MASK: u32 = 0x0f00_0000;

const MASKED: u64 = 1 << 16;
/// Delivery status (12) and remote IRR (14) belong to the device; bits 17 to 48 are reserved. Bits 49 to 55 hold the
/// destination's bits 8 to 14 for guests that know of them.
const WRITABLE: u64 = 0xfffe_0000_0001_afff;

const DELIVERY_EXTINT: u64 = 7;
/// Vectors below are exceptions: no APIC takes them.
const FIRST_VECTOR: u64 = 16;

/// The I/O APIC's state.
///
/// # An edge on a masked pin
/// The 82093AA drops it. Linux masks an edge-triggered pin while it moves the interrupt to another CPU, so that on
/// real hardware an edge in that window is lost; a virtio device would then wait for ever. Here the pin remembers
/// one edge and delivers it when it is unmasked. The price is at most one interrupt for which a driver finds
/// nothing to do, when it first unmasks a pin that was used before; Linux allows for that.
///
/// # Level-triggered pins
/// A guest may write the trigger mode, and reads it back, but every interrupt is an edge: the ACPI tables say so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ioapic {
    select: u8,
    id: u32,
    entries: [u64; PINS as usize],
    /// One bit for each pin that had an edge while it was masked.
    pending: u32,
}

impl Default for Ioapic {
    fn default() -> Self {
        Self::new()
    }
}

impl Ioapic {
    /// The state after power-on: every pin masked.
    pub fn new() -> Self {
        Self {
            select: 0,
            id: 0,
            entries: [MASKED; PINS as usize],
            pending: 0,
        }
    }

    /// An edge on `pin`: the message to send, if there is one now. A masked pin remembers the edge.
    pub fn message(&mut self, pin: u8) -> Option<Msi> {
        let entry = *self.entries.get(usize::from(pin))?;
        if entry & MASKED != 0 {
            self.pending |= 1 << pin;
            return None;
        }
        compose(entry)
    }

    /// Reads the 32-bit register at `offset` of the window.
    pub fn read(&self, offset: u64) -> u32 {
        match offset {
            IOREGSEL => u32::from(self.select),
            IOWIN => match self.select {
                // The arbitration ID follows the ID; there is no APIC bus to arbitrate on.
                REGISTER_ID | REGISTER_ARBITRATION => self.id,
                REGISTER_VERSION => VERSION | (u32::from(PINS).saturating_sub(1) << 16),
                _ => match self.selected_entry() {
                    Some((pin, false)) => self.entry(pin) as u32,
                    Some((pin, true)) => (self.entry(pin) >> 32) as u32,
                    None => 0,
                },
            },
            _ => 0,
        }
    }

    /// Writes the 32-bit register at `offset` of the window. A message is to be sent if this unmasked a pin that
    /// had an edge.
    pub fn write(&mut self, offset: u64, value: u32) -> Option<Msi> {
        match offset {
            // The upper bits of IOREGSEL are reserved.
            IOREGSEL => self.select = value as u8,
            IOWIN if self.select == REGISTER_ID => self.id = value & ID_MASK,
            IOWIN => {
                let (pin, high) = self.selected_entry()?;
                let entry = self.entries.get_mut(usize::from(pin))?;
                let written = if high {
                    (*entry & u64::from(u32::MAX)) | (u64::from(value) << 32)
                } else {
                    (*entry & !u64::from(u32::MAX)) | u64::from(value)
                };
                *entry = written & WRITABLE;
                let bit = 1u32 << pin;
                if *entry & MASKED == 0 && self.pending & bit != 0 {
                    self.pending &= !bit;
                    return compose(*entry);
                }
            }
            _ => {}
        }
        None
    }

    /// The redirection entry that IOREGSEL points at, and whether at its upper half.
    fn selected_entry(&self) -> Option<(u8, bool)> {
        let index = self.select.checked_sub(REGISTER_REDIRECTION)?;
        let pin = index >> 1;
        (pin < PINS).then_some((pin, index & 1 != 0))
    }

    fn entry(&self, pin: u8) -> u64 {
        self.entries.get(usize::from(pin)).copied().unwrap_or(0)
    }
}

/// The message that an unmasked entry stands for; `None` where it names no interrupt that an APIC would take.
fn compose(entry: u64) -> Option<Msi> {
    let vector = entry & 0xff;
    let delivery = (entry >> 8) & 7;
    let logical = (entry >> 11) & 1;
    let destination = entry >> 56;
    let extended = (entry >> 49) & 0x7f;
    // NMI, SMI and INIT carry no vector; fixed and lowest priority must have one; ExtINT asks for a PIC that is not
    // there.
    if delivery == DELIVERY_EXTINT || (delivery <= 1 && vector < FIRST_VECTOR) {
        return None;
    }
    // Lowest priority wants the redirection hint (bit 3), or the local APICs deliver to all.
    let hint = u64::from(delivery == 1);
    Some(Msi {
        address: 0xfee0_0000 | (destination << 12) | (extended << 5) | (hint << 3) | (logical << 2),
        data: (vector | (delivery << 8)) as u32,
    })
}

/// The I/O APIC on the MMIO bus.
///
/// Its lock is the last in the order: a device raises its line with its own lock held, and nothing is locked under
/// this one.
pub struct IoapicDevice {
    state: Ioapic,
    sink: Arc<dyn MsiSink>,
}

impl IoapicDevice {
    /// Where PCs have it.
    pub const BASE: u64 = 0xfec0_0000;
    /// The length of its window.
    pub const LEN: u64 = 0x1000;

    /// An I/O APIC that sends to `sink`.
    pub fn new(sink: Arc<dyn MsiSink>) -> Self {
        Self {
            state: Ioapic::new(),
            sink,
        }
    }

    /// An edge on `pin`.
    fn trigger(&mut self, pin: u8) -> io::Result<()> {
        match self.state.message(pin) {
            Some(msi) => self.sink.signal(msi),
            None => Ok(()),
        }
    }
}

impl BusDevice for IoapicDevice {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        // Linux reads and writes 4 bytes. Others may read less of a register, from its start.
        let value = self.state.read(offset).to_le_bytes();
        for (to, from) in data.iter_mut().zip(value) {
            *to = from;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        let value = match *data {
            [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
            // The select register is 8 bits wide.
            [a, ..] if offset == IOREGSEL => u32::from(a),
            _ => return Effect::None,
        };
        if let Some(msi) = self.state.write(offset, value)
            && let Err(error) = self.sink.signal(msi)
        {
            log::debug!("I/O APIC: a remembered interrupt was not delivered: {error}");
        }
        Effect::None
    }
}

/// One pin of an [`IoapicDevice`], as the interrupt line of a device.
pub struct IoapicPin {
    ioapic: Arc<Mutex<IoapicDevice>>,
    pin: u8,
}

impl IoapicPin {
    /// The line to `pin` (less than [`PINS`]; an edge on any other goes nowhere).
    pub fn new(ioapic: Arc<Mutex<IoapicDevice>>, pin: u8) -> Self {
        Self { ioapic, pin }
    }
}

impl Interrupt for IoapicPin {
    fn trigger(&self) -> io::Result<()> {
        self.ioapic
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .trigger(self.pin)
    }
}

#[cfg(test)]
mod tests;
