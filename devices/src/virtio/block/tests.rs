use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, Instant};

use super::*;
use crate::limiter::{BucketConfig, LimiterConfig};
use crate::testing::{BUFFERS, FakeDriver, TempPath};
use crate::virtio::transport::Transport;

const HEADER: u64 = BUFFERS;
const STATUS: u64 = BUFFERS + 0x100;
const DATA: u64 = BUFFERS + 0x1000;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

/// A disk file whose every byte is its sector's number, modulo 251.
fn disk_file(sectors: usize) -> TempPath {
    let path = TempPath::new("disk");
    let content: Vec<u8> = (0..sectors * 512).map(pattern).collect();
    fs::write(path.as_path(), content).unwrap();
    path
}

fn pattern(offset: usize) -> u8 {
    (offset / 512 % 251) as u8
}

std::thread_local! {
    /// The engine of this thread's disks: `asynchronous` has the tests hold for the other one too.
    static ENGINE: std::cell::Cell<Engine> = const { std::cell::Cell::new(Engine::Sync) };
}

fn config(path: &TempPath) -> BlockConfig {
    BlockConfig {
        engine: ENGINE.get(),
        path: path.as_path().to_owned(),
        read_only: false,
        cache: Cache::Writeback,
        id: "disk-1".to_owned(),
        limit: LimiterConfig::default(),
    }
}

fn driver(config: &BlockConfig) -> FakeDriver {
    let mut driver = FakeDriver::new(Box::new(Block::open(config).unwrap()));
    driver.start();
    driver
}

/// Sends one request with `data` buffers between header and status; returns status and used length.
fn request(driver: &mut FakeDriver, kind: u32, sector: u64, data: &[(u64, u32, bool)]) -> (u8, u32) {
    let head = [u64::from(kind), sector].map(u64::to_le_bytes).concat();
    driver.put(HEADER, &head);
    driver.put(STATUS, &[0xee]);
    let mut buffers = vec![(HEADER, 16, false)];
    buffers.extend(data);
    buffers.push((STATUS, 1, true));
    let head = driver.add(0, &buffers);
    driver.notify(0);
    let (answered, used) = driver.wait_used(0);
    assert_eq!(answered, u32::from(head));
    (driver.get(STATUS, 1)[0], used)
}

fn ranges(driver: &mut FakeDriver, kind: u32, segments: &[(u64, u32, u32)]) -> u8 {
    let mut bytes = Vec::new();
    for (sector, count, flags) in segments {
        bytes.extend(sector.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
    }
    driver.put(DATA, &bytes);
    request(driver, kind, 0, &[(DATA, bytes.len() as u32, false)]).0
}

#[test]
fn the_guest_reads_what_is_on_the_disk() {
    let path = disk_file(64);
    let mut driver = driver(&config(&path));
    let far = DATA + 0x10000;
    let (status, used) = request(&mut driver, IN, 3, &[(DATA, 700, true), (far, 836, true)]);
    assert_eq!((status, used), (OK, 1537));
    let mut read = driver.get(DATA, 700);
    read.extend(driver.get(far, 836));
    let expected: Vec<u8> = (3 * 512..6 * 512).map(pattern).collect();
    assert_eq!(read, expected);
    assert_eq!(driver.get(DATA + 700, 1), [0]);
}

#[test]
fn what_the_guest_writes_is_on_the_disk_and_nowhere_else() {
    let path = disk_file(64);
    let mut driver = driver(&config(&path));
    driver.put(DATA, &[0xa5; 1024]);
    let (status, used) = request(
        &mut driver,
        OUT,
        10,
        &[(DATA, 100, false), (DATA + 100, 924, false)],
    );
    assert_eq!((status, used), (OK, 1));
    assert_eq!(request(&mut driver, FLUSH, 0, &[]).0, OK);
    let content = fs::read(path.as_path()).unwrap();
    for (offset, &byte) in content.iter().enumerate() {
        let written = (10 * 512..12 * 512).contains(&offset);
        assert_eq!(byte, if written { 0xa5 } else { pattern(offset) }, "at {offset}");
    }
}

#[test]
fn a_request_of_more_pieces_than_one_system_call_takes_is_whole() {
    let path = disk_file(64);
    let mut driver = driver(&config(&path));
    // 128 pieces of 256 bytes, each in its own place, last first.
    let pieces: Vec<_> = (0..128u64)
        .map(|piece| (DATA + (127 - piece) * 0x200, 256, true))
        .collect();
    let (status, used) = request(&mut driver, IN, 0, &pieces);
    assert_eq!((status, used), (OK, 128 * 256 + 1));
    let read: Vec<u8> = pieces.iter().flat_map(|piece| driver.get(piece.0, 256)).collect();
    assert_eq!(read, (0..64 * 512).map(pattern).collect::<Vec<_>>());
}

#[test]
fn requests_outside_of_the_disk_fail_and_touch_nothing() {
    let path = disk_file(8);
    let before = fs::read(path.as_path()).unwrap();
    let mut driver = driver(&config(&path));
    driver.put(DATA, &[0xa5; 1024]);
    for sector in [7, 8, 1 << 40, u64::MAX] {
        assert_eq!(
            request(&mut driver, OUT, sector, &[(DATA, 1024, false)]),
            (IOERR, 1)
        );
        assert_eq!(
            request(&mut driver, IN, sector, &[(DATA, 1024, true)]),
            (IOERR, 1)
        );
    }
    assert_eq!(request(&mut driver, IN, 0, &[(DATA, 100, true)]).0, IOERR);
    assert_eq!(driver.get(DATA, 1024), [0xa5; 1024]);
    assert_eq!(fs::read(path.as_path()).unwrap(), before);
    assert_eq!(request(&mut driver, 99, 0, &[(DATA, 512, true)]).0, UNSUPP);
    assert_eq!(
        request(&mut driver, IN, 7, &[(DATA, 512, true)]).0,
        OK,
        "the device lives on"
    );
}

#[test]
fn a_file_that_became_shorter_is_an_io_error() {
    let path = disk_file(8);
    let mut driver = driver(&config(&path));
    File::options()
        .write(true)
        .open(path.as_path())
        .unwrap()
        .set_len(3 * 512 + 100)
        .unwrap();
    assert_eq!(request(&mut driver, IN, 2, &[(DATA, 512, true)]).0, OK);
    assert_eq!(request(&mut driver, IN, 3, &[(DATA, 512, true)]).0, IOERR);
}

#[test]
fn a_request_that_cannot_be_answered_needs_a_reset() {
    let path = disk_file(8);
    let mut driver = driver(&config(&path));
    driver.put(HEADER, &[0; 16]);
    assert_eq!(driver.request(0, &[(HEADER, 16, false)]), None);
    assert_eq!(driver.transport.counters().needs_reset, 1);
    driver.start();
    assert_eq!(request(&mut driver, IN, 0, &[(DATA, 512, true)]).0, OK);
}

#[test]
fn a_short_header_is_answered_with_an_error() {
    let path = disk_file(8);
    let mut driver = driver(&config(&path));
    driver.put(STATUS, &[0xee]);
    assert_eq!(
        driver.request(0, &[(HEADER, 15, false), (STATUS, 1, true)]),
        Some(1)
    );
    assert_eq!(driver.get(STATUS, 1), [IOERR]);
    assert_eq!(driver.request(0, &[(STATUS, 1, true)]), Some(1));
    assert_eq!(driver.get(STATUS, 1), [IOERR]);
}

#[test]
fn the_serial_number_is_the_drives_name_cut_to_20_bytes() {
    let path = disk_file(8);
    for (id, expected) in [
        ("vda", *b"vda\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        ("a-name-longer-than-twenty-bytes", *b"a-name-longer-than-t"),
    ] {
        let config = BlockConfig {
            id: id.to_owned(),
            ..config(&path)
        };
        let mut driver = driver(&config);
        assert_eq!(request(&mut driver, GET_ID, 0, &[(DATA, 20, true)]), (OK, 21));
        assert_eq!(driver.get(DATA, 20), expected);
    }
}

#[test]
fn discard_gives_the_blocks_back() {
    let path = disk_file(2048);
    let mut driver = driver(&config(&path));
    File::open(path.as_path()).unwrap().sync_all().unwrap();
    let blocks = fs::metadata(path.as_path()).unwrap().blocks();
    assert_eq!(ranges(&mut driver, DISCARD, &[(0, 512, 0), (1024, 512, 0)]), OK);
    assert!(
        fs::metadata(path.as_path()).unwrap().blocks() < blocks,
        "no block came back"
    );
    assert_eq!(fs::metadata(path.as_path()).unwrap().len(), 2048 * 512);
    let file = File::open(path.as_path()).unwrap();
    let mut sector = [0xff; 512];
    file.read_exact_at(&mut sector, 1024 * 512).unwrap();
    assert_eq!(sector, [0; 512]);
    file.read_exact_at(&mut sector, 512 * 512).unwrap();
    assert_eq!(sector, [pattern(512 * 512); 512]);
}

#[test]
fn write_zeroes_zeroes_exactly_its_ranges() {
    for unmap in [0, 1] {
        let path = disk_file(64);
        let mut driver = driver(&config(&path));
        assert_eq!(
            ranges(
                &mut driver,
                WRITE_ZEROES,
                &[(1, 9, unmap), (63, 1, unmap), (5, 0, unmap)]
            ),
            OK
        );
        let content = fs::read(path.as_path()).unwrap();
        assert_eq!(content.len(), 64 * 512);
        for (offset, &byte) in content.iter().enumerate() {
            let zeroed = (512..10 * 512).contains(&offset) || offset >= 63 * 512;
            assert_eq!(byte, if zeroed { 0 } else { pattern(offset) }, "at {offset}");
        }
    }
}

#[test]
fn one_bad_range_spoils_the_request() {
    let path = disk_file(64);
    let before = fs::read(path.as_path()).unwrap();
    let mut driver = driver(&config(&path));
    assert_eq!(ranges(&mut driver, WRITE_ZEROES, &[(0, 8, 0), (60, 8, 0)]), IOERR);
    assert_eq!(ranges(&mut driver, DISCARD, &[(0, 8, 0), (8, 8, 1)]), UNSUPP);
    assert_eq!(fs::read(path.as_path()).unwrap(), before);
}

#[test]
fn a_read_only_disk_is_never_written() {
    let path = disk_file(64);
    let before = fs::read(path.as_path()).unwrap();
    let read_only = BlockConfig {
        read_only: true,
        ..config(&path)
    };
    let mut driver = driver(&read_only);
    let offered = driver.offered();
    assert_ne!(offered & (1 << VIRTIO_BLK_F_RO), 0);
    assert_eq!(
        offered & ((1 << VIRTIO_BLK_F_DISCARD) | (1 << VIRTIO_BLK_F_WRITE_ZEROES)),
        0
    );
    driver.put(DATA, &[0xa5; 512]);
    assert_eq!(request(&mut driver, OUT, 0, &[(DATA, 512, false)]), (IOERR, 1));
    assert_eq!(ranges(&mut driver, WRITE_ZEROES, &[(0, 1, 0)]), IOERR);
    assert_eq!(request(&mut driver, IN, 1, &[(DATA, 512, true)]).0, OK);
    assert_eq!(driver.get(DATA, 512), [1; 512]);
    // A driver that does not accept the feature gets no further.
    let features = offered & !(1 << VIRTIO_BLK_F_RO) & !(1 << 29);
    driver.start_with(features);
    driver.put(DATA, &[0xa5; 512]);
    assert_eq!(request(&mut driver, OUT, 0, &[(DATA, 512, false)]), (IOERR, 1));
    assert_eq!(ranges(&mut driver, DISCARD, &[(0, 1, 0)]), IOERR);
    drop(driver);
    assert_eq!(fs::read(path.as_path()).unwrap(), before);
}

#[test]
fn flush_is_offered_only_where_it_reaches_the_disk() {
    let path = disk_file(8);
    let mut writeback = driver(&config(&path));
    assert_ne!(writeback.offered() & (1 << VIRTIO_BLK_F_FLUSH), 0);
    drop(writeback);
    let cached = BlockConfig {
        cache: Cache::Unsafe,
        ..config(&path)
    };
    let mut cached = driver(&cached);
    assert_eq!(cached.offered() & (1 << VIRTIO_BLK_F_FLUSH), 0);
    assert_eq!(request(&mut cached, FLUSH, 0, &[]).0, UNSUPP);
}

#[test]
fn the_configuration_space_tells_size_and_limits() {
    let path = disk_file(9);
    let mut driver = driver(&config(&path));
    let mut word = |offset| driver.read(crate::virtio::mmio::offset::CONFIG + offset);
    assert_eq!((word(0), word(4)), (9, 0), "capacity");
    assert_eq!((word(8), word(12)), (1 << 20, 254), "size_max, seg_max");
    assert_eq!(word(20), 512, "blk_size");
    assert_eq!(word(32) >> 16, 1, "num_queues");
    assert_eq!((word(36), word(40), word(44)), (1 << 22, 16, 8), "discard");
    assert_eq!((word(48), word(52), word(56)), (1 << 14, 16, 1), "write zeroes");
    assert_eq!((word(60), word(0xe00)), (0, 0), "nothing behind");
}

#[test]
fn a_file_that_is_no_whole_number_of_sectors_is_rounded_down() {
    let path = disk_file(3);
    let file = File::options().write(true).open(path.as_path()).unwrap();
    file.set_len(3 * 512 + 511).unwrap();
    assert_eq!(Block::open(&config(&path)).unwrap().sectors(), 3);
    file.set_len(511).unwrap();
    let error = Block::open(&config(&path)).unwrap_err();
    assert!(matches!(error, BlockError::Size { size: 511, .. }), "{error}");
}

#[test]
fn what_is_no_disk_is_refused_by_name() {
    let missing = TempPath::new("missing");
    let error = Block::open(&config(&missing)).unwrap_err();
    assert!(matches!(error, BlockError::Open { .. }));
    assert!(error.to_string().contains("missing"), "{error}");

    for path in ["/dev/null", "/tmp"] {
        let read_only = BlockConfig {
            path: path.into(),
            read_only: true,
            ..config(&missing)
        };
        let error = Block::open(&read_only).unwrap_err();
        assert!(matches!(error, BlockError::Kind { .. }), "{error}");
    }
}

#[test]
fn two_machines_may_read_one_disk_but_only_one_may_write_it() {
    let path = disk_file(8);
    let writable = config(&path);
    let read_only = BlockConfig {
        read_only: true,
        ..config(&path)
    };
    let first = Block::open(&read_only).unwrap();
    let second = Block::open(&read_only).unwrap();
    let error = Block::open(&writable).unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    drop((first, second));
    let writer = Block::open(&writable).unwrap();
    assert!(matches!(
        Block::open(&writable),
        Err(BlockError::InUse { read_only: false, .. })
    ));
    assert!(matches!(
        Block::open(&read_only),
        Err(BlockError::InUse { read_only: true, .. })
    ));
    drop(writer);
    Block::open(&writable).unwrap();
}

#[test]
fn many_requests_share_one_notification_and_one_interrupt() {
    let path = disk_file(64);
    let mut driver = FakeDriver::new(Box::new(Block::open(&config(&path)).unwrap()));
    let offered = driver.offered();
    driver.start_with(offered);
    for sector in 0..32u64 {
        let at = DATA + sector * 0x1000;
        driver.put(at, &[0u64.to_le_bytes(), sector.to_le_bytes()].concat());
        driver.add(
            0,
            &[(at, 16, false), (at + 0x200, 512, true), (at + 0x100, 1, true)],
        );
    }
    driver.notify(0);
    assert_eq!(driver.interrupt.count(), 1);
    for sector in 0..32u64 {
        assert_eq!(driver.used(0).map(|used| used.1), Some(513));
        assert_eq!(
            driver.get(DATA + sector * 0x1000 + 0x200, 512),
            vec![sector as u8; 512]
        );
    }
}

mod asynchronous;
mod live;
mod model;

#[test]
fn a_limit_counts_data_and_requests_and_loses_none() {
    let path = disk_file(64);
    let bucket = |size| {
        Some(BucketConfig {
            size,
            one_time_burst: 0,
            refill_time: 100,
        })
    };
    for (limit, at_once, milliseconds) in [
        (
            LimiterConfig {
                bandwidth: bucket(4 * 512),
                operations: None,
            },
            4,
            // Three requests are paid off, and the last begins with the first token that comes then.
            75,
        ),
        (
            LimiterConfig {
                bandwidth: None,
                operations: bucket(6),
            },
            6,
            33,
        ),
    ] {
        let mut driver = driver(&BlockConfig {
            limit,
            ..config(&path)
        });
        let interrupts = driver.interrupt.count();
        let started = Instant::now();
        for sector in 0..8u64 {
            let place = DATA + sector * 0x1000;
            driver.put(place, &[u64::from(IN), sector].map(u64::to_le_bytes).concat());
            let buffers = [
                (place, 16, false),
                (place + 0x200, 512, true),
                (place + 0x100, 1, true),
            ];
            driver.add(0, &buffers);
        }
        driver.notify(0);
        let mut served = std::iter::from_fn(|| driver.used(0)).count();
        assert!((at_once..=at_once + 1).contains(&served), "{served}");
        while served < 8 {
            std::thread::sleep(Duration::from_millis(1));
            driver.transport.handle_host();
            served += std::iter::from_fn(|| driver.used(0)).count();
            assert!(started.elapsed() < Duration::from_secs(10));
        }
        assert!(driver.interrupt.count() > interrupts + 1);
        let elapsed = started.elapsed();
        assert!(elapsed >= Duration::from_millis(milliseconds), "{elapsed:?}");
        for sector in 0..8u64 {
            let data = driver.get(DATA + sector * 0x1000 + 0x200, 512);
            assert_eq!(data, vec![sector as u8; 512]);
        }
    }
}
