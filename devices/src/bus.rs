//! Address ranges and the devices behind them.

use std::sync::{Arc, Mutex, PoisonError};

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

/// Why a range cannot join a bus.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// The range has no address in it, or runs past the last one.
    #[error("bus range {name} at {base:#x}, {len:#x} long: not a range of addresses")]
    Range {
        /// The range's name.
        name: String,
        /// Its first address.
        base: u64,
        /// Its length.
        len: u64,
    },
    /// Two ranges share an address.
    #[error(
        "bus range {name} ({base:#x} to {last:#x}) overlaps {other} ({other_base:#x} to {other_last:#x})"
    )]
    Overlap {
        /// The name of the range that was to be added.
        name: String,
        /// Its first address.
        base: u64,
        /// Its last address.
        last: u64,
        /// The name of the range that is there.
        other: String,
        /// Its first address.
        other_base: u64,
        /// Its last address.
        other_last: u64,
    },
}

/// A range in which devices come and go while the guest runs.
///
/// Asked by all vCPUs at once; it must not wait for a device.
pub trait Window: Send + Sync {
    /// The device that holds all of the `len` addresses from `offset`, relative to the range's start, and the offset in it.
    fn find(&self, offset: u64, len: usize) -> Option<(SharedDevice, u64)>;
}

/// A device on a bus, shared with whatever else drives it (the event loop).
pub type SharedDevice = Arc<Mutex<dyn BusDevice>>;

#[derive(Clone)]
struct Range {
    base: u64,
    /// Inclusive, so that a range may end at the last address there is.
    last: u64,
    name: String,
    holder: Holder,
}

/// Who answers in a range.
#[derive(Clone)]
enum Holder {
    Device(SharedDevice),
    Window(Arc<dyn Window>),
}

/// One address space (port I/O or MMIO). Filled while the machine is put together; then only read, by all vCPUs at
/// once without a lock of its own.
#[derive(Clone, Default)]
pub struct Bus {
    /// Ordered by `base`, free of overlaps.
    ranges: Vec<Range>,
}

impl Bus {
    /// A bus with nothing on it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `device` behind the `len` addresses from `base`. The name is for messages.
    pub fn insert(
        &mut self,
        name: impl Into<String>,
        base: u64,
        len: u64,
        device: SharedDevice,
    ) -> Result<(), BusError> {
        self.hold(name.into(), base, len, Holder::Device(device))
    }

    /// Leaves the `len` addresses from `base` to `window`.
    pub fn insert_window(
        &mut self,
        name: impl Into<String>,
        base: u64,
        len: u64,
        window: Arc<dyn Window>,
    ) -> Result<(), BusError> {
        self.hold(name.into(), base, len, Holder::Window(window))
    }

    fn hold(&mut self, name: String, base: u64, len: u64, holder: Holder) -> Result<(), BusError> {
        let Some(last) = len.checked_sub(1).and_then(|len| base.checked_add(len)) else {
            return Err(BusError::Range { name, base, len });
        };
        // All ranges before `place` end before `base`; the one at `place` must begin after `last`.
        let place = self.ranges.partition_point(|range| range.last < base);
        if let Some(other) = self.ranges.get(place).filter(|other| other.base <= last) {
            return Err(BusError::Overlap {
                name,
                base,
                last,
                other: other.name.clone(),
                other_base: other.base,
                other_last: other.last,
            });
        }
        self.ranges.insert(
            place,
            Range {
                base,
                last,
                name,
                holder,
            },
        );
        Ok(())
    }

    /// Has the device that holds all of the `len` addresses from `address` answer, with the offset in it.
    fn with<T>(
        &self,
        address: u64,
        len: usize,
        access: impl FnOnce(&mut dyn BusDevice, u64) -> T,
    ) -> Option<T> {
        let last = address.checked_add((len as u64).checked_sub(1)?)?;
        let place = self.ranges.partition_point(|range| range.last < address);
        let range = self.ranges.get(place)?;
        // An access that crosses the range's end belongs to no device.
        if range.base > address || last > range.last {
            return None;
        }
        let offset = address.wrapping_sub(range.base);
        // A device whose lock was poisoned is still a device: its state is plain values, and the guest's other devices must
        // live on.
        let lock = |device: &SharedDevice, offset| {
            access(
                &mut *device.lock().unwrap_or_else(PoisonError::into_inner),
                offset,
            )
        };
        match &range.holder {
            Holder::Device(device) => Some(lock(device, offset)),
            Holder::Window(window) => {
                let (device, offset) = window.find(offset, len)?;
                Some(lock(&device, offset))
            }
        }
    }

    /// A read by the guest. Where no device is, and across a range's end, it reads as zero; `false` says so.
    pub fn read(&self, address: u64, data: &mut [u8]) -> bool {
        data.fill(0);
        let len = data.len();
        let read = self.with(address, len, |device, offset| device.read(offset, data));
        if read.is_none() {
            log::trace!("read of {len} bytes at {address:#x}: no device");
        }
        read.is_some()
    }

    /// A write by the guest. Where no device is, and across a range's end, it is ignored.
    pub fn write(&self, address: u64, data: &[u8]) -> Effect {
        let written = self.with(address, data.len(), |device, offset| device.write(offset, data));
        written.unwrap_or_else(|| {
            log::trace!("write of {} bytes at {address:#x}: no device", data.len());
            Effect::None
        })
    }
}

#[cfg(test)]
mod tests;
