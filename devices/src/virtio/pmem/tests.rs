use std::fs;

use super::*;
use crate::bus::BusDevice;
use crate::limiter::LimiterConfig;
use crate::testing::{BUFFERS, FakeDriver, TempPath};
use crate::virtio::block::{Cache, Engine};

const ANSWER: u64 = BUFFERS + 0x100;
const START: u64 = 5 << 30;

fn pmem(size: usize) -> Pmem {
    let path = TempPath::new("pmem");
    fs::write(path.as_path(), vec![1; size]).unwrap();
    let config = BlockConfig {
        path: path.as_path().to_owned(),
        read_only: false,
        cache: Cache::Writeback,
        engine: Engine::Sync,
        id: "p".to_owned(),
        limit: LimiterConfig::default(),
    };
    Pmem::open(&config).unwrap().placed_at(START)
}

/// The answer to a request, of the bytes that the device wrote.
fn ask(driver: &mut FakeDriver, request: &[u8]) -> (u32, Option<u32>) {
    driver.put(BUFFERS, request);
    driver.put(ANSWER, &[0xee; 4]);
    let used = driver.request(0, &[(BUFFERS, request.len() as u32, false), (ANSWER, 4, true)]);
    let answer = driver.get(ANSWER, 4).try_into().unwrap();
    (u32::from_le_bytes(answer), used)
}

#[test]
fn the_guest_learns_where_it_lies_and_how_long_it_is() {
    for (size, length) in [(512, 2 << 20), (2 << 20, 2 << 20), ((2 << 20) + 1, 4 << 20)] {
        let mut driver = FakeDriver::new(Box::new(pmem(size)));
        let mut space = [0; 24];
        for (index, word) in space.chunks_mut(4).enumerate() {
            driver.transport.read(0x100 + index as u64 * 4, word);
        }
        let number = |at: usize| u64::from_le_bytes(space[at..at + 8].try_into().unwrap());
        assert_eq!((number(0), number(8), number(16)), (START, length, 0), "{size}");
    }
}

#[test]
fn a_flush_is_carried_out_and_anything_else_refused() {
    let pmem = pmem(4096);
    let counters = pmem.counters();
    let mut driver = FakeDriver::new(Box::new(pmem));
    driver.start();
    assert_eq!(ask(&mut driver, &[0, 0, 0, 0]), (SUCCESS, Some(4)));
    assert_eq!(ask(&mut driver, &[1, 0, 0, 0]), (FAILURE, Some(4)));
    assert_eq!(ask(&mut driver, &[0, 0, 0]), (FAILURE, Some(4)), "too short");
    let counted = PmemCounters {
        flushes: 1,
        invalid: 2,
        host_errors: 0,
    };
    assert_eq!(counters.get(), counted);
}

#[test]
fn a_request_without_room_for_the_answer_stops_the_device() {
    let mut driver = FakeDriver::new(Box::new(pmem(4096)));
    driver.start();
    assert_eq!(driver.request(0, &[(BUFFERS, 4, false), (ANSWER, 3, true)]), None);
    driver.start();
    assert_eq!(ask(&mut driver, &[0; 4]), (SUCCESS, Some(4)));
}

#[test]
fn what_has_no_sector_is_no_disk() {
    let path = TempPath::new("pmem");
    fs::write(path.as_path(), [1; 511]).unwrap();
    let config = BlockConfig {
        path: path.as_path().to_owned(),
        read_only: true,
        cache: Cache::Writeback,
        engine: Engine::Sync,
        id: "p".to_owned(),
        limit: LimiterConfig::default(),
    };
    assert!(matches!(
        Pmem::open(&config),
        Err(BlockError::Size { size: 511, .. })
    ));
}
