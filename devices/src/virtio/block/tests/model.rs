//! Random, well-formed requests against a disk in memory: every byte must agree, whatever the pieces.

use std::fs;

use super::{FLUSH, IN, OK, OUT, WRITE_ZEROES, config, disk_file, pattern};
use crate::testing::{BUFFERS, Buffer, FakeDriver};
use crate::virtio::block::Block;
use crate::virtio::transport::Transport;

const SECTORS: usize = 256;
/// Each request of a batch has a place of its own.
const PLACE: u64 = 0x4000;
const STATUS: u64 = 0x20;
const DATA: u64 = 0x100;
const BATCH: usize = 8;
/// More than 65,536, so that the ring's indices wrap around.
const REQUESTS: usize = 70_000;

/// xorshift64: the same requests on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// Cuts `len` bytes at `address` into pieces.
fn pieces(random: &mut Random, address: u64, len: usize, writable: bool) -> Vec<Buffer> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < len {
        let piece = (1 + random.below(len)).min(len - at);
        pieces.push((address + at as u64, piece as u32, writable));
        at += piece;
    }
    pieces.truncate(24);
    // What was cut off by the limit goes into the last piece.
    let covered: u32 = pieces.iter().map(|piece| piece.1).sum();
    if let Some(last) = pieces.last_mut() {
        last.1 += len as u32 - covered;
    }
    pieces
}

/// What the guest expects in its buffer when the answer is there.
enum Expected {
    Data(Vec<u8>),
    Nothing,
}

#[test]
fn the_disk_agrees_with_a_disk_in_memory() {
    let path = disk_file(SECTORS);
    let mut model: Vec<u8> = (0..SECTORS * 512).map(pattern).collect();
    let mut driver = FakeDriver::new(Box::new(Block::open(&config(&path)).unwrap()));
    let offered = driver.offered();
    driver.start_with(offered);
    let mut random = Random(0x5ec0_51a0_1234_5678);
    let mut done = 0;
    while done < REQUESTS {
        let old = driver.avail_index(0);
        driver.want_interrupt(0);
        let interrupts = driver.interrupt.count();
        let batch = 1 + random.below(BATCH);
        let mut expected = Vec::new();
        for place in 0..batch {
            let base = BUFFERS + place as u64 * PLACE;
            let sectors = 1 + random.below(8);
            let sector = random.below(SECTORS - sectors + 1);
            let (from, len) = (sector * 512, sectors * 512);
            let area = &mut model[from..from + len];
            let (kind, data, answer) = match random.below(16) {
                0 => (FLUSH, Vec::new(), Expected::Nothing),
                1 => {
                    let segment = [sector as u64, sectors as u64 | (1 << 32)].map(u64::to_le_bytes);
                    driver.put(base + DATA, &segment.concat());
                    area.fill(0);
                    let data = pieces(&mut random, base + DATA, 16, false);
                    (WRITE_ZEROES, data, Expected::Nothing)
                }
                2..8 => {
                    area.fill_with(|| random.below(256) as u8);
                    driver.put(base + DATA, area);
                    (
                        OUT,
                        pieces(&mut random, base + DATA, len, false),
                        Expected::Nothing,
                    )
                }
                _ => {
                    let data = pieces(&mut random, base + DATA, len, true);
                    (IN, data, Expected::Data(area.to_vec()))
                }
            };
            let header = [u64::from(kind), sector as u64].map(u64::to_le_bytes).concat();
            driver.put(base, &header);
            driver.put(base + STATUS, &[0xee]);
            let mut buffers = pieces(&mut random, base, 16, false);
            buffers.extend(data);
            buffers.push((base + STATUS, 1, true));
            driver.add(0, &buffers);
            expected.push((base, answer));
        }
        assert!(
            driver.notify_if_wanted(0, old),
            "the device waits for no notification"
        );
        assert!(
            driver.interrupt.count() > interrupts,
            "an interrupt was asked for"
        );
        for (base, answer) in expected {
            let (_, used) = driver.used(0).expect("a request was not answered");
            assert_eq!(driver.get(base + STATUS, 1), [OK]);
            match answer {
                Expected::Data(data) => {
                    assert_eq!(used as usize, data.len() + 1);
                    assert!(driver.get(base + DATA, data.len()) == data, "request {done}");
                }
                Expected::Nothing => assert_eq!(used, 1),
            }
            done += 1;
        }
        assert!(driver.used(0).is_none());
    }
    assert_eq!(driver.transport.counters().needs_reset, 0);
    assert!(fs::read(path.as_path()).unwrap() == model);
}
