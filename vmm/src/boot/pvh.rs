//! The start information of PVH (Xen's `hvm/start_info.h`).

use linux_loader::loader::elf::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use secovia_devices::GuestMemory;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::entry::Placed;
use super::linux::MapEntry;
use crate::layout;

const MAGIC: u32 = 0x336e_c578;

/// Writes start information, memory map and module list.
pub(super) fn write(
    memory: &GuestMemory,
    map: &[MapEntry],
    initrd: Option<Placed>,
    rsdp: u64,
) -> Result<(), GuestMemoryError> {
    let mut at = layout::PVH_MEMORY_MAP;
    for range in map {
        // The types are those of the BIOS's map.
        let entry = hvm_memmap_table_entry {
            addr: range.address,
            size: range.size,
            type_: range.kind,
            ..Default::default()
        };
        memory.write_obj(entry, GuestAddress(at))?;
        at += size_of::<hvm_memmap_table_entry>() as u64;
    }
    if let Some(initrd) = initrd {
        let module = hvm_modlist_entry {
            paddr: initrd.address,
            size: initrd.size,
            ..Default::default()
        };
        memory.write_obj(module, GuestAddress(layout::PVH_MODULES))?;
    }
    let info = hvm_start_info {
        magic: MAGIC,
        version: 1,
        nr_modules: initrd.is_some().into(),
        modlist_paddr: if initrd.is_some() { layout::PVH_MODULES } else { 0 },
        cmdline_paddr: layout::COMMAND_LINE,
        rsdp_paddr: rsdp,
        memmap_paddr: layout::PVH_MEMORY_MAP,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    memory.write_obj(info, GuestAddress(layout::PVH_INFO))
}
