//! Buffers of one chain: which of them are memory, and which bytes they lead to.

use secovia_devices::GuestMemory;
use secovia_devices::virtio::chain::{Buffers, Chain};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::chain::{Raw, WRITE, table, take};

/// Where memory is, beside the page with the rings: two regions that touch, a hole, one more, and one that ends with
/// the last address that a region may have.
const REGIONS: [(u64, usize); 4] = [(0x1000, 4), (0x1004, 4), (0x100a, 4), (u64::MAX - 8, 8)];

fn memory() -> GuestMemory {
    let mut ranges = vec![(GuestAddress(0), 0x1000)];
    ranges.extend(REGIONS.map(|(base, len)| (GuestAddress(base), len)));
    let memory = GuestMemory::from_ranges(&ranges).unwrap();
    for address in addresses().filter(|address| is_memory(*address)) {
        memory.write_obj(mark(address), GuestAddress(address)).unwrap();
    }
    memory
}

/// No two bytes near each other are alike.
fn mark(address: u64) -> u8 {
    (address as u8).wrapping_mul(7).wrapping_add(1)
}

/// All addresses in and around the regions.
fn addresses() -> impl Iterator<Item = u64> + Clone {
    (0xffe..=0x1010).chain(u64::MAX - 12..=u64::MAX)
}

fn is_memory(address: u64) -> bool {
    address < 0x1000
        || REGIONS
            .iter()
            .any(|(base, len)| address.checked_sub(*base).is_some_and(|at| at < *len as u64))
}

/// Whether all `len` bytes from `address` on are memory.
fn all_memory(address: u64, len: u32) -> bool {
    // Nothing that long is memory, and counting it byte by byte would take for ever.
    len < 0x2000 && (0..u64::from(len)).all(|at| address.checked_add(at).is_some_and(is_memory))
}

fn bytes(buffers: Buffers<'_>) -> Vec<u8> {
    let mut bytes = vec![0; buffers.len() as usize];
    buffers.read(&mut bytes).unwrap();
    let mut pieces = Vec::new();
    for slice in buffers.slices() {
        let slice = slice.unwrap();
        let mut piece = vec![0; slice.len()];
        slice.copy_to(&mut piece);
        pieces.extend(piece);
    }
    assert_eq!(pieces, bytes, "reading and walking give the same");
    bytes
}

#[test]
fn a_buffer_is_accepted_if_all_of_it_is_memory_and_leads_there() {
    let memory = memory();
    let lengths = (0..=16).chain([
        0xfff,
        0x1000,
        0x1008,
        0x7fff_ffff,
        0x8000_0000,
        u32::MAX - 1,
        u32::MAX,
    ]);
    for address in addresses().chain([0x8000_0000, 1 << 32, 1 << 63]) {
        for len in lengths.clone() {
            let expected = all_memory(address, len);
            if len > 0 {
                assert_eq!(
                    GuestMemoryBackend::check_range(&memory, GuestAddress(address), len as usize),
                    expected
                );
            }
            for flags in [0, WRITE] {
                let taken = take(
                    &memory,
                    &[Raw {
                        address,
                        len,
                        flags,
                        next: 0,
                    }],
                    0,
                );
                // A descriptor without a byte leads nowhere, wherever that is.
                assert_eq!(taken.is_ok(), expected || len == 0, "{address:#x}+{len:#x}");
                let Ok(chain) = taken else {
                    continue;
                };
                let (full, empty) = match flags {
                    0 => (chain.readable(&memory), chain.writable(&memory)),
                    _ => (chain.writable(&memory), chain.readable(&memory)),
                };
                assert!(empty.is_empty() && empty.slices().next().is_none());
                let expected: Vec<u8> = (0..u64::from(len)).map(|at| mark(address + at)).collect();
                if address >= 0x1000 {
                    assert_eq!(bytes(full), expected, "{address:#x}+{len:#x}");
                }
            }
        }
    }
}

/// Every way to cut a chain of three pieces, some of them empty or across two regions, into three.
#[test]
fn a_buffer_may_be_cut_anywhere() {
    let memory = memory();
    for lens in (0..5u32).flat_map(|a| (0..5u32).flat_map(move |b| (0..4u32).map(move |c| [a, b, c]))) {
        let starts = [0x1000u64, 0x1002, 0x100a];
        let raw: Vec<Raw> = starts
            .iter()
            .zip(lens)
            .map(|(address, len)| Raw {
                address: *address,
                len,
                flags: 0,
                next: 0,
            })
            .collect();
        let chain: Chain = take(&memory, &table(&raw), 0).unwrap();
        let whole: Vec<u8> = starts
            .iter()
            .zip(lens)
            .flat_map(|(start, len)| (0..u64::from(len)).map(move |at| mark(start + at)))
            .collect();
        let all = chain.readable(&memory);
        assert_eq!(bytes(all), whole);
        let len = all.len();
        for first in 0..=len {
            let (head, tail) = all.split_at(first).unwrap();
            for second in 0..=tail.len() {
                let (middle, end) = tail.split_at(second).unwrap();
                assert_eq!([bytes(head), bytes(middle), bytes(end)].concat(), whole);
                assert_eq!((head.len(), middle.len()), (first, second));
            }
            assert!(tail.split_at(len - first + 1).is_none());
            assert!(tail.split_at(u32::MAX).is_none());
            // One byte more than there is.
            assert!(tail.read(&mut vec![0; (len - first) as usize + 1]).is_err());
        }
    }
}

/// A write changes the bytes that it should, and no other.
#[test]
fn a_write_stays_inside() {
    let memory = memory();
    for address in addresses() {
        for len in 1..=8 {
            let Ok(chain) = take(
                &memory,
                &[Raw {
                    address,
                    len,
                    flags: WRITE,
                    next: 0,
                }],
                0,
            ) else {
                continue;
            };
            if address < 0x1000 {
                continue;
            }
            let room = chain.writable(&memory);
            assert!(room.write(&vec![0xee; len as usize + 1]).is_err());
            for skip in 0..len {
                let (_, tail) = room.split_at(skip).unwrap();
                tail.write(&vec![0xee; (len - skip) as usize]).unwrap();
                for other in addresses().filter(|address| is_memory(*address) && *address >= 0x1000) {
                    let inside = other
                        .checked_sub(address)
                        .is_some_and(|at| (u64::from(skip)..u64::from(len)).contains(&at));
                    let byte: u8 = memory.read_obj(GuestAddress(other)).unwrap();
                    assert_eq!(
                        byte,
                        if inside { 0xee } else { mark(other) },
                        "{address:#x}+{len}, {other:#x}"
                    );
                    memory.write_obj(mark(other), GuestAddress(other)).unwrap();
                }
            }
        }
    }
}
