//! Random packets both ways, in random pieces: all of them arrive, whole and in order.

use std::collections::VecDeque;

use super::*;
use crate::virtio::transport::Transport;

/// Receive buffers, each at a place of its own.
const PLACES: u64 = 128;
const PLACE: u64 = 0x2000;
const OUT: u64 = BUFFERS + PLACES * PLACE;
/// More than 65,536 answers, so that the rings' indices wrap around.
const ROUNDS: usize = 60_000;

/// xorshift64: the same packets on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    fn frame(&mut self) -> Vec<u8> {
        let len = match self.below(128) {
            0 => 14 + self.below(65_000),
            1..=16 => 14 + self.below(5_000),
            _ => 14 + self.below(200),
        };
        let first = self.below(256);
        (0..len).map(|at| (first + at * 31 + at / 251) as u8).collect()
    }
}

/// The guest's driver, as far as it is more than [`FakeDriver`].
struct Guest {
    driver: FakeDriver,
    /// Places by the head of their chain: address and length.
    given: Vec<Option<(u64, u32)>>,
    free: VecDeque<u64>,
    answers: usize,
}

impl Guest {
    fn give(&mut self, random: &mut Random) {
        let count = random.below(1 + self.free.len());
        for _ in 0..count {
            let place = self.free.pop_front().unwrap();
            let len = 12 + random.below(4000) as u32;
            // One descriptor each, as every driver with mergeable buffers does it.
            let head = self.driver.add(RX, &[(place, len, true)]);
            self.given[usize::from(head)] = Some((place, len));
        }
        self.driver.notify(RX);
    }

    /// The next packet, put together from its buffers.
    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut packet = Vec::new();
        let mut left = 1;
        while left > 0 {
            // Once the first buffer shows, the others must.
            let used = self.driver.used(RX);
            let Some((head, len)) = used else {
                assert!(packet.is_empty(), "half a packet");
                return None;
            };
            let (place, room) = self.given[head as usize].take().unwrap();
            assert!(len <= room);
            let part = self.driver.get(place, len as usize);
            if packet.is_empty() {
                left = u16::from_le_bytes([part[10], part[11]]);
                assert_ne!(left, 0);
            }
            packet.extend(part);
            self.free.push_back(place);
            self.answers += 1;
            left -= 1;
        }
        Some(packet.split_off(HEADER_LEN))
    }

    fn send(&mut self, random: &mut Random, frame: &[u8]) {
        let packet = [[0; HEADER_LEN].as_slice(), frame].concat();
        self.driver.put(OUT, &packet);
        let (mut pieces, mut at) = (Vec::new(), 0);
        while at < packet.len() {
            let len = if pieces.len() < 100 {
                1 + random.below(packet.len())
            } else {
                packet.len()
            };
            let len = len.min(packet.len() - at);
            pieces.push((OUT + at as u64, len as u32, false));
            at += len;
        }
        assert_eq!(self.driver.request(TX, &pieces), Some(0));
    }
}

#[test]
fn random_packets_arrive_whole_and_in_order() {
    let (driver, host) = driver(&config(), 0);
    let mut guest = Guest {
        driver,
        given: vec![None; 256],
        free: (0..PLACES).map(|place| BUFFERS + place * PLACE).collect(),
        answers: 0,
    };
    let mut random = Random(0x1234_5678);
    let mut expected = VecDeque::new();
    for round in 0..ROUNDS {
        guest.give(&mut random);
        // So few on their way that the socket never fills up.
        if expected.len() < 2 {
            let frame = random.frame();
            host.send(&frame);
            expected.push_back(frame);
        }
        guest.driver.transport.handle_host();
        while let Some(frame) = guest.receive() {
            assert!(Some(frame) == expected.pop_front(), "round {round}");
        }
        let frame = random.frame();
        guest.send(&mut random, &frame);
        assert!(
            host.receive() == Some((vec![0; HEADER_LEN], frame)),
            "round {round}"
        );
    }
    assert!(expected.len() < 3, "packets are stuck");
    assert!(guest.answers > 70_000, "{} answers", guest.answers);
    assert_eq!(guest.driver.transport.counters().needs_reset, 0);
}
