//! Memory that can be added while the machine runs: how much, in which pieces, and where.

use secovia_devices::virtio::mem::MemConfig;
use secovia_vmm_api::{HugePages, MemoryHotplugSpec};

use super::error::ConfigError;
use crate::layout::WINDOW_GRAIN;
use crate::memory;

const MIN_BLOCK_MIB: u64 = 2;
const MIN_SLOT_MIB: u64 = 128;

/// Checks it for a machine of `memory` bytes on a host of `host_memory` bytes.
pub(super) fn check(
    spec: MemoryHotplugSpec,
    huge_pages: HugePages,
    memory: u64,
    host_memory: u64,
) -> Result<MemConfig, ConfigError> {
    let MemoryHotplugSpec {
        total_size_mib: total,
        block_size_mib: block,
        slot_size_mib: slot,
    } = spec;
    let wrong = |field, mib, remedy| Err(ConfigError::Hotplug { field, mib, remedy });
    if huge_pages == HugePages::TwoMebibytes {
        return Err(ConfigError::HotplugOfHugePages);
    }
    if block < MIN_BLOCK_MIB || !block.is_power_of_two() {
        return wrong("block_size_mib", block, "give a power of two, at least 2");
    }
    if slot < MIN_SLOT_MIB || !slot.is_multiple_of(block) {
        return wrong(
            "slot_size_mib",
            slot,
            "give a multiple of block_size_mib, at least 128",
        );
    }
    if total == 0 || !total.is_multiple_of(slot) {
        return wrong("total_size_mib", total, "give a multiple of slot_size_mib");
    }
    if total > host_memory >> 20 {
        return wrong("total_size_mib", total, "give at most what the host has");
    }
    // All three fit: the total is no more than the host has.
    let block = block << 20;
    Ok(MemConfig {
        start: memory::end(memory).next_multiple_of(WINDOW_GRAIN.max(block)),
        length: total << 20,
        block,
    })
}

/// Checks how much of it the guest should have. Returns it in bytes.
pub fn requested(spec: &MemoryHotplugSpec, mib: u64) -> Result<u64, ConfigError> {
    if mib > spec.total_size_mib || !mib.is_multiple_of(spec.block_size_mib) {
        return Err(ConfigError::Hotplug {
            field: "requested_size_mib",
            mib,
            remedy: "give a multiple of block_size_mib, at most total_size_mib",
        });
    }
    Ok(mib << 20)
}
