//! Address ranges and the devices behind them.

/// What the machine must do after a register access. Devices return effects; they never call up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use]
pub enum Effect {
    /// Nothing.
    #[default]
    None,
    /// The guest powered itself off.
    Shutdown,
    /// The guest reset itself.
    Reset,
    /// The guest's kernel panicked (pvpanic).
    Panic,
}

/// A device behind a range of port I/O or MMIO addresses.
///
/// Called on the vCPU's thread with the device's lock held. `offset` is relative to the range's start and
/// inside of the range; `data` is 1 to 8 bytes long, of any length the guest chose.
pub trait BusDevice: Send {
    /// Reads `data.len()` bytes; what the device does not define reads as zero.
    fn read(&mut self, offset: u64, data: &mut [u8]);
    /// Writes `data`; what the device does not define is ignored.
    fn write(&mut self, offset: u64, data: &[u8]) -> Effect;
}
