//! The bus, as the guest reaches it: configuration spaces by number (ECAM, 7.2.2), BARs by address.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::config::{Class, ConfigSpace, Identity};
use super::ports::Ports;
use super::{BAR, BAR_LEN, CONFIG_LEN, DEVICES};
use crate::bus::{BusDevice, Effect, SharedDevice, Window};

/// Where a function's BAR is in the guest's address space; shared between the function, which the guest moves, and the bus,
/// which must not wait for the function's lock to know.
#[derive(Debug)]
pub struct Place(AtomicU64);

/// No address of memory that a BAR of 32 bits can have.
const NOWHERE: u64 = u64::MAX;

impl Default for Place {
    fn default() -> Self {
        Self(AtomicU64::new(NOWHERE))
    }
}

impl Place {
    /// The BAR is at `base`, or nowhere.
    pub(crate) fn set(&self, base: Option<u32>) {
        self.0.store(base.map_or(NOWHERE, u64::from), Ordering::Release);
    }

    /// The offset in the BAR of the `len` bytes from `address`, where they lie in it.
    fn find(&self, address: u64, len: usize) -> Option<u64> {
        let offset = address.checked_sub(self.0.load(Ordering::Acquire))?;
        let end = offset.checked_add(len as u64)?;
        (end <= u64::from(BAR_LEN)).then_some(offset)
    }
}

/// There is no free place on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("PCI: no place for another device: {} are there", DEVICES - 1)]
pub struct Full;

/// A function on the bus.
#[derive(Clone)]
struct Slot {
    function: SharedDevice,
    place: Arc<Place>,
}

/// The bus, with the host bridge on it.
pub struct Root {
    /// First address of the window that BARs lie in.
    window: u32,
    slots: RwLock<Vec<Option<Slot>>>,
    bridge: SharedDevice,
    absent: SharedDevice,
}

impl Root {
    /// The length of the window that BARs lie in.
    pub const WINDOW_LEN: u64 = BAR_LEN as u64 * DEVICES as u64;
    /// The length of the range with all configuration spaces: those of one bus, eight functions a device.
    pub const ECAM_LEN: u64 = CONFIG_LEN * 8 * DEVICES as u64;

    /// A bus whose functions' BARs lie in the [`WINDOW_LEN`](Self::WINDOW_LEN) bytes from `window` on.
    pub fn new(window: u32) -> Arc<Self> {
        Arc::new(Self {
            window,
            slots: RwLock::new(vec![None; DEVICES]),
            bridge: Arc::new(Mutex::new(Bridge(ConfigSpace::new(BRIDGE)))),
            absent: Arc::new(Mutex::new(Absent)),
        })
    }

    /// The first free device number, and where the BAR of a function there begins to lie.
    pub fn free(&self) -> Result<(usize, u32), Full> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        // The host bridge is the first.
        let number = slots.iter().skip(1).position(Option::is_none).ok_or(Full)?;
        let number = number.saturating_add(1);
        let offset = (number as u32).saturating_mul(BAR_LEN);
        Ok((number, self.window.saturating_add(offset)))
    }

    /// Puts a function on the bus, in place of what was there.
    pub fn plug(&self, number: usize, function: SharedDevice, place: Arc<Place>) {
        self.change(number, Some(Slot { function, place }));
    }

    /// Takes a function off the bus. An access that is under way ends first where it needs the function's lock.
    pub fn unplug(&self, number: usize) {
        self.change(number, None);
    }

    fn change(&self, number: usize, slot: Option<Slot>) {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = slots.get_mut(number) {
            *place = slot;
        }
    }

    /// The range with all configuration spaces.
    pub fn ecam(self: &Arc<Self>) -> Arc<dyn Window> {
        Arc::new(Ecam(self.clone()))
    }

    /// The ports that lead to them too.
    pub fn ports(self: &Arc<Self>) -> Arc<dyn Window> {
        Arc::new(Ports::new(self.ecam()))
    }

    /// The range that BARs lie in.
    pub fn bars(self: &Arc<Self>) -> Arc<dyn Window> {
        Arc::new(Bars(self.clone()))
    }
}

struct Ecam(Arc<Root>);

impl Window for Ecam {
    fn find(&self, offset: u64, len: usize) -> Option<(SharedDevice, u64)> {
        let register = offset % CONFIG_LEN;
        if register.checked_add(len as u64)? > CONFIG_LEN {
            return None;
        }
        // Function 0 to 7 of device 0 to 31 of bus 0.
        let number = usize::try_from(offset / CONFIG_LEN).ok()?;
        let function = match (number / 8, number % 8) {
            (0, 0) => self.0.bridge.clone(),
            (device, 0) => {
                let slots = self.0.slots.read().unwrap_or_else(PoisonError::into_inner);
                let slot = slots.get(device).and_then(Option::as_ref);
                slot.map_or_else(|| self.0.absent.clone(), |slot| slot.function.clone())
            }
            _ => self.0.absent.clone(),
        };
        Some((function, register))
    }
}

struct Bars(Arc<Root>);

impl Window for Bars {
    fn find(&self, offset: u64, len: usize) -> Option<(SharedDevice, u64)> {
        let address = u64::from(self.0.window).checked_add(offset)?;
        let slots = self.0.slots.read().unwrap_or_else(PoisonError::into_inner);
        slots.iter().flatten().find_map(|slot| {
            let offset = slot.place.find(address, len)?;
            Some((slot.function.clone(), BAR.saturating_add(offset)))
        })
    }
}

/// A generic host bridge, as Red Hat numbers it for paravirtual machines.
const BRIDGE: Identity = Identity {
    vendor: 0x1b36,
    device: 0x0008,
    revision: 0,
    class: Class(0x06, 0, 0),
    subsystem: 0x1100,
};

/// The host bridge: there because a bus begins with one.
struct Bridge(ConfigSpace);

impl BusDevice for Bridge {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.0.read(offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        self.0.write(offset, data);
        Effect::None
    }
}

/// What answers for functions that are not there: ones.
struct Absent;

impl BusDevice for Absent {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write(&mut self, _offset: u64, _data: &[u8]) -> Effect {
        Effect::None
    }
}
