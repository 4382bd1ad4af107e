//! How a guest ends itself: the registers of hardware-reduced ACPI, and the keyboard controller's reset line.

use crate::bus::{BusDevice, Effect};

/// The reset, sleep control and sleep status registers of hardware-reduced ACPI (ACPI 6.5, 4.8.3.6 and 4.8.3.7).
///
/// Three 8-bit ports, which the FADT names: write [`RESET_VALUE`](Self::RESET_VALUE) to the reset register, or
/// sleep type [`S5`](Self::S5) with SLP_EN to the sleep control register.
#[derive(Debug, Default)]
pub struct AcpiPower(());

impl AcpiPower {
    /// The number of ports.
    pub const LEN: u64 = 3;
    /// The offset of the sleep control register.
    pub const SLEEP_CONTROL: u64 = 0;
    /// The offset of the sleep status register.
    pub const SLEEP_STATUS: u64 = 1;
    /// The offset of the reset register.
    pub const RESET: u64 = 2;
    /// What resets: the FADT's RESET_VALUE.
    pub const RESET_VALUE: u8 = 1;
    /// The sleep type that the DSDT's `_S5` names.
    pub const S5: u8 = 5;

    const SLP_EN: u8 = 1 << 5;
    const SLP_TYP_SHIFT: u8 = 2;
    const SLP_TYP_MASK: u8 = 7;

    /// The registers.
    pub fn new() -> Self {
        Self::default()
    }
}

impl BusDevice for AcpiPower {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        // The control bits are write-only, and the wake status is never set: there is no sleep to wake from.
        data.fill(0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        match (offset, data) {
            (Self::RESET, &[Self::RESET_VALUE]) => Effect::Reset,
            (Self::SLEEP_CONTROL, &[value])
                if value & Self::SLP_EN != 0
                    && (value >> Self::SLP_TYP_SHIFT) & Self::SLP_TYP_MASK == Self::S5 =>
            {
                Effect::Shutdown
            }
            _ => Effect::None,
        }
    }
}

/// The keyboard controller's ports 0x60 to 0x64: there is no keyboard, only its reset line.
///
/// A status that always says "output full, input empty" does two things. A driver that probes drains the output, gives
/// up after 16 bytes and finds no controller (Linux takes under a millisecond for it; a controller that answers
/// nothing costs half a second). And a kernel that reboots through port 0x64 does not wait for the input to empty.
#[derive(Debug, Default)]
pub struct I8042(());

impl I8042 {
    /// The first port.
    pub const BASE: u64 = 0x60;
    /// The number of ports.
    pub const LEN: u64 = 5;

    const PORT_B: u64 = 1;
    const COMMAND: u64 = 4;
    const OUTPUT_FULL: u8 = 1;
    const RESET_CPU: u8 = 0xfe;
    const TIMER_2_OUTPUT: u8 = 0x20;

    /// The ports.
    pub fn new() -> Self {
        Self::default()
    }
}

impl BusDevice for I8042 {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(first) = data.first_mut() {
            match offset {
                Self::COMMAND => *first = Self::OUTPUT_FULL,
                // Port 0x61 shows the output of the interval timer, which is not there. A kernel that calibrates its
                // clock by it waits for the output to rise, without a limit.
                Self::PORT_B => *first = Self::TIMER_2_OUTPUT,
                _ => {}
            }
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        match (offset, data) {
            (Self::COMMAND, &[Self::RESET_CPU]) => Effect::Reset,
            _ => Effect::None,
        }
    }
}

#[cfg(test)]
mod tests;
