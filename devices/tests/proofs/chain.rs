//! Chains of descriptors, against the rules of virtio 1.2, 2.7.

use secovia_devices::GuestMemory;
use secovia_devices::virtio::chain::Chain;
use secovia_devices::virtio::device::DeviceError;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;

/// Where the rings are; the first page is theirs.
const DESCRIPTORS: u64 = 0;
const AVAILABLE: u64 = 0x400;
const USED: u64 = 0x800;

/// One descriptor as it lies in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Raw {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

/// Descriptors that lead from one to the other.
pub(crate) fn table(chain: &[Raw]) -> Vec<Raw> {
    let mut table = chain.to_vec();
    let last = table.len() - 1;
    for (raw, next) in table.iter_mut().take(last).zip(1..) {
        raw.flags |= NEXT;
        raw.next = next;
    }
    table
}

/// Takes the chain that begins at `head` from a fresh queue, whose table this is.
pub(crate) fn take(memory: &GuestMemory, table: &[Raw], head: u16) -> Result<Chain, DeviceError> {
    for (raw, at) in table.iter().zip(0u64..) {
        let bits = u128::from(raw.address)
            | u128::from(raw.len) << 64
            | u128::from(raw.flags) << 96
            | u128::from(raw.next) << 112;
        memory
            .write_slice(&bits.to_le_bytes(), GuestAddress(DESCRIPTORS + 16 * at))
            .unwrap();
    }
    // Flags, index and the first entry of the available ring.
    let available = [0, 1, head];
    for (word, at) in available.iter().zip(0u64..) {
        memory
            .write_slice(&word.to_le_bytes(), GuestAddress(AVAILABLE + 2 * at))
            .unwrap();
    }
    let size = (table.len() as u16).next_power_of_two();
    let mut queue = Queue::new(size).unwrap();
    queue.set_desc_table_address(Some(DESCRIPTORS as u32), Some(0));
    queue.set_avail_ring_address(Some(AVAILABLE as u32), Some(0));
    queue.set_used_ring_address(Some(USED as u32), Some(0));
    queue.set_ready(true);
    let mut chain = Chain::new();
    assert!(chain.next(0, &mut queue, memory)?, "there is a request");
    Ok(chain)
}

/// The parts of a chain, as the standard has it; `None` where it breaks a rule.
fn walk(table: &[Raw], size: u16, head: u16, end: u64) -> Option<(Vec<u64>, Vec<u64>)> {
    let (mut readable, mut writable) = (Vec::new(), Vec::new());
    let mut at = head;
    for _ in 0..size {
        let raw = table.get(usize::from(at))?;
        let last = raw.address.checked_add(u64::from(raw.len))?;
        if raw.len > 0 && last > end {
            return None;
        }
        let part = if raw.flags & WRITE != 0 {
            &mut writable
        } else {
            &mut readable
        };
        part.extend(raw.address..last);
        // A device reads before it writes.
        if raw.flags & WRITE == 0 && !writable.is_empty() {
            return None;
        }
        if raw.flags & NEXT == 0 {
            return Some((readable, writable));
        }
        at = raw.next;
    }
    None
}

/// Every table of `descriptors`, from every head, past the end included.
fn every_table(descriptors: &[Raw], count: usize) {
    let end = 0x1000u64;
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), end as usize)]).unwrap();
    // Behind the rings each byte says where it is.
    for at in 0xc00..end {
        memory.write_obj((at % 251) as u8, GuestAddress(at)).unwrap();
    }
    let bytes = |addresses: &[u64]| -> Vec<u8> { addresses.iter().map(|at| (at % 251) as u8).collect() };
    let mut choice = vec![0; count];
    let (mut accepted, mut refused) = (0u64, 0u64);
    loop {
        let table: Vec<Raw> = choice.iter().map(|at: &usize| descriptors[*at]).collect();
        for head in 0..=count as u16 {
            let expected = walk(&table, count as u16, head, end);
            match (take(&memory, &table, head), expected) {
                (Ok(chain), Some((readable, writable))) => {
                    accepted += 1;
                    assert_eq!(chain.head(), head);
                    for (buffers, expected) in [
                        (chain.readable(&memory), readable),
                        (chain.writable(&memory), writable),
                    ] {
                        assert_eq!(buffers.len() as usize, expected.len(), "{table:x?} from {head}");
                        let mut found = vec![0; expected.len()];
                        buffers.read(&mut found).unwrap();
                        assert_eq!(found, bytes(&expected), "{table:x?} from {head}");
                    }
                }
                (Err(_), None) => refused += 1,
                (taken, expected) => panic!("{table:x?} from {head}: {taken:?}, not {expected:?}"),
            }
        }
        // The next table, as an odometer counts.
        let Some(at) = choice.iter().position(|at| at + 1 < descriptors.len()) else {
            break;
        };
        choice[at] += 1;
        choice[..at].fill(0);
    }
    assert!(
        accepted > 100 && refused > 100,
        "{accepted} accepted, {refused} refused"
    );
}

/// Every descriptor of these places, flags and successors.
fn descriptors(places: &[(u64, u32)], nexts: &[u16]) -> Vec<Raw> {
    let mut all = Vec::new();
    for &(address, len) in places {
        for flags in [0, NEXT, WRITE, NEXT | WRITE] {
            // Without NEXT the successor means nothing.
            let nexts = if flags & NEXT == 0 { &nexts[..1] } else { nexts };
            all.extend(nexts.iter().map(|&next| Raw {
                address,
                len,
                flags,
                next,
            }));
        }
    }
    all
}

#[test]
fn every_table_of_two_descriptors() {
    let places = [
        (0xc00, 1),
        (0xc10, 7),
        (0xff8, 8),
        (0xff8, 9),
        (0xfff, 1),
        (0x1000, 1),
        (0x1000, 0),
        (0xc20, 0),
        (u64::MAX, 1),
        (u64::MAX - 3, 4),
        (0xc00, u32::MAX),
        (0x1_0000_0c00, 1),
    ];
    every_table(&descriptors(&places, &[0, 1, 2, u16::MAX]), 2);
}

#[test]
fn every_table_of_four_descriptors() {
    every_table(&descriptors(&[(0xc00, 3), (0x1000, 1)], &[0, 1, 2, 3, 4])[..], 4);
}
