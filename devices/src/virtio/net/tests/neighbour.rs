//! Somebody on the guest's cable: what is for him does not reach the link, and what he says reaches the guest.

use std::sync::{Mutex, PoisonError};

use super::*;
use crate::virtio::transport::Transport;

/// What the test sees of him.
#[derive(Debug, Default)]
struct Seen {
    taken: Vec<Vec<u8>>,
    answers: Vec<Vec<u8>>,
    resets: usize,
    wait: Option<Duration>,
}

/// Takes frames whose first byte is 7.
#[derive(Debug, Clone, Default)]
struct Him(Arc<Mutex<Seen>>);

impl Him {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Neighbour for Him {
    fn is_for_it(&self, head: &[u8]) -> bool {
        assert!(head.len() <= 42);
        head.first() == Some(&7)
    }

    fn take(&mut self, frame: &[u8]) {
        let mut seen = self.seen();
        seen.taken.push(frame.into());
        seen.answers.push(frame.iter().rev().copied().collect());
    }

    fn give(&mut self) -> Option<Vec<u8>> {
        self.seen().answers.pop()
    }

    fn has_some(&self) -> bool {
        !self.seen().answers.is_empty()
    }

    fn wait(&mut self) -> Option<Duration> {
        self.seen().wait.take()
    }

    fn reset(&mut self) {
        self.seen().resets += 1;
    }
}

fn with_him() -> (FakeDriver, Host, Him) {
    let him = Him::default();
    let (net, host) = device(&config());
    let mut driver = FakeDriver::new(Box::new(net.with_neighbour(Box::new(him.clone()))));
    let features = driver.offered() & !EVENT_IDX;
    driver.start_with(features);
    (driver, host, him)
}

fn send(driver: &mut FakeDriver, frame: &[u8]) {
    const OUT: u64 = BUFFERS + 0x10000;
    driver.put(OUT, &[[0; HEADER_LEN].as_slice(), frame].concat());
    let len = HEADER_LEN + frame.len();
    assert_eq!(driver.request(TX, &[(OUT, len as u32, false)]), Some(0));
}

fn received(driver: &mut FakeDriver) -> Option<Vec<u8>> {
    let (_, len) = driver.used(RX)?;
    Some(driver.get(BUFFERS, len as usize).split_off(HEADER_LEN))
}

#[test]
fn what_is_for_him_does_not_reach_the_link_and_his_answer_comes_at_once() {
    let (mut driver, host, him) = with_him();
    for len in [14, 41, 42, 43, 60_000] {
        driver.add(RX, &[(BUFFERS, 0x1_0000, true)]);
        driver.notify(RX);
        let mut frame: Vec<u8> = (0..len).map(|at| at as u8).collect();
        frame[0] = 7;
        send(&mut driver, &frame);
        assert_eq!(him.seen().taken.pop().as_ref(), Some(&frame));
        assert_eq!(host.receive(), None);
        frame.reverse();
        assert_eq!(received(&mut driver), Some(frame));
    }
    // Another's goes to the link.
    send(&mut driver, &[8; 60]);
    assert!(him.seen().taken.is_empty());
    assert_eq!(host.receive(), Some((vec![0; HEADER_LEN], vec![8; 60])));
}

#[test]
fn his_answer_waits_for_buffers_and_he_is_asked_in_time() {
    let (mut driver, _host, him) = with_him();
    send(&mut driver, &[7; 60]);
    assert_eq!(received(&mut driver), None);
    driver.add(RX, &[(BUFFERS, 2000, true)]);
    driver.notify(RX);
    driver.transport.handle_host();
    assert_eq!(received(&mut driver), Some(vec![7; 60]));
    // Nothing stirs, until his time has come.
    driver.add(RX, &[(BUFFERS, 2000, true)]);
    driver.notify(RX);
    him.seen().wait = Some(Duration::from_millis(1));
    driver.transport.handle_host();
    him.seen().answers.push(vec![9; 20]);
    let fds: Vec<_> = driver.transport.host_fds();
    let until = Instant::now() + Duration::from_secs(5);
    let rings = || {
        fds.iter().any(|fd| {
            // What a timer's descriptor says of itself, without being read.
            let path = format!("/proc/self/fdinfo/{fd}");
            std::fs::read_to_string(path).is_ok_and(|text| text.contains("ticks: 1"))
        })
    };
    while !rings() {
        assert!(Instant::now() < until, "no alarm");
    }
    driver.transport.handle_host();
    assert_eq!(received(&mut driver), Some(vec![9; 20]));
}

#[test]
fn a_reset_reaches_him() {
    let (mut driver, _host, him) = with_him();
    let before = him.seen().resets;
    driver.write(crate::virtio::mmio::offset::STATUS, 0);
    assert_eq!(him.seen().resets, before + 1);
}
