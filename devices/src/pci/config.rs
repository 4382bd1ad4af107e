//! A configuration space as a plain value (7.5.1): bytes, and which bits of them the guest can change. A BAR tells its size
//! by the bits that cannot be.

const LEN: usize = 256;

const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const BAR0: usize = 0x10;
const CAPABILITIES: usize = 0x34;
/// Behind the header.
const FIRST_CAPABILITY: usize = 0x40;

/// Memory space enable.
const COMMAND_MEMORY: u8 = 1 << 1;
/// Memory space, bus master, parity, SERR#, interrupt disable.
const COMMAND_WRITABLE: u16 = 0x0546;
/// There is a list of capabilities.
const STATUS_CAPABILITIES: u8 = 1 << 4;

/// Base class, subclass and interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Class(pub(crate) u8, pub(crate) u8, pub(crate) u8);

/// Who made a function, and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) vendor: u16,
    pub(crate) device: u16,
    pub(crate) revision: u8,
    pub(crate) class: Class,
    pub(crate) subsystem: u16,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct ConfigSpace {
    bytes: [u8; LEN],
    writable: [u8; LEN],
    /// The capability that was added last, and where the next one can lie.
    last: usize,
    free: usize,
}

impl ConfigSpace {
    /// A header of type 0, with nothing in it but who it is.
    pub(crate) fn new(identity: Identity) -> Self {
        let mut space = Self {
            bytes: [0; LEN],
            writable: [0; LEN],
            last: CAPABILITIES,
            free: FIRST_CAPABILITY,
        };
        let Class(base, sub, interface) = identity.class;
        space.set(0x00, &identity.vendor.to_le_bytes());
        space.set(0x02, &identity.device.to_le_bytes());
        space.set(0x08, &[identity.revision, interface, sub, base]);
        space.set(0x2c, &identity.vendor.to_le_bytes());
        space.set(0x2e, &identity.subsystem.to_le_bytes());
        space.allow(COMMAND, &COMMAND_WRITABLE.to_le_bytes());
        // Scratch space of the guest's (7.5.1.1.12).
        space.allow(0x3c, &[0xff]);
        space
    }

    /// The first BAR: `len` bytes (a power of two, at least 16) of 32-bit memory, at `base`.
    pub(crate) fn set_bar(&mut self, base: u32, len: u32) {
        self.set(BAR0, &base.to_le_bytes());
        self.allow(BAR0, &(!len.saturating_sub(1)).to_le_bytes());
    }

    /// Adds a capability (7.5.3.1): `id`, the link to the next one, and `body`, of which the bits in `writable` can be
    /// changed. Returns where it lies; nothing where there is no room.
    pub(crate) fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Option<usize> {
        let at = self.free;
        let end = at.checked_add(2)?.checked_add(body.len())?;
        let free = end.checked_next_multiple_of(4).filter(|free| *free <= LEN)?;
        let link = match self.last {
            CAPABILITIES => CAPABILITIES,
            last => last.checked_add(1)?,
        };
        self.set(link, &[u8::try_from(at).ok()?]);
        self.set(at, &[id, 0]);
        self.set(at.checked_add(2)?, body);
        self.allow(at.checked_add(2)?, writable);
        if let Some(status) = self.bytes.get_mut(STATUS) {
            *status |= STATUS_CAPABILITIES;
        }
        (self.last, self.free) = (at, free);
        Some(at)
    }

    /// Where the BAR is, if the function answers there.
    pub(crate) fn bar(&self) -> Option<u32> {
        let enabled = self
            .bytes
            .get(COMMAND)
            .is_some_and(|low| low & COMMAND_MEMORY != 0);
        enabled.then(|| self.u32_at(BAR0))
    }

    /// A field of 16 bits; 0 behind the end.
    pub(crate) fn u16_at(&self, at: usize) -> u16 {
        let mut field = [0; 2];
        self.read(at as u64, &mut field);
        u16::from_le_bytes(field)
    }

    /// A field of 32 bits; 0 behind the end.
    pub(crate) fn u32_at(&self, at: usize) -> u32 {
        let mut field = [0; 4];
        self.read(at as u64, &mut field);
        u32::from_le_bytes(field)
    }

    /// The guest reads; zeroes behind the end.
    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let start = usize::try_from(offset).unwrap_or(LEN).min(LEN);
        for (to, from) in data.iter_mut().zip(self.bytes.iter().skip(start)) {
            *to = *from;
        }
    }

    /// The guest writes; it changes what it can change.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        let start = usize::try_from(offset).unwrap_or(LEN).min(LEN);
        let bytes = self.bytes.iter_mut().zip(&self.writable).skip(start);
        for ((byte, mask), new) in bytes.zip(data) {
            *byte = (*byte & !mask) | (new & mask);
        }
    }

    fn set(&mut self, at: usize, data: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(at).zip(data) {
            *to = *from;
        }
    }

    fn allow(&mut self, at: usize, mask: &[u8]) {
        for (to, from) in self.writable.iter_mut().skip(at).zip(mask) {
            *to = *from;
        }
    }
}
