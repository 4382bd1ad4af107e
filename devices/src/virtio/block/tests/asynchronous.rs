//! The engine Async. A pipe in the place of the disk's file holds a read up until the test gives it bytes.

use std::io::{PipeWriter, Write};
use std::thread;

use super::*;
use crate::virtio::mmio::offset;
use crate::virtio::transport::Transport;

fn on_a_ring(path: &TempPath) -> BlockConfig {
    BlockConfig {
        engine: Engine::Async,
        ..config(path)
    }
}

/// A disk whose reads end when the other end of its pipe gets bytes.
fn held_up(path: &TempPath) -> (FakeDriver, BlockHandle, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut block = Block::open(&on_a_ring(path)).unwrap();
    let file = File::from(std::os::fd::OwnedFd::from(reader));
    block.core.flights = Some(Flights::new(&file).unwrap());
    let handle = block.handle();
    let mut driver = FakeDriver::new(Box::new(block));
    driver.start();
    (driver, handle, writer)
}

/// Adds a read of sector `sector` into a place of its own, which it returns.
fn add_read(driver: &mut FakeDriver, sector: u64) -> u64 {
    let place = DATA + sector * 0x1000;
    driver.put(place, &[u64::from(IN), sector].map(u64::to_le_bytes).concat());
    driver.put(place + 0x100, &[0xee]);
    let buffers = [
        (place, 16, false),
        (place + 0x200, 512, true),
        (place + 0x100, 1, true),
    ];
    driver.add(0, &buffers);
    place
}

fn begin_read(driver: &mut FakeDriver) -> u64 {
    let place = add_read(driver, 0);
    driver.notify(0);
    assert_eq!(driver.used(0), None, "the disk has not answered yet");
    place
}

#[test]
fn what_holds_for_one_engine_holds_for_the_other() {
    ENGINE.set(Engine::Async);
    the_guest_reads_what_is_on_the_disk();
    what_the_guest_writes_is_on_the_disk_and_nowhere_else();
    a_request_of_more_pieces_than_one_system_call_takes_is_whole();
    requests_outside_of_the_disk_fail_and_touch_nothing();
    a_file_that_became_shorter_is_an_io_error();
    a_request_that_cannot_be_answered_needs_a_reset();
    a_short_header_is_answered_with_an_error();
    the_serial_number_is_the_drives_name_cut_to_20_bytes();
    discard_gives_the_blocks_back();
    write_zeroes_zeroes_exactly_its_ranges();
    one_bad_range_spoils_the_request();
    a_read_only_disk_is_never_written();
    flush_is_offered_only_where_it_reaches_the_disk();
}

#[test]
fn more_requests_than_the_ring_holds_are_all_answered_once() {
    let path = disk_file(256);
    let block = Block::open(&on_a_ring(&path)).unwrap();
    let handle = block.handle();
    let mut driver = FakeDriver::new(Box::new(block));
    driver.start();
    for round in 0..20 {
        let places: Vec<u64> = (0..85).map(|sector| add_read(&mut driver, sector)).collect();
        driver.notify(0);
        for _ in &places {
            assert_eq!(driver.wait_used(0).1, 513);
        }
        assert_eq!(driver.used(0), None);
        for (sector, place) in places.iter().enumerate() {
            assert_eq!(driver.get(place + 0x100, 1), [OK], "round {round}");
            assert_eq!(driver.get(place + 0x200, 512), vec![sector as u8; 512]);
            driver.put(place + 0x200, &[0xff; 512]);
        }
    }
    let counters = handle.counters();
    assert_eq!((counters.served, counters.reads), (1700, 1700));
    assert!(counters.full >= 20, "{counters:?}");
}

#[test]
fn a_slow_request_holds_up_no_other_and_its_end_is_announced() {
    let path = disk_file(8);
    let (mut driver, _, mut pipe) = held_up(&path);
    let place = begin_read(&mut driver);
    // The serial number needs no disk.
    assert_eq!(request(&mut driver, GET_ID, 0, &[(DATA + 0x800, 20, true)]).0, OK);
    // The driver's event and the alarm are not what tells of it.
    let [_, event, _] = driver.transport.host_fds()[..] else {
        panic!("three events");
    };
    let mut count = [0; 8];
    while nix::unistd::read(borrowed(event), &mut count).is_ok() {}
    pipe.write_all(&[0x5a; 512]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while nix::unistd::read(borrowed(event), &mut count).is_err() {
        assert!(Instant::now() < deadline, "nobody is told");
        thread::sleep(Duration::from_millis(1));
    }
    driver.transport.handle_host();
    assert_eq!(driver.used(0).map(|used| used.1), Some(513));
    assert_eq!(driver.get(place + 0x200, 512), [0x5a; 512]);
}

fn borrowed(fd: RawFd) -> std::os::fd::BorrowedFd<'static> {
    crate::ring::tests::borrowed(fd)
}

#[test]
fn an_answer_in_parts_is_put_together() {
    let path = disk_file(8);
    let (mut driver, _, mut pipe) = held_up(&path);
    let place = begin_read(&mut driver);
    for part in 0..4u8 {
        pipe.write_all(&[part; 128]).unwrap();
        thread::sleep(Duration::from_millis(2));
        driver.transport.handle_host();
    }
    assert_eq!(driver.wait_used(0).1, 513);
    let expected: Vec<u8> = (0..4).flat_map(|part| [part; 128]).collect();
    assert_eq!(driver.get(place + 0x200, 512), expected);
}

#[test]
fn nothing_is_written_to_memory_after_a_pause() {
    let path = disk_file(8);
    let (mut driver, _, mut pipe) = held_up(&path);
    let place = begin_read(&mut driver);
    assert!(
        !driver.transport.settle(Duration::from_millis(20)),
        "a read is under way"
    );
    pipe.write_all(&[0x5a; 512]).unwrap();
    assert!(driver.transport.settle(Duration::from_secs(10)));
    assert_eq!(driver.get(place + 0x200, 512), [0x5a; 512]);
    assert_eq!(driver.used(0), None, "a machine that holds still is told nothing");
    driver.transport.handle_host();
    assert_eq!(driver.used(0).map(|used| used.1), Some(513));
}

/// Gives the read its bytes a while later.
fn later(mut pipe: PipeWriter) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        pipe.write_all(&[0x5a; 512]).unwrap();
    })
}

#[test]
fn a_reset_waits_for_the_disk_and_leaves_a_device_as_new() {
    let path = disk_file(8);
    let (mut driver, _, pipe) = held_up(&path);
    let place = begin_read(&mut driver);
    let helper = later(pipe.try_clone().unwrap());
    driver.write(offset::STATUS, 0);
    assert_eq!(
        driver.get(place + 0x200, 512),
        [0x5a; 512],
        "before the reset returns"
    );
    assert_eq!(driver.get(place + 0x100, 1), [0xee], "it is not answered");
    helper.join().unwrap();
    driver.start();
    let place = begin_read(&mut driver);
    let mut pipe = pipe;
    pipe.write_all(&[0xa5; 512]).unwrap();
    assert_eq!(driver.wait_used(0).1, 513);
    assert_eq!(driver.get(place + 0x200, 512), [0xa5; 512]);
}

#[test]
fn a_queue_that_is_taken_back_and_a_device_that_goes_wait_for_the_disk() {
    let path = disk_file(8);
    let (mut driver, _, pipe) = held_up(&path);
    let place = begin_read(&mut driver);
    let helper = later(pipe.try_clone().unwrap());
    driver.write(offset::QUEUE_SEL, 0);
    driver.write(offset::QUEUE_READY, 0);
    assert_eq!(driver.get(place + 0x200, 512), [0x5a; 512]);
    driver.transport.handle_host();
    assert_eq!(driver.get(place + 0x100, 1), [0xee], "the queue is the driver's");
    helper.join().unwrap();

    driver.start();
    let place = begin_read(&mut driver);
    let helper = later(pipe);
    let memory = driver.memory.clone();
    drop(driver);
    let mut read = [0; 512];
    vm_memory::Bytes::read_slice(&memory, &mut read, vm_memory::GuestAddress(place + 0x200)).unwrap();
    assert_eq!(read, [0x5a; 512], "before it is gone");
    helper.join().unwrap();
}

#[test]
fn another_disk_takes_over_when_the_old_one_is_done() {
    let (first, second) = (disk_file(8), disk_file(16));
    let (mut driver, handle, mut pipe) = held_up(&first);
    let old = begin_read(&mut driver);
    handle.replace(Disk::open(&on_a_ring(&second)).unwrap());
    // Outside of the old disk.
    let new = add_read(&mut driver, 12);
    driver.notify(0);
    thread::sleep(Duration::from_millis(5));
    driver.transport.handle_host();
    assert_eq!(driver.used(0), None, "it waits for the other disk");
    pipe.write_all(&[0x5a; 512]).unwrap();
    assert_eq!((driver.wait_used(0).1, driver.wait_used(0).1), (513, 513));
    assert_eq!(driver.get(old + 0x200, 512), [0x5a; 512]);
    assert_eq!(driver.get(new + 0x200, 512), [12; 512]);
}

/// Whoever resets the device waits for all of it.
#[test]
fn all_that_is_under_way_moves_no_more_than_one_request_may() {
    let path = disk_file(8);
    let file = File::options().write(true).open(path.as_path()).unwrap();
    file.set_len(1 << 30).unwrap();
    let (mut driver, handle, pipe) = held_up(&path);
    // 80 MiB each, into the same place: three of them are within the 254 that one may move, four are not.
    let mut buffers = vec![(HEADER, 16, false)];
    buffers.extend([(DATA + 0x1000, 1 << 20, true); 80]);
    buffers.push((STATUS, 1, true));
    driver.put(HEADER, &[0; 16]);
    for _ in 0..3 {
        driver.add(0, &buffers);
    }
    driver.notify(0);
    assert_eq!((handle.counters().reads, handle.counters().full), (3, 0));
    // The queue has descriptors for a short one.
    buffers.truncate(1);
    buffers.extend([(DATA + 0x1000, 2 << 20, true); 8]);
    buffers.push((STATUS, 1, true));
    driver.add(0, &buffers);
    driver.notify(0);
    assert_eq!((handle.counters().reads, handle.counters().full), (3, 1));
    drop(pipe);
    for _ in 0..4 {
        assert_eq!(driver.wait_used(0).1, 1, "the pipe has come to its end");
    }
}

#[test]
fn a_limit_holds_requests_back_before_they_are_begun() {
    let path = disk_file(8);
    let block = Block::open(&BlockConfig {
        limit: LimiterConfig {
            operations: Some(BucketConfig {
                size: 2,
                one_time_burst: 0,
                refill_time: 100,
            }),
            bandwidth: None,
        },
        ..on_a_ring(&path)
    })
    .unwrap();
    let handle = block.handle();
    let mut driver = FakeDriver::new(Box::new(block));
    driver.start();
    let begun = Instant::now();
    for sector in 0..6 {
        add_read(&mut driver, sector);
    }
    driver.notify(0);
    for _ in 0..6 {
        assert_eq!(driver.wait_used(0).1, 513);
    }
    // Two at once, and four that come one by one.
    assert!(
        begun.elapsed() >= Duration::from_millis(195),
        "{:?}",
        begun.elapsed()
    );
    assert!(handle.counters().limited > 0);
}
