//! The way to configuration spaces that every PC has, by two words of ports (PCI Local Bus Specification 3.0, 3.2.2.3.2):
//! which register, and its contents. Linux looks for it first, and calls its absence fatal although it finds the other way
//! later.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::CONFIG_LEN;
use crate::bus::{BusDevice, Effect, SharedDevice, Window};

/// The first port.
pub const BASE: u64 = 0xcf8;
/// The address, and the contents.
pub const LEN: u64 = 8;

/// Where the contents begin.
const CONTENTS: u64 = 4;
/// In the address: it is one.
const ON: u32 = 1 << 31;

/// The ports, in front of the range with all configuration spaces.
pub(super) struct Ports {
    ecam: Arc<dyn Window>,
    address: Arc<AtomicU32>,
    register: SharedDevice,
}

impl Ports {
    pub(super) fn new(ecam: Arc<dyn Window>) -> Self {
        let address = Arc::new(AtomicU32::new(0));
        Self {
            ecam,
            register: Arc::new(Mutex::new(Register(address.clone()))),
            address,
        }
    }
}

impl Window for Ports {
    fn find(&self, offset: u64, len: usize) -> Option<(SharedDevice, u64)> {
        let Some(byte) = offset.checked_sub(CONTENTS) else {
            return Some((self.register.clone(), offset));
        };
        let address = self.address.load(Ordering::Relaxed);
        let (function, register) = (u64::from(address >> 8 & 0xffff), u64::from(address & 0xfc));
        // Of bus 0 there are 256; the others are not there.
        if address & ON == 0 || function > 0xff {
            return None;
        }
        let spaces = function.saturating_mul(CONFIG_LEN);
        self.ecam
            .find(spaces.saturating_add(register).saturating_add(byte), len)
    }
}

/// The address, which is written and read as a whole.
struct Register(Arc<AtomicU32>);

impl BusDevice for Register {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let (0, Ok(data)) = (offset, <&mut [u8; 4]>::try_from(data)) {
            *data = self.0.load(Ordering::Relaxed).to_le_bytes();
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        if let (0, Ok(data)) = (offset, <[u8; 4]>::try_from(data)) {
            self.0.store(u32::from_le_bytes(data), Ordering::Relaxed);
        }
        Effect::None
    }
}
