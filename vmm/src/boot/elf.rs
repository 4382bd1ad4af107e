//! ELF kernels: `vmlinux`, with the PVH entry where a note names one, or the 64-bit entry.

use secovia_devices::GuestMemory;

use super::entry::{Entry, Loaded};
use super::error::KernelFault;
use super::image::Image;
use crate::layout;

const MAGIC: [u8; 4] = *b"\x7fELF";
const HEADER: usize = 64;
const SEGMENT: usize = 56;
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const MACHINE_X86_64: u16 = 62;
const LOAD: u32 = 1;
const NOTE: u32 = 4;
/// A kernel has a handful of segments and notes; more is no kernel.
const MAX_SEGMENTS: u16 = 64;
const MAX_NOTES: u64 = 1 << 20;
/// `XEN_ELFNOTE_PHYS32_ENTRY`: the physical address of the PVH entry.
const PVH_ENTRY: u32 = 18;

pub(super) fn is_elf(image: &Image<'_>) -> Result<bool, KernelFault> {
    let mut magic = [0; 4];
    Ok(image.len() >= 4 && {
        image.read_at(0, &mut magic)?;
        magic == MAGIC
    })
}

/// One program header.
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    file_size: u64,
    memory_size: u64,
}

/// Loads an ELF kernel at the physical addresses that it names.
pub(super) fn load(memory: &GuestMemory, low_end: u64, image: &Image<'_>) -> Result<Loaded, KernelFault> {
    let (entry, segments) = headers(image)?;

    let mut end = 0;
    let mut pvh = None;
    let mut entry_is_loaded = false;
    for segment in &segments {
        match segment.kind {
            LOAD if segment.memory_size > 0 => {
                end = end.max(place(memory, low_end, image, segment)?);
                entry_is_loaded |= entry >= segment.address && entry - segment.address < segment.memory_size;
            }
            NOTE => pvh = pvh.or(find_pvh_entry(image, segment)?),
            _ => {}
        }
    }
    if end == 0 {
        return Err(KernelFault::Damaged("it has no segment to load"));
    }
    let entry = match pvh {
        Some(address) => Entry::Pvh { address },
        None if entry_is_loaded => Entry::Long { address: entry },
        None => {
            return Err(KernelFault::Damaged(
                "its entry point is outside of what it loads",
            ));
        }
    };
    Ok(Loaded {
        entry,
        end,
        initrd_max: low_end - 1,
        command_line_max: layout::COMMAND_LINE_MAX - 1,
        header: None,
    })
}

/// The 64-bit entry point and the program headers.
fn headers(image: &Image<'_>) -> Result<(u64, Vec<Segment>), KernelFault> {
    let mut header = [0; HEADER];
    read(image, 0, &mut header, "the ELF header")?;
    if header[4] != CLASS_64 || header[5] != LITTLE_ENDIAN {
        return Err(KernelFault::Machine("a 32-bit or big-endian machine".into()));
    }
    let machine = u16_at(&header, 18);
    if machine != MACHINE_X86_64 {
        return Err(KernelFault::Machine(machine_name(machine)));
    }
    let entry = u64_at(&header, 24);
    let table = u64_at(&header, 32);
    let count = u16_at(&header, 56);
    if usize::from(u16_at(&header, 54)) != SEGMENT {
        return Err(KernelFault::Damaged("its program headers have an unknown size"));
    }
    if count == 0 || count > MAX_SEGMENTS {
        return Err(KernelFault::Damaged(
            "its number of program headers is that of no kernel",
        ));
    }

    let mut bytes = vec![0; SEGMENT * usize::from(count)];
    read(image, table, &mut bytes, "the program header table")?;
    let segments = bytes
        .chunks_exact(SEGMENT)
        .map(|bytes| Segment {
            kind: u32_at(bytes, 0),
            offset: u64_at(bytes, 8),
            address: u64_at(bytes, 24),
            file_size: u64_at(bytes, 32),
            memory_size: u64_at(bytes, 40),
        })
        .collect();
    Ok((entry, segments))
}

/// Copies one segment and says where it ends in memory. What it has in memory beyond the file is zero already.
fn place(
    memory: &GuestMemory,
    low_end: u64,
    image: &Image<'_>,
    segment: &Segment,
) -> Result<u64, KernelFault> {
    if segment.file_size > segment.memory_size {
        return Err(KernelFault::Damaged(
            "a segment is larger in the file than in memory",
        ));
    }
    if segment.address < layout::KERNEL_START {
        return Err(KernelFault::TooLow(segment.address));
    }
    let end = fits(segment.address, segment.memory_size, low_end)?;
    let file_end = segment
        .offset
        .checked_add(segment.file_size)
        .ok_or(KernelFault::Damaged("a segment lies outside of every file"))?;
    if file_end > image.len() {
        return Err(KernelFault::Truncated {
            what: "a segment",
            needed: file_end,
            length: image.len(),
        });
    }
    image.copy_to(memory, segment.offset, segment.address, segment.file_size)?;
    Ok(end)
}

/// The end of a range that must lie below `low_end`.
pub(super) fn fits(address: u64, size: u64, low_end: u64) -> Result<u64, KernelFault> {
    let end = address
        .checked_add(size)
        .ok_or(KernelFault::Damaged("it lies outside of every memory"))?;
    if end > low_end {
        return Err(KernelFault::TooLarge {
            needed: end.div_ceil(1 << 20),
            available: low_end >> 20,
        });
    }
    Ok(end)
}

/// Looks for the PVH entry among the notes of a segment.
fn find_pvh_entry(image: &Image<'_>, segment: &Segment) -> Result<Option<u32>, KernelFault> {
    if segment.file_size > MAX_NOTES {
        return Err(KernelFault::Damaged(
            "its notes are larger than those of any kernel",
        ));
    }
    let mut notes = vec![0; segment.file_size as usize];
    read(image, segment.offset, &mut notes, "a note segment")?;

    // A note: sizes of name and value, type, then name and value, each padded to 4 bytes.
    let mut rest: &[u8] = &notes;
    while let Some((head, body)) = rest.split_at_checked(12) {
        let (name_size, value_size) = (u32_at(head, 0) as usize, u32_at(head, 4) as usize);
        let value_start = name_size.next_multiple_of(4);
        let (Some(name), Some(value)) = (
            body.get(..name_size),
            body.get(value_start..).and_then(|v| v.get(..value_size)),
        ) else {
            return Err(KernelFault::Damaged("a note runs past its segment"));
        };
        if u32_at(head, 8) == PVH_ENTRY && name == b"Xen\0" {
            return match value {
                [a, b, c, d] | [a, b, c, d, 0, 0, 0, 0] => Ok(Some(u32::from_le_bytes([*a, *b, *c, *d]))),
                _ => Err(KernelFault::Damaged("its PVH entry is no 32-bit address")),
            };
        }
        rest = body
            .get(value_start + value_size.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    Ok(None)
}

/// Reads a part of the image that must be there.
fn read(image: &Image<'_>, offset: u64, buffer: &mut [u8], what: &'static str) -> Result<(), KernelFault> {
    let needed = offset.saturating_add(buffer.len() as u64);
    if needed > image.len() {
        return Err(KernelFault::Truncated {
            what,
            needed,
            length: image.len(),
        });
    }
    Ok(image.read_at(offset, buffer)?)
}

fn machine_name(machine: u16) -> String {
    match machine {
        3 => "32-bit x86".into(),
        183 => "AArch64".into(),
        243 => "RISC-V".into(),
        22 => "S/390".into(),
        21 => "PowerPC".into(),
        other => format!("machine type {other}"),
    }
}

// The callers' offsets are constants inside of buffers of fixed size.
fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes([bytes[offset], bytes[offset + 1]])
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from(u16_at(bytes, offset)) | u32::from(u16_at(bytes, offset + 2)) << 16
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from(u32_at(bytes, offset)) | u64::from(u32_at(bytes, offset + 4)) << 32
}
