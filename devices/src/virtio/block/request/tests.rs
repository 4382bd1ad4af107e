use super::*;
use crate::GuestMemory;
use crate::virtio::chain::Chain;
use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use virtio_queue::mock::MockSplitQueue;
use virtio_queue::{Queue, QueueT as _};
use vm_memory::{Bytes, GuestAddress};

const ALL: Limits = Limits {
    sectors: 100,
    data: 64 * 512,
    read_only: false,
    features: (1 << VIRTIO_BLK_F_FLUSH) | (1 << VIRTIO_BLK_F_DISCARD) | (1 << VIRTIO_BLK_F_WRITE_ZEROES),
};

/// What became of a request, without its memory.
#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    Read(u64, u32),
    Write(u64, u32),
    Flush,
    Id(u32),
    Discard(Vec<Range>),
    WriteZeroes(Vec<Range>),
}

/// Parses a request with `readable` as the bytes of its readable part, split over descriptors of `piece` bytes, and
/// room for `room` bytes.
fn parsed(readable: &[u8], piece: usize, room: u32, limits: &Limits) -> Result<Parsed, Status> {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap();
    let mock = MockSplitQueue::create(&memory, GuestAddress(0), 64);
    memory.write_slice(readable, GuestAddress(0x1_0000)).unwrap();
    let mut descriptors: Vec<(u64, u32, u16)> = Vec::new();
    for (index, bytes) in readable.chunks(piece).enumerate() {
        descriptors.push((0x1_0000 + (index * piece) as u64, bytes.len() as u32, 0));
    }
    descriptors.push((0x8_0000, room, 2));
    let last = descriptors.len() - 1;
    for (index, (address, len, flags)) in descriptors.into_iter().enumerate() {
        let flags = flags | u16::from(index < last);
        let descriptor = Descriptor::new(address, len, flags, index as u16 + 1);
        mock.desc_table()
            .store(index as u16, RawDescriptor::from(descriptor))
            .unwrap();
    }
    mock.avail().idx().store(1);
    let mut queue: Queue = mock.create_queue().unwrap();
    assert!(queue.ready());
    let mut chain = Chain::new();
    assert!(chain.next(0, &mut queue, &memory).unwrap());
    let request = parse(chain.readable(&memory), chain.writable(&memory), limits)?;
    Ok(match request {
        Request::Read { offset, data } => Parsed::Read(offset, data.len()),
        Request::Write { offset, data } => Parsed::Write(offset, data.len()),
        Request::Flush => Parsed::Flush,
        Request::Id { data } => Parsed::Id(data.len()),
        Request::Discard { segments } => Parsed::Discard(segments.iter().copied().collect()),
        Request::WriteZeroes { segments } => Parsed::WriteZeroes(segments.iter().copied().collect()),
    })
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend([0xab; 4]);
    bytes.extend(sector.to_le_bytes());
    bytes
}

fn ranges(kind: u32, segments: &[(u64, u32, u32)]) -> Vec<u8> {
    let mut bytes = header(kind, 0);
    for (sector, count, flags) in segments {
        bytes.extend(sector.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
    }
    bytes
}

#[test]
fn a_header_may_lie_in_any_pieces() {
    for piece in [1, 5, 16, 1000] {
        let request = parsed(&header(VIRTIO_BLK_T_IN, 3), piece, 1024, &ALL);
        assert_eq!(request, Ok(Parsed::Read(3 * 512, 1024)));
        let mut write = header(VIRTIO_BLK_T_OUT, 7);
        write.extend([0; 512]);
        if piece >= 16 {
            assert_eq!(parsed(&write, piece, 0, &ALL), Ok(Parsed::Write(7 * 512, 512)));
        }
    }
    assert_eq!(
        parsed(&header(VIRTIO_BLK_T_IN, 0)[..15], 16, 512, &ALL),
        Err(Status::IoErr)
    );
}

#[test]
fn reads_and_writes_stay_inside_of_the_disk_in_whole_sectors() {
    for (sector, len, fits) in [
        (36u64, 64 * 512u32, true),
        (0, 65 * 512, false),
        (99, 512, true),
        (100, 0, true),
        (99, 1024, false),
        (100, 512, false),
        (u64::MAX, 512, false),
        (u64::MAX / 512, 1024, false),
        (0, 511, false),
        (0, 513, false),
        (1 << 55, 0, false),
    ] {
        let request = parsed(&header(VIRTIO_BLK_T_IN, sector), 16, len, &ALL);
        let expected = if fits {
            Ok(Parsed::Read(sector * 512, len))
        } else {
            Err(Status::IoErr)
        };
        assert_eq!(request, expected, "{len} bytes at sector {sector}");
        let mut write = header(VIRTIO_BLK_T_OUT, sector);
        write.resize(16 + len as usize, 0);
        assert_eq!(parsed(&write, 0x2_0000, 0, &ALL).is_ok(), fits);
    }
}

#[test]
fn a_read_only_disk_refuses_whatever_would_change_it() {
    let limits = Limits {
        read_only: true,
        ..ALL
    };
    for kind in [VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES] {
        assert_eq!(
            parsed(&ranges(kind, &[(0, 1, 0)]), 64, 0, &limits),
            Err(Status::IoErr),
            "{kind}"
        );
    }
    assert!(parsed(&header(VIRTIO_BLK_T_IN, 0), 16, 512, &limits).is_ok());
    assert_eq!(
        parsed(&header(VIRTIO_BLK_T_FLUSH, 0), 16, 0, &limits),
        Ok(Parsed::Flush)
    );
}

#[test]
fn what_was_not_negotiated_or_is_unknown_is_unsupported() {
    let nothing = Limits { features: 0, ..ALL };
    for kind in [
        VIRTIO_BLK_T_FLUSH,
        VIRTIO_BLK_T_DISCARD,
        VIRTIO_BLK_T_WRITE_ZEROES,
    ] {
        let request = parsed(&ranges(kind, &[(0, 1, 0)]), 64, 0, &nothing);
        assert_eq!(request, Err(Status::Unsupported));
    }
    // Secure erase, lifetime, zones, SCSI, and nonsense.
    for kind in [2, 10, 14, 15, 16, 0xffff_ffff] {
        let request = parsed(&header(kind, 0), 16, 512, &ALL);
        assert_eq!(request, Err(Status::Unsupported), "{kind}");
    }
}

#[test]
fn the_serial_number_needs_its_20_bytes() {
    let request = header(VIRTIO_BLK_T_GET_ID, 0);
    assert_eq!(parsed(&request, 16, 20, &ALL), Ok(Parsed::Id(20)));
    assert_eq!(parsed(&request, 16, 512, &ALL), Ok(Parsed::Id(20)));
    assert_eq!(parsed(&request, 16, 19, &ALL), Err(Status::IoErr));
}

#[test]
fn ranges_are_all_checked_before_any_is_touched() {
    let range = |sector: u64, sectors: u64, unmap| Range {
        offset: sector * 512,
        len: sectors * 512,
        unmap,
    };
    assert_eq!(
        parsed(
            &ranges(VIRTIO_BLK_T_DISCARD, &[(0, 8, 0), (92, 8, 0)]),
            7,
            0,
            &ALL
        ),
        Ok(Parsed::Discard(vec![range(0, 8, false), range(92, 8, false)]))
    );
    assert_eq!(
        parsed(
            &ranges(VIRTIO_BLK_T_WRITE_ZEROES, &[(5, 0, 1), (6, 1, 0)]),
            64,
            0,
            &ALL
        ),
        Ok(Parsed::WriteZeroes(vec![range(5, 0, true), range(6, 1, false)]))
    );
    for bad in [(93, 8), (100, 1), (u64::MAX, 1), (0, u32::MAX)] {
        for kind in [VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES] {
            let request = ranges(kind, &[(0, 8, 0), (bad.0, bad.1, 0)]);
            assert_eq!(parsed(&request, 64, 0, &ALL), Err(Status::IoErr), "{bad:?}");
        }
    }
    // UNMAP belongs to WRITE_ZEROES; other flags to nobody.
    for (kind, flags) in [
        (VIRTIO_BLK_T_DISCARD, 1),
        (VIRTIO_BLK_T_DISCARD, 2),
        (VIRTIO_BLK_T_WRITE_ZEROES, 2),
    ] {
        let request = ranges(kind, &[(0, 1, flags)]);
        assert_eq!(parsed(&request, 64, 0, &ALL), Err(Status::Unsupported));
    }
}

#[test]
fn the_number_and_size_of_ranges_is_limited() {
    let big = Limits {
        sectors: u64::MAX / 512,
        ..ALL
    };
    let kind = VIRTIO_BLK_T_DISCARD;
    assert!(parsed(&ranges(kind, &[(0, 1, 0); 16]), 0x1000, 0, &big).is_ok());
    for bad in [
        ranges(kind, &[(0, 1, 0); 17]),
        ranges(kind, &[]),
        ranges(kind, &[(0, 1, 0)])[..31].to_vec(),
        ranges(kind, &[(0, MAX_DISCARD_SECTORS + 1, 0)]),
        ranges(VIRTIO_BLK_T_WRITE_ZEROES, &[(0, MAX_ZERO_SECTORS + 1, 0)]),
    ] {
        assert_eq!(parsed(&bad, 0x1000, 0, &big), Err(Status::IoErr));
    }
    assert!(parsed(&ranges(kind, &[(0, MAX_DISCARD_SECTORS, 0)]), 64, 0, &big).is_ok());
}

/// Every sector, count and capacity at or near an edge, against arithmetic that cannot overflow.
#[test]
fn no_range_leaves_the_disk() {
    let near = |edge: u64| (0..5).map(move |by| edge.wrapping_add(by).wrapping_sub(2));
    let edges: Vec<u64> = [0, 1 << 22, 1 << 32, u64::MAX / SECTOR, 1 << 63]
        .into_iter()
        .flat_map(near)
        .collect();
    for &sectors in &edges {
        let limits = Limits { sectors, ..ALL };
        for &sector in &edges {
            for &count in &edges {
                let end = u128::from(sector) + u128::from(count);
                let offset = u128::from(sector) * u128::from(SECTOR);
                // A disk of more than 2^64 bytes there is not; where one were, an offset still would not wrap.
                let expected = (end <= u128::from(sectors))
                    .then(|| u64::try_from(offset).ok())
                    .flatten();
                assert_eq!(
                    inside(sector, count, &limits).ok(),
                    expected,
                    "{count} from {sector} of {sectors}"
                );
            }
        }
    }
}
