//! The guest's memory: anonymous, reserved nowhere, in one piece up to the gap below 4 GiB and one above it.

use secovia_devices::GuestMemory;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{GuestAddress, GuestMemoryRegion, GuestRegionMmap};

use crate::layout::{GAP_END, GAP_START};

/// Why there is no guest memory.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The address space or the process's limit is too small.
    #[error("map {mib} MiB of guest memory: {source}")]
    Map {
        /// How much.
        mib: u64,
        /// Why not.
        source: vm_memory::mmap::MmapRegionError,
    },
    /// The ranges do not fit together.
    #[error("arrange guest memory: {0}")]
    Arrange(#[from] vm_memory::GuestRegionCollectionError),
}

/// The address ranges that `size` bytes of memory take: start and length, lowest first.
pub fn ranges(size: u64) -> Vec<(u64, u64)> {
    if size <= GAP_START {
        vec![(0, size)]
    } else {
        vec![(0, GAP_START), (GAP_END, size - GAP_START)]
    }
}

/// Maps `size` bytes of guest memory, a multiple of the page size.
///
/// The pages come from the host when the guest first touches them; nothing is set aside beforehand, so that a node can
/// lend memory by weight and take it back.
pub fn create(size: u64) -> Result<GuestMemory, MemoryError> {
    let mut regions = Vec::with_capacity(2);
    for (start, length) in ranges(size) {
        let mib = length >> 20;
        let region = MmapRegionBuilder::new(length as usize)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE)
            .build()
            .map_err(|source| MemoryError::Map { mib, source })?;
        regions.extend(GuestRegionMmap::new(region, GuestAddress(start)));
    }
    Ok(GuestMemory::from_regions(regions)?)
}

/// The host addresses of a region, for KVM's memory slots.
pub(crate) fn host_address(region: &GuestRegionMmap) -> u64 {
    region.as_ptr() as u64
}

/// End of the memory below the gap.
pub(crate) fn low_end(size: u64) -> u64 {
    size.min(GAP_START)
}

/// A region's guest address and length.
pub(crate) fn extent(region: &GuestRegionMmap) -> (u64, u64) {
    (region.start_addr().0, region.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_leaves_the_gap_free() {
        assert_eq!(ranges(128 << 20), [(0, 128 << 20)]);
        assert_eq!(ranges(3 << 30), [(0, 3 << 30)]);
        assert_eq!(ranges(4 << 30), [(0, 3 << 30), (4 << 30, 1 << 30)]);
    }

    #[test]
    fn memory_is_mapped_where_the_ranges_say() {
        use vm_memory::GuestMemoryBackend;
        let memory = create(5 << 30).unwrap();
        let extents: Vec<_> = memory.iter().map(extent).collect();
        assert_eq!(extents, ranges(5 << 30));
    }
}
