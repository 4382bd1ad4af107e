//! The serial console: a 16550 UART (COM1 at port 0x3f8, IRQ 4).

use std::io::{self, Write};
use std::sync::Arc;

use vm_superio::Trigger;
use vm_superio::serial::NoEvents;
use vmm_sys_util::eventfd::EventFd;

use crate::bus::{BusDevice, Effect};
use crate::interrupt::Interrupt;
use crate::published::Published;

mod bounded;
mod limited;
mod output;

pub use bounded::BoundedFile;
pub use limited::LimitedWriter;
pub use output::PatientWriter;

/// The interrupt line, in the form that the UART's model wants.
struct Line(Arc<dyn Interrupt>);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.trigger()
    }
}

/// The length of the input FIFO.
const FIFO: usize = 64;

/// What happened to the guest's output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SerialCounters {
    /// Bytes that the output did not take.
    pub lost: u64,
    /// Bytes that were too much for a limit ([`LimitedWriter`]).
    pub limited: u64,
}

/// A 16550 UART.
///
/// # Output
/// Each byte is one `write` to the output, on the vCPU's thread and with the device's lock held. A byte that the
/// output does not take (an error, a closed pipe, `WouldBlock`) is lost and counted, and the guest goes on.
/// An output that blocks makes the vCPU wait, and whoever wants the lock; so what may block for long, a pipe above
/// all, is to be wrapped in a [`PatientWriter`], which waits a moment and then loses bytes instead; and a file that nobody
/// empties in a [`BoundedFile`]. A [`LimitedWriter`] bounds what goes there in a time.
///
/// # Input
/// Goes through a FIFO of 64 bytes: [`enqueue`](Self::enqueue) takes what fits; the rest is the caller's to keep until the
/// guest has read, of which [`set_room_event`](Self::set_room_event) tells.
pub struct Serial {
    uart: vm_superio::Serial<Line, NoEvents, Box<dyn Write + Send>>,
    counters: SerialCounters,
    published: Published<SerialCounters>,
    room: Option<EventFd>,
    /// The FIFO was filled to the brim and not empty since.
    brimful: bool,
}

impl Serial {
    /// The first port of COM1.
    pub const COM1: u64 = 0x3f8;
    /// The number of ports.
    pub const LEN: u64 = 8;
    /// The interrupt of COM1.
    pub const COM1_IRQ: u8 = 4;

    /// A UART that writes what the guest sends to `output`.
    pub fn new(interrupt: Arc<dyn Interrupt>, output: Box<dyn Write + Send>) -> Self {
        Self {
            uart: vm_superio::Serial::new(Line(interrupt), output),
            counters: SerialCounters::default(),
            published: Published::default(),
            room: None,
            brimful: false,
        }
    }

    /// `event` is written to when the guest has read all input after the FIFO was full: there is room again. Until
    /// then the event loop need not look at its input.
    pub fn set_room_event(&mut self, event: EventFd) {
        self.room = Some(event);
    }

    /// Input for the guest. Takes as many bytes as the FIFO has room for and returns their number: 0 when it is
    /// full, or while the guest has the UART in loop-back mode.
    pub fn enqueue(&mut self, input: &[u8]) -> usize {
        let room = self.capacity().min(input.len());
        let input = input.get(..room).unwrap_or_default();
        if input.is_empty() {
            return 0;
        }
        let taken = match self.uart.enqueue_raw_bytes(input) {
            Ok(taken) => taken,
            Err(vm_superio::serial::Error::Trigger(error)) => {
                // The bytes are in the FIFO; only the interrupt failed.
                log::debug!("serial console: interrupt: {error}");
                room
            }
            Err(_) => 0,
        };
        self.brimful |= self.capacity() == 0;
        taken
    }

    /// How many bytes of input the FIFO has room for.
    pub fn capacity(&self) -> usize {
        self.uart.fifo_capacity()
    }

    /// What happens to the guest's output, for whoever must not wait for the device.
    pub fn counters(&self) -> Published<SerialCounters> {
        self.published.clone()
    }

    /// A byte of output was not written.
    fn lose(&mut self, error: &vm_superio::serial::Error<io::Error>) {
        let limited = matches!(
            error,
            vm_superio::serial::Error::IOError(error) if error.kind() == io::ErrorKind::QuotaExceeded
        );
        let count = match limited {
            true => &mut self.counters.limited,
            false => &mut self.counters.lost,
        };
        *count = count.wrapping_add(1);
        self.published.set(self.counters);
        log::trace!("serial console: byte lost: {error}");
    }
}

impl BusDevice for Serial {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        // Registers are one byte wide; a wider access reads one register and zeros.
        data.fill(0);
        if let (Ok(offset), Some(first)) = (u8::try_from(offset), data.first_mut()) {
            *first = self.uart.read(offset);
            if self.brimful && self.capacity() == FIFO {
                self.brimful = false;
                if let Some(Err(error)) = self.room.as_ref().map(|room| room.write(1)) {
                    log::debug!("serial console: event for more input: {error}");
                }
            }
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        if let (Ok(offset), &[value]) = (u8::try_from(offset), data) {
            match self.uart.write(offset, value) {
                Ok(()) => {}
                Err(vm_superio::serial::Error::Trigger(error)) => {
                    log::debug!("serial console: interrupt: {error}");
                }
                Err(error) => self.lose(&error),
            }
        }
        Effect::None
    }
}

#[cfg(test)]
mod tests;
