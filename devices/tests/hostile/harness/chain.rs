//! Descriptor chains as a hostile driver lays them out.

use secovia_devices::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

use super::arena::REGIONS;
use super::source::Source;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// A descriptor, without its place in a table.
#[derive(Debug, Clone, Copy)]
pub struct Descriptor {
    pub address: u64,
    pub len: u32,
    pub flags: u16,
    pub next: u16,
}

impl Descriptor {
    /// A part that the device reads.
    pub fn readable(address: u64, len: u32) -> Self {
        Self {
            address,
            len,
            flags: 0,
            next: 0,
        }
    }

    /// A part that the device writes.
    pub fn writable(address: u64, len: u32) -> Self {
        Self {
            address,
            len,
            flags: WRITE,
            next: 0,
        }
    }

    /// Puts it into a table; a place outside of memory takes nothing.
    pub fn store(&self, memory: &GuestMemory, table: u64, index: u16) {
        let raw = u128::from(self.address)
            | u128::from(self.len) << 64
            | u128::from(self.flags) << 96
            | u128::from(self.next) << 112;
        poke(
            memory,
            table.wrapping_add(u64::from(index) * 16),
            &raw.to_le_bytes(),
        );
    }
}

/// Writes where there is memory, and nothing where there is none.
pub fn poke(memory: &GuestMemory, address: u64, bytes: &[u8]) {
    let _ = memory.write_slice(bytes, GuestAddress(address));
}

/// An address: mostly in memory, often at an edge of it, sometimes nowhere.
pub fn address(source: &mut Source<'_>) -> u64 {
    let (start, len) = source.pick(&REGIONS);
    match source.u8() % 16 {
        0 => start.wrapping_add(len).wrapping_sub(source.below(64)),
        1 => start.wrapping_sub(source.below(64)),
        2 => u64::MAX - source.below(64),
        3 => 0x6_0000 + source.below(0x1_0000),
        // Never by chance where the secret is, which is far from both ends.
        4 => source.u64() & 0x3fff_ffff,
        _ => start + source.below(len),
    }
}

/// A length: small, exact, or far too large.
pub fn length(source: &mut Source<'_>) -> u32 {
    match source.u8() % 12 {
        0 => 0,
        1 => u32::MAX - u32::from(source.u8()),
        2 => 1 << (source.u8() % 32),
        3 => 0x6_0000 - u32::from(source.u8()),
        4 => source.u32() & 0xf_ffff,
        5..=7 => u32::from(source.u8()),
        _ => source.pick(&[1, 2, 4, 16, 44, 512, 513, 1024, 4096, 4140]),
    }
}

/// Makes a chain worse in one place.
pub fn spoil(source: &mut Source<'_>, chain: &mut Vec<Descriptor>) {
    let count = chain.len().max(1) as u64;
    let at = source.below(count) as usize;
    let kind = source.u8() % 12;
    let Some(descriptor) = chain.get_mut(at) else {
        return chain.push(Descriptor::readable(address(source), length(source)));
    };
    match kind {
        0 => descriptor.address = address(source),
        1 => descriptor.len = length(source),
        2 => descriptor.flags ^= WRITE,
        3 => descriptor.flags ^= NEXT,
        4 => descriptor.flags = source.u16(),
        5 => descriptor.next = source.u16(),
        6 => descriptor.flags |= INDIRECT,
        7 => descriptor.len = 0,
        8 => {
            let copy = *descriptor;
            chain.insert(at, copy);
        }
        9 => {
            chain.remove(at);
        }
        10 => {
            let (from, to) = (source.below(count) as usize, source.below(count) as usize);
            chain.swap(from, to);
        }
        _ => {
            let fresh = Descriptor {
                flags: source.u16() & 7,
                ..Descriptor::readable(address(source), length(source))
            };
            chain.insert(at, fresh);
        }
    }
}

/// Links the descriptors of a chain, in a table of `size` entries from `first` on. What was set before (a flag or a
/// next index that somebody spoiled) stays.
pub fn link(chain: &mut [Descriptor], first: u16, size: u16) {
    let last = chain.len().saturating_sub(1);
    for (position, descriptor) in chain.iter_mut().enumerate() {
        if position < last {
            descriptor.flags |= NEXT;
            if descriptor.next == 0 {
                descriptor.next = place(first, position + 1, size);
            }
        }
    }
}

/// The place of the chain's descriptor `position`.
pub fn place(first: u16, position: usize, size: u16) -> u16 {
    ((usize::from(first) + position) % usize::from(size.max(1))) as u16
}
