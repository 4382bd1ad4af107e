//! What the guest says of its memory (5.5.6.4).

use crate::virtio::chain::Buffers;
use crate::virtio::device::DeviceError;

/// A tag of 16 bits and a value of 64.
const ENTRY: u32 = 10;
/// Entries that are looked at; there are a dozen tags.
const MAX_ENTRIES: u32 = 64;

/// A guest's memory by its own word; what it did not say is nothing. Sizes are in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BalloonStatistics {
    /// Swapped in since its start.
    pub swap_in: Option<u64>,
    /// Swapped out since its start.
    pub swap_out: Option<u64>,
    /// Page faults that read a disk, since its start.
    pub major_faults: Option<u64>,
    /// Page faults that did not, since its start.
    pub minor_faults: Option<u64>,
    /// Memory that nothing uses.
    pub free_memory: Option<u64>,
    /// All memory.
    pub total_memory: Option<u64>,
    /// Memory that programs can have without swapping.
    pub available_memory: Option<u64>,
    /// Memory that holds files and could be given up.
    pub disk_caches: Option<u64>,
    /// Huge pages that were allocated, since its start.
    pub hugetlb_allocations: Option<u64>,
    /// Huge pages that could not be, since its start.
    pub hugetlb_failures: Option<u64>,
}

/// Reads what the driver sent; tags that are not known are passed over.
pub(super) fn parse(buffers: Buffers<'_>) -> Result<BalloonStatistics, DeviceError> {
    let mut statistics = BalloonStatistics::default();
    let mut rest = buffers;
    for _ in 0..MAX_ENTRIES {
        let Some((entry, later)) = rest.split_at(ENTRY) else {
            break;
        };
        rest = later;
        let mut bytes = [0; ENTRY as usize];
        entry.read(&mut bytes)?;
        let [t0, t1, value @ ..] = bytes;
        let place = match u16::from_le_bytes([t0, t1]) {
            0 => &mut statistics.swap_in,
            1 => &mut statistics.swap_out,
            2 => &mut statistics.major_faults,
            3 => &mut statistics.minor_faults,
            4 => &mut statistics.free_memory,
            5 => &mut statistics.total_memory,
            6 => &mut statistics.available_memory,
            7 => &mut statistics.disk_caches,
            8 => &mut statistics.hugetlb_allocations,
            9 => &mut statistics.hugetlb_failures,
            _ => continue,
        };
        *place = Some(u64::from_le_bytes(value));
    }
    Ok(statistics)
}
