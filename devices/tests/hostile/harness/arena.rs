//! A guest's memory that shows at once when somebody leaves it.
//!
//! Each region lies between pages that nobody may touch, so that a byte too far ends the process. One more region is
//! never named to the device, and must never change.

use std::ptr;

use secovia_devices::GuestMemory;
use vm_memory::{Bytes, GuestAddress, GuestRegionMmap, MmapRegion};

/// Two regions that touch (a buffer may cross), and one above 4 GiB: address and length.
pub const REGIONS: [(u64, u64); 3] = [(0, 0x4_0000), (0x4_0000, 0x2_0000), (1 << 32, 0x1_0000)];

/// The region that no descriptor names.
const SECRET: (u64, u64) = (0x7b6a_5948_0000, 0x1000);
const SECRET_BYTE: u8 = 0xa5;

const PAGE: usize = 4096;

/// The memory, mapped once and used for many episodes.
pub struct Arena {
    memory: GuestMemory,
    mappings: Vec<(*mut libc::c_void, usize)>,
}

impl Arena {
    pub fn new() -> Self {
        let mut mappings = Vec::new();
        let regions = REGIONS.iter().chain([&SECRET]).map(|(address, len)| {
            let (start, total) = guarded(*len as usize);
            mappings.push((start, total));
            let inside = start.cast::<u8>().wrapping_add(PAGE);
            let (prot, flags) = (
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            );
            // SAFETY: the range is mapped readable and writable, and stays so until the arena is dropped; the memory
            // that is lent out does not outlive it in any test.
            let mapping = unsafe { MmapRegion::build_raw(inside, *len as usize, prot, flags) };
            GuestRegionMmap::new(mapping.unwrap(), GuestAddress(*address)).unwrap()
        });
        let memory = GuestMemory::from_regions(regions.collect()).unwrap();
        Self { memory, mappings }
    }

    /// The memory, zeroed.
    pub fn clear(&self) -> GuestMemory {
        for (start, total) in &self.mappings {
            let inside = start.cast::<u8>().wrapping_add(PAGE).cast();
            // SAFETY: the range is a part of our own anonymous mapping, whose pages read as zero from here on; it is
            // accessed through `memory` alone, by which nobody holds a reference to a byte.
            let result = unsafe { libc::madvise(inside, total - 2 * PAGE, libc::MADV_DONTNEED) };
            assert_eq!(result, 0);
        }
        let secret = [SECRET_BYTE; SECRET.1 as usize];
        self.memory.write_slice(&secret, GuestAddress(SECRET.0)).unwrap();
        self.memory.clone()
    }

    /// Nobody wrote where nobody was told to.
    pub fn check(&self) {
        let mut bytes = vec![0; SECRET.1 as usize];
        self.memory
            .read_slice(&mut bytes, GuestAddress(SECRET.0))
            .unwrap();
        assert!(
            bytes.iter().all(|byte| *byte == SECRET_BYTE),
            "memory that was never named was written"
        );
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        for (start, total) in &self.mappings {
            // SAFETY: mapped by `guarded`, and nobody uses it any more.
            unsafe { libc::munmap(*start, *total) };
        }
    }
}

/// Maps `len` bytes with an untouchable page before and after.
fn guarded(len: usize) -> (*mut libc::c_void, usize) {
    let total = len + 2 * PAGE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at a place of the kernel's choice.
    let start = unsafe { libc::mmap(ptr::null_mut(), total, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED);
    // SAFETY: the range is inside of the mapping made above.
    let result = unsafe {
        libc::mprotect(
            start.cast::<u8>().wrapping_add(PAGE).cast(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
        )
    };
    assert_eq!(result, 0);
    (start, total)
}
