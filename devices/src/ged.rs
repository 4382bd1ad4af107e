//! The register behind the ACPI generic event device (`ACPI0013`): what happened, told by one interrupt.

use std::sync::Arc;

use crate::bus::{BusDevice, Effect};
use crate::interrupt::Interrupt;

/// What a guest can be told. The DSDT's `_EVT` method reads the register and notifies the devices of the bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum GedEvent {
    /// The power button was pressed: please shut down.
    PowerButton = 1 << 0,
    /// The VM generation ID changed.
    VmGenId = 1 << 1,
}

/// A 32-bit register that is cleared by reading.
pub struct Ged {
    events: u32,
    interrupt: Arc<dyn Interrupt>,
}

impl Ged {
    /// The length of its MMIO range.
    pub const LEN: u64 = 4;

    /// A register with no event in it.
    pub fn new(interrupt: Arc<dyn Interrupt>) -> Self {
        Self { events: 0, interrupt }
    }

    /// Tells the guest of `event`. Told again before the guest looked, it is still one event.
    pub fn notify(&mut self, event: GedEvent) -> std::io::Result<()> {
        self.events |= event as u32;
        self.interrupt.trigger()
    }
}

impl BusDevice for Ged {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        // The DSDT reads 4 bytes. A narrower read takes, and clears, the events of its bytes only.
        let bytes = self.events.to_le_bytes();
        let mut taken = [0; 4];
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for ((to, from), taken) in data
            .iter_mut()
            .zip(bytes.iter().skip(start))
            .zip(taken.iter_mut().skip(start))
        {
            *to = *from;
            *taken = *from;
        }
        self.events &= !u32::from_le_bytes(taken);
    }

    fn write(&mut self, _offset: u64, _data: &[u8]) -> Effect {
        Effect::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::CountingInterrupt;

    #[test]
    fn events_collect_raise_the_line_and_are_cleared_by_reading() {
        let interrupt = Arc::new(CountingInterrupt::default());
        let mut ged = Ged::new(interrupt.clone());
        ged.notify(GedEvent::PowerButton).unwrap();
        ged.notify(GedEvent::VmGenId).unwrap();
        ged.notify(GedEvent::VmGenId).unwrap();
        assert_eq!(interrupt.count(), 3);
        let mut events = [0; 4];
        ged.read(0, &mut events);
        assert_eq!(u32::from_le_bytes(events), 3);
        ged.read(0, &mut events);
        assert_eq!(events, [0; 4]);
    }

    #[test]
    fn a_narrow_read_leaves_what_it_did_not_see() {
        let mut ged = Ged::new(Arc::new(CountingInterrupt::default()));
        ged.notify(GedEvent::PowerButton).unwrap();
        let mut upper = [0xff; 2];
        ged.read(2, &mut upper);
        assert_eq!(upper, [0, 0]);
        assert_eq!(ged.write(0, &[0; 4]), Effect::None);
        let mut low = [0];
        ged.read(0, &mut low);
        assert_eq!(low, [1]);
        ged.read(0, &mut low);
        assert_eq!(low, [0]);
    }
}
