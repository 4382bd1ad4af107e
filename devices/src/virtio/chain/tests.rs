use std::time::Duration;

use super::*;
use crate::virtio::device::Share;
use virtio_queue::desc::RawDescriptor;
use virtio_queue::mock::MockSplitQueue;
use vm_memory::Bytes;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

fn memory() -> GuestMemory {
    // Two regions that touch, then a hole: a buffer may cross 0x1_0000, none may cross 0x2_0000.
    GuestMemory::from_ranges(&[
        (GuestAddress(0), 0x1_0000),
        (GuestAddress(0x1_0000), 0x1_0000),
        (GuestAddress(0x10_0000), 0x1000),
    ])
    .unwrap()
}

/// Puts `descriptors` (address, length, flags) into a fresh queue of 8 as one chain.
fn take(memory: &GuestMemory, descriptors: &[(u64, u32, u16)]) -> Result<Chain, DeviceError> {
    let mock = MockSplitQueue::create(memory, GuestAddress(0), 8);
    for (index, (address, len, flags)) in descriptors.iter().enumerate() {
        let next = u16::try_from(index + 1).unwrap();
        let flags = flags
            | if usize::from(next) < descriptors.len() {
                NEXT
            } else {
                0
            };
        mock.desc_table()
            .store(
                index as u16,
                RawDescriptor::from(Descriptor::new(*address, *len, flags, next)),
            )
            .unwrap();
    }
    take_from(memory, &mock)
}

fn take_from(memory: &GuestMemory, mock: &MockSplitQueue<'_, GuestMemory>) -> Result<Chain, DeviceError> {
    mock.avail().ring().ref_at(0).unwrap().store(0);
    mock.avail().idx().store(1);
    let mut queue: Queue = mock.create_queue().unwrap();
    let mut chain = Chain::new();
    assert!(chain.next(3, &mut queue, memory)?);
    Ok(chain)
}

fn reason(result: Result<Chain, DeviceError>) -> &'static str {
    match result {
        Err(DeviceError::Malformed { queue: 3, reason }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn parts_are_read_and_written_across_descriptors_and_regions() {
    let memory = memory();
    memory.write_slice(b"hello", GuestAddress(0x4000)).unwrap();
    memory.write_slice(b" world", GuestAddress(0x5000)).unwrap();
    let chain = take(
        &memory,
        &[
            (0x4000, 5, 0),
            (0x7000, 0, 0),
            (0x5000, 6, 0),
            (0xfffe, 4, WRITE),
            (0x6000, 4, WRITE),
        ],
    )
    .unwrap();
    let readable = chain.readable(&memory);
    assert_eq!(readable.len(), 11);
    let mut text = [0; 11];
    readable.read(&mut text).unwrap();
    assert_eq!(&text, b"hello world");

    let (first, rest) = readable.split_at(3).unwrap();
    let mut three = [0; 3];
    first.read(&mut three).unwrap();
    assert_eq!(&three, b"hel");
    let (middle, end) = rest.split_at(4).unwrap();
    let mut four = [0; 4];
    middle.read(&mut four).unwrap();
    assert_eq!(&four, b"lo w");
    assert_eq!(end.len(), 4);
    assert_eq!(end.read_obj::<u32>().unwrap(), u32::from_le_bytes(*b"orld"));
    assert!(end.split_at(5).is_none());
    assert!(end.read(&mut [0; 5]).is_err());

    let writable = chain.writable(&memory);
    assert_eq!(writable.len(), 8);
    // The first of the two descriptors lies across two regions: three pieces on the host.
    assert_eq!(writable.slices().count(), 3);
    writable.write(b"abcdef").unwrap();
    let mut crossing = [0; 4];
    memory.read_slice(&mut crossing, GuestAddress(0xfffe)).unwrap();
    assert_eq!(&crossing, b"abcd");
    let mut after = [0; 3];
    memory.read_slice(&mut after, GuestAddress(0x6000)).unwrap();
    assert_eq!(&after, b"ef\0");
}

#[test]
fn a_write_that_does_not_fit_writes_nothing() {
    let memory = memory();
    let chain = take(&memory, &[(0x4000, 4, WRITE)]).unwrap();
    assert!(chain.writable(&memory).write(b"12345").is_err());
    assert_eq!(memory.read_obj::<u32>(GuestAddress(0x4000)).unwrap(), 0);
}

#[test]
fn buffers_outside_of_memory_are_refused_before_anything_is_touched() {
    let memory = memory();
    for bad in [
        (0x1_ffff, 2),
        (0x8_0000, 1),
        (u64::MAX, 2),
        (0x10_0000, 0x1001),
        (0, u32::MAX - 4),
    ] {
        let refused = take(&memory, &[(0x4000, 4, 0), (bad.0, bad.1, WRITE)]);
        assert_eq!(reason(refused), "a descriptor lies outside of memory", "{bad:x?}");
    }
}

#[test]
fn a_readable_buffer_after_a_writable_one_is_refused() {
    let memory = memory();
    let refused = take(&memory, &[(0x4000, 4, WRITE), (0x5000, 4, 0)]);
    assert_eq!(reason(refused), "a readable descriptor follows a writable one");
}

#[test]
fn lengths_that_overflow_are_refused() {
    let big = GuestMemory::from_ranges(&[(GuestAddress(0), 0x2_0000), (GuestAddress(1 << 32), 0xc000_0000)])
        .unwrap();
    let refused = take(&big, &[(1 << 32, 0xc000_0000, 0), (1 << 32, 0x4000_0000, WRITE)]);
    // virtio-queue stops at 4 GiB by itself; what counts is that the chain is refused.
    assert!(!reason(refused).is_empty());
}

#[test]
fn loops_and_indices_past_the_table_are_refused() {
    let memory = memory();
    for next in [0, 1, 8, u16::MAX] {
        let mock = MockSplitQueue::create(&memory, GuestAddress(0), 8);
        for index in 0..2 {
            mock.desc_table()
                .store(
                    index,
                    RawDescriptor::from(Descriptor::new(
                        0x4000,
                        4,
                        NEXT,
                        if index == 0 { 1 } else { next },
                    )),
                )
                .unwrap();
        }
        assert_eq!(
            reason(take_from(&memory, &mock)),
            "the chain is empty, broken or a loop"
        );
    }
}

#[test]
fn a_head_past_the_table_and_an_index_that_jumps_are_refused() {
    let memory = memory();
    let mock = MockSplitQueue::create(&memory, GuestAddress(0), 8);
    mock.avail().ring().ref_at(0).unwrap().store(8);
    mock.avail().idx().store(1);
    let mut queue: Queue = mock.create_queue().unwrap();
    let error = Chain::new().next(0, &mut queue, &memory).unwrap_err();
    assert!(matches!(error, DeviceError::Malformed { .. }), "{error}");

    mock.avail().idx().store(1000);
    let error = Chain::new().next(0, &mut queue, &memory).unwrap_err();
    assert!(matches!(error, DeviceError::Queue { .. }), "{error}");
}

#[test]
fn indirect_tables_work_and_broken_ones_are_refused() {
    let memory = memory();
    let table = 0x8000;
    let entries = [(0x4000u64, 4u32, NEXT, 1u16), (0x5000, 8, WRITE, 0)];
    for (index, (address, len, flags, next)) in entries.into_iter().enumerate() {
        let entry = RawDescriptor::from(Descriptor::new(address, len, flags, next));
        memory
            .write_obj(entry, GuestAddress(table + 16 * index as u64))
            .unwrap();
    }
    let chain = take(&memory, &[(table, 32, INDIRECT)]).unwrap();
    assert_eq!(chain.readable(&memory).len(), 4);
    assert_eq!(chain.writable(&memory).len(), 8);

    // No entry, half an entry, outside of memory, longer than the queue.
    for (address, len) in [(table, 0), (table, 24), (0x8_0000, 32), (table, 16)] {
        assert!(!reason(take(&memory, &[(address, len, INDIRECT)])).is_empty());
    }
    for index in 0..9u16 {
        let flags = if index < 8 { NEXT } else { 0 };
        let entry = RawDescriptor::from(Descriptor::new(0x4000, 1, flags, index + 1));
        memory
            .write_obj(entry, GuestAddress(table + 16 * u64::from(index)))
            .unwrap();
    }
    let refused = take(&memory, &[(table, 9 * 16, INDIRECT)]);
    assert_eq!(reason(refused), "the chain is longer than the queue");
    // A table in a table.
    let nested = RawDescriptor::from(Descriptor::new(table, 16, INDIRECT, 0));
    memory.write_obj(nested, GuestAddress(table)).unwrap();
    assert!(!reason(take(&memory, &[(table, 16, INDIRECT)])).is_empty());
}

#[test]
fn an_empty_or_stopped_queue_has_no_request() {
    let memory = memory();
    let mock = MockSplitQueue::create(&memory, GuestAddress(0), 8);
    let mut queue: Queue = mock.create_queue().unwrap();
    assert!(!Chain::new().next(0, &mut queue, &memory).unwrap());
    mock.avail().idx().store(1);
    queue.set_ready(false);
    assert!(!Chain::new().next(0, &mut queue, &memory).unwrap());
}

/// Long enough for whatever a test asks of a call.
const HOUR: Duration = Duration::from_secs(3600);

/// A queue with three requests for 4 bytes each, at 0x4000.
fn three_requests(memory: &GuestMemory) -> MockSplitQueue<'_, GuestMemory> {
    let mock = MockSplitQueue::create(memory, GuestAddress(0), 8);
    for index in 0..3 {
        mock.desc_table()
            .store(
                index,
                RawDescriptor::from(Descriptor::new(0x4000 + u64::from(index) * 16, 4, WRITE, 0)),
            )
            .unwrap();
        mock.avail()
            .ring()
            .ref_at(usize::from(index))
            .unwrap()
            .store(index);
    }
    mock.avail().idx().store(3);
    mock
}

#[test]
fn serve_answers_all_and_asks_for_an_interrupt_once() {
    let memory = memory();
    let mock = three_requests(&memory);
    let queue: Queue = mock.create_queue().unwrap();
    let mut queues = [queue];
    let mut active = Active {
        memory: &memory,
        queues: &mut queues,
        features: 0,
        share: Share::of(HOUR),
    };
    let mut chain = Chain::new();
    let mut count = 0u32;
    let mut answer = |chain: &Chain, memory: &GuestMemory| {
        count += 1;
        chain.writable(memory).write_obj(count)?;
        Ok(4)
    };
    assert!(serve(0, &mut active, &mut chain, &mut answer).unwrap());
    assert!(!serve(0, &mut active, &mut chain, &mut answer).unwrap());
    assert!(!serve(9, &mut active, &mut chain, &mut answer).unwrap());
    assert_eq!(mock.used().idx().load(), 3);
    for index in 0..3u32 {
        let value: u32 = memory
            .read_obj(GuestAddress(0x4000 + u64::from(index) * 16))
            .unwrap();
        assert_eq!(value, index + 1);
        let used = mock.used().ring().ref_at(index as usize).unwrap().load();
        assert_eq!((used.id(), used.len()), (index, 4));
    }
}

#[test]
fn a_call_whose_share_is_over_leaves_the_rest_to_the_next() {
    let memory = memory();
    let mock = three_requests(&memory);
    let mut queues: [Queue; 1] = [mock.create_queue().unwrap()];
    let mut chain = Chain::new();
    for round in 1..=4 {
        let mut active = Active {
            memory: &memory,
            queues: &mut queues,
            features: 0,
            share: Share::of(Duration::ZERO),
        };
        let answer = |chain: &Chain, memory: &GuestMemory| {
            chain.writable(memory).write_obj(round)?;
            Ok(4)
        };
        let interrupt = serve(0, &mut active, &mut chain, answer).unwrap();
        // One request each: no call is for nothing, and none is left when the driver hears nothing more.
        assert_eq!(
            (interrupt, active.share.was_cut_short()),
            (round <= 3, round <= 3)
        );
        assert_eq!(u32::from(mock.used().idx().load()), round.min(3));
    }
}
