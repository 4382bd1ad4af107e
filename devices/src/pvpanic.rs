//! The port by which a guest's kernel says that it panicked (QEMU's pvpanic, ACPI `QEMU0001`).

use crate::bus::{BusDevice, Effect};

/// One 8-bit port: reading tells which events are taken, writing reports some.
///
/// Only the panic is offered; a guest that loads a crash kernel keeps that to itself, and reports the panic if it has none.
#[derive(Debug, Default)]
pub struct PvPanic(());

impl PvPanic {
    /// Where QEMU has it.
    pub const PORT: u64 = 0x505;
    /// The number of ports.
    pub const LEN: u64 = 1;

    const PANICKED: u8 = 1;

    /// The port.
    pub fn new() -> Self {
        Self::default()
    }
}

impl BusDevice for PvPanic {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(first) = data.first_mut() {
            *first = Self::PANICKED;
        }
    }

    fn write(&mut self, _offset: u64, data: &[u8]) -> Effect {
        match data {
            &[events] if events & Self::PANICKED != 0 => Effect::Panic,
            _ => Effect::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_the_panic_and_takes_nothing_else() {
        let mut pvpanic = PvPanic::new();
        let mut events = [0];
        pvpanic.read(0, &mut events);
        assert_eq!(events, [1]);
        assert_eq!(pvpanic.write(0, &[1]), Effect::Panic);
        assert_eq!(pvpanic.write(0, &[3]), Effect::Panic);
        for ignored in [&[2][..], &[0], &[1, 0], &[]] {
            assert_eq!(pvpanic.write(0, ignored), Effect::None);
        }
    }
}
