use vm_memory::Bytes;

use super::*;
use crate::GuestSlice;
use crate::bus::BusDevice;
use crate::testing::{BUFFERS, FakeDriver};
use crate::virtio::transport::Transport;

const START: u64 = 0x20_0000;
const BLOCK: u64 = 0x1_0000;
const LENGTH: u64 = 0x10_0000;
const ANSWER: u64 = BUFFERS + 0x100;
const CONFIG_INTERRUPT: u32 = 2;

/// Overwrites what it gets, or refuses all of it.
struct Host(bool);

impl Reclaim for Host {
    fn reclaim(&self, slice: &GuestSlice<'_>) -> io::Result<()> {
        if !self.0 {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        slice.copy_from(&vec![0xdd_u8; slice.len()]);
        Ok(())
    }
}

fn driver(host: bool) -> (FakeDriver, MemHandle) {
    let config = MemConfig {
        start: START,
        length: LENGTH,
        block: BLOCK,
    };
    let mem = Mem::new(config, Box::new(Host(host))).unwrap();
    let handle = mem.handle();
    let mut driver = FakeDriver::new(Box::new(mem));
    driver.start();
    (driver, handle)
}

fn wants(driver: &mut FakeDriver, handle: &MemHandle, bytes: u64) {
    handle.request(bytes).unwrap();
    driver.transport.handle_host();
}

fn config(driver: &mut FakeDriver) -> [u64; 7] {
    let mut space = [0; 56];
    for (index, word) in space.chunks_mut(4).enumerate() {
        driver.transport.read(0x100 + index as u64 * 4, word);
    }
    let mut numbers = [0; 7];
    for (number, bytes) in numbers.iter_mut().zip(space.chunks(8)) {
        *number = u64::from_le_bytes(bytes.try_into().unwrap());
    }
    numbers
}

/// Type and state of the answer to a request.
fn ask(driver: &mut FakeDriver, kind: u16, address: u64, count: u16) -> (u16, u16) {
    let mut request = [0; REQUEST_LEN];
    request[..2].copy_from_slice(&kind.to_le_bytes());
    request[8..16].copy_from_slice(&address.to_le_bytes());
    request[16..18].copy_from_slice(&count.to_le_bytes());
    driver.put(BUFFERS, &request);
    driver.put(ANSWER, &[0xee; RESPONSE_LEN]);
    let used = driver.request(0, &[(BUFFERS, 24, false), (ANSWER, 10, true)]);
    assert_eq!(used, Some(10));
    let answer = driver.get(ANSWER, RESPONSE_LEN);
    assert_eq!(answer[2..8], [0; 6]);
    let number = |at: usize| u16::from_le_bytes(answer[at..at + 2].try_into().unwrap());
    (number(0), number(8))
}

#[test]
fn the_guest_gets_as_much_as_it_should_have_and_no_more() {
    let (mut driver, handle) = driver(true);
    assert_eq!(config(&mut driver), [BLOCK, 0, START, LENGTH, LENGTH, 0, 0]);
    assert_eq!(ask(&mut driver, PLUG, START, 1).0, 1, "nothing yet");
    wants(&mut driver, &handle, 3 * BLOCK);
    assert_eq!(driver.read(0x60) & CONFIG_INTERRUPT, CONFIG_INTERRUPT);
    assert_eq!(config(&mut driver)[5..], [0, 3 * BLOCK]);
    assert_eq!(ask(&mut driver, PLUG, START + BLOCK, 2).0, 0);
    assert_eq!(ask(&mut driver, PLUG, START + 4 * BLOCK, 2).0, 1, "too many");
    assert_eq!(ask(&mut driver, PLUG, START + 2 * BLOCK, 1).0, 3, "it has it");
    assert_eq!(ask(&mut driver, PLUG, START + 4 * BLOCK, 1).0, 0);
    assert_eq!(config(&mut driver)[5..], [3 * BLOCK, 3 * BLOCK]);
    assert_eq!((handle.plugged(), handle.requested()), (3 * BLOCK, 3 * BLOCK));
    for (first, count, state) in [(1, 2, 0), (0, 2, 2), (5, 3, 1), (0, 16, 2)] {
        let answer = ask(&mut driver, STATE, START + first * BLOCK, count);
        assert_eq!(answer, (0, state), "{first} {count}");
    }
    // What it has stays its own when it should have less, and through a reset.
    wants(&mut driver, &handle, 0);
    driver.start();
    assert_eq!(config(&mut driver)[5..], [3 * BLOCK, 0]);
}

#[test]
fn what_goes_back_is_the_hosts_and_nothing_else_is() {
    let (mut driver, handle) = driver(true);
    wants(&mut driver, &handle, LENGTH);
    driver.put(START - 1, &vec![1; LENGTH as usize + 2]);
    assert_eq!(ask(&mut driver, PLUG, START, 16).0, 0);
    assert_eq!(ask(&mut driver, UNPLUG, START + BLOCK, 2).0, 0);
    assert_eq!(ask(&mut driver, UNPLUG, START + BLOCK, 1).0, 3, "it has it not");
    assert_eq!(ask(&mut driver, UNPLUG, START, 2).0, 3, "it has not all of it");
    let byte = |driver: &FakeDriver, at: u64| driver.memory.read_obj::<u8>(GuestAddress(at)).unwrap();
    for (at, expected) in [
        (START + BLOCK - 1, 1),
        (START + BLOCK, 0xdd),
        (START + 3 * BLOCK - 1, 0xdd),
        (START + 3 * BLOCK, 1),
    ] {
        assert_eq!(byte(&driver, at), expected, "{at:#x}");
    }
    assert_eq!(handle.plugged(), LENGTH - 2 * BLOCK);
    assert_eq!(ask(&mut driver, UNPLUG_ALL, 0, 0).0, 0);
    assert_eq!(handle.plugged(), 0);
    assert_eq!(byte(&driver, START - 1), 1);
    assert_eq!(byte(&driver, START), 0xdd);
    assert_eq!(byte(&driver, START + LENGTH - 1), 0xdd);
    assert_eq!(byte(&driver, START + LENGTH), 1);
    let counters = handle.counters();
    assert_eq!((counters.plugged.requests, counters.plugged.bytes), (1, LENGTH));
    assert_eq!((counters.unplugged.failed, counters.unplugged.bytes), (2, LENGTH));
}

#[test]
fn requests_about_anything_but_whole_blocks_of_the_region_are_refused() {
    let (mut driver, handle) = driver(true);
    wants(&mut driver, &handle, LENGTH);
    for kind in [PLUG, UNPLUG, STATE] {
        for (address, count) in [
            (START - BLOCK, 1),
            (START, 0),
            (START, 17),
            (START + 1, 1),
            (START + LENGTH, 1),
            (START + LENGTH - BLOCK, 2),
            (u64::MAX - BLOCK + 1, 2),
            (0, u16::MAX),
        ] {
            assert_eq!(
                ask(&mut driver, kind, address, count).0,
                3,
                "{kind} {address:#x} {count}"
            );
        }
    }
    assert_eq!(ask(&mut driver, 4, START, 1).0, 3);
    driver.put(ANSWER, &[0xee; RESPONSE_LEN]);
    assert_eq!(
        driver.request(0, &[(BUFFERS, 23, false), (ANSWER, 10, true)]),
        Some(10)
    );
    assert_eq!(driver.get(ANSWER, 2), [3, 0]);
    assert_eq!(handle.counters().invalid, 26);
    assert_eq!(handle.plugged(), 0);
}

#[test]
fn what_the_host_does_not_take_back_stays_the_guests() {
    let (mut driver, handle) = driver(false);
    wants(&mut driver, &handle, LENGTH);
    assert_eq!(ask(&mut driver, PLUG, START, 4).0, 0);
    assert_eq!(ask(&mut driver, UNPLUG, START, 4).0, 2);
    assert_eq!(ask(&mut driver, UNPLUG_ALL, 0, 0).0, 2);
    assert_eq!(handle.plugged(), 4 * BLOCK);
    assert_eq!(handle.counters().host_errors, 2);
}

#[test]
fn a_request_without_room_for_the_answer_stops_the_device() {
    let (mut driver, _) = driver(true);
    assert_eq!(
        driver.request(0, &[(BUFFERS, 24, false), (ANSWER, 9, true)]),
        None
    );
    driver.start();
    assert_eq!(ask(&mut driver, STATE, START, 1), (0, 1));
}
