//! The smallest ELF file around a piece of code.

/// Bytes of the 32-bit prefix of a guest with a PVH entry; the 64-bit code follows it.
pub(crate) const PVH_PREFIX: usize = 256;

/// How the file says that it is entered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// 64-bit mode, at the start.
    Long,
    /// 32-bit mode at the start (by a Xen note), or 64-bit mode after the prefix.
    Pvh,
}

const HEADER: usize = 64;
const SEGMENT: usize = 56;
const NOTE: usize = 20;
/// Offset of the code, leaving room for the header, two segments and the note.
const CODE: usize = 256;

/// An ELF file with `code` as its one segment, loaded and entered at `address`.
pub(crate) fn wrap(code: &[u8], address: u64, entry: Entry) -> Vec<u8> {
    let segments = if entry == Entry::Pvh { 2 } else { 1 };
    let start = address + if entry == Entry::Pvh { PVH_PREFIX as u64 } else { 0 };
    let mut file = Vec::with_capacity(CODE + code.len());

    file.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.extend_from_slice(&2u16.to_le_bytes()); // ET_EXEC
    file.extend_from_slice(&62u16.to_le_bytes()); // EM_X86_64
    file.extend_from_slice(&1u32.to_le_bytes());
    file.extend_from_slice(&start.to_le_bytes());
    file.extend_from_slice(&(HEADER as u64).to_le_bytes()); // program headers follow
    file.extend_from_slice(&0u64.to_le_bytes());
    file.extend_from_slice(&0u32.to_le_bytes());
    file.extend_from_slice(&(HEADER as u16).to_le_bytes());
    file.extend_from_slice(&(SEGMENT as u16).to_le_bytes());
    file.extend_from_slice(&(segments as u16).to_le_bytes());
    file.extend_from_slice(&[0; 6]); // no sections

    let note = HEADER + segments * SEGMENT;
    segment(&mut file, 1, CODE, address, code.len());
    if entry == Entry::Pvh {
        segment(&mut file, 4, note, 0, NOTE);
        for word in [4u32, 4, 18] {
            file.extend_from_slice(&word.to_le_bytes()); // name size, value size, XEN_ELFNOTE_PHYS32_ENTRY
        }
        file.extend_from_slice(b"Xen\0");
        file.extend_from_slice(&(address as u32).to_le_bytes());
    }

    file.resize(CODE, 0);
    file.extend_from_slice(code);
    file
}

fn segment(file: &mut Vec<u8>, kind: u32, offset: usize, address: u64, length: usize) {
    file.extend_from_slice(&kind.to_le_bytes());
    file.extend_from_slice(&7u32.to_le_bytes());
    for value in [
        offset as u64,
        address,
        address,
        length as u64,
        length as u64,
        0x1000,
    ] {
        file.extend_from_slice(&value.to_le_bytes());
    }
}
