//! The zero page of the Linux boot protocol (Documentation/arch/x86/boot.rst, zero-page.rst).

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use secovia_devices::GuestMemory;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::entry::Placed;
use crate::{layout, memory};

const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
/// "Undefined" loader: one without an assigned number.
const LOADER: u8 = 0xff;
const BOOT_FLAG: u16 = 0xaa55;
const HDRS: u32 = u32::from_le_bytes(*b"HdrS");

/// One range of the memory map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MapEntry {
    pub(super) address: u64,
    pub(super) size: u64,
    pub(super) kind: u32,
}

/// The memory map of a machine of `size` bytes.
pub(super) fn memory_map(size: u64) -> Vec<MapEntry> {
    let mut map = vec![
        MapEntry {
            address: 0,
            size: layout::LOW_MEMORY_END,
            kind: E820_RAM,
        },
        // The ACPI tables and the generation ID live here.
        MapEntry {
            address: layout::ACPI_START,
            size: layout::ACPI_END - layout::ACPI_START,
            kind: E820_RESERVED,
        },
    ];
    for (start, length) in memory::ranges(size) {
        let address = start.max(layout::KERNEL_START);
        map.push(MapEntry {
            address,
            size: start + length - address,
            kind: E820_RAM,
        });
    }
    map
}

/// Writes the zero page.
pub(super) fn write(
    memory: &GuestMemory,
    map: &[MapEntry],
    header: Option<setup_header>,
    initrd: Option<Placed>,
    command_line: usize,
    rsdp: u64,
) -> Result<(), GuestMemoryError> {
    let mut params = boot_params {
        acpi_rsdp_addr: rsdp,
        ..Default::default()
    };
    if let Some(header) = header {
        params.hdr = header;
    }
    params.hdr.type_of_loader = LOADER;
    params.hdr.boot_flag = BOOT_FLAG;
    params.hdr.header = HDRS;
    params.hdr.cmd_line_ptr = layout::COMMAND_LINE as u32;
    params.hdr.cmdline_size = command_line as u32;
    if let Some(initrd) = initrd {
        params.hdr.ramdisk_image = initrd.address as u32;
        params.hdr.ramdisk_size = initrd.size as u32;
    }
    for (entry, range) in params.e820_table.iter_mut().zip(map) {
        *entry = boot_e820_entry {
            addr: range.address,
            size: range.size,
            r#type: range.kind,
        };
    }
    params.e820_entries = map.len() as u8;
    memory.write_obj(params, GuestAddress(layout::ZERO_PAGE))
}
