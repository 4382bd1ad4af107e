use std::time::{Duration, Instant};

use super::*;
use crate::limiter::BucketConfig;
use crate::testing::{BUFFERS, FakeDriver};
use crate::virtio::device::Share;
use crate::virtio::transport::Transport;

fn driver() -> FakeDriver {
    limited(&LimiterConfig::default())
}

fn limited(limit: &LimiterConfig) -> FakeDriver {
    let mut driver = FakeDriver::new(Box::new(Rng::new(limit).unwrap()));
    driver.start();
    driver
}

#[test]
fn the_guest_gets_random_bytes_in_all_its_buffers() {
    let mut driver = driver();
    let interrupts = driver.interrupt.count();
    let written = driver.request(0, &[(BUFFERS, 1500, true), (BUFFERS + 0x1000, 100, true)]);
    assert_eq!(written, Some(1600));
    assert_eq!(driver.interrupt.count(), interrupts + 1);
    let (first, second) = (driver.get(BUFFERS, 1500), driver.get(BUFFERS + 0x1000, 100));
    // All-zero by chance: 2 to the power of -800.
    assert!(second.iter().any(|&byte| byte != 0));
    assert_ne!(first[..100], first[1024..1124], "each piece is new");
    assert_eq!(driver.get(BUFFERS + 1500, 1), [0], "nothing past the buffer");
    driver.request(0, &[(BUFFERS + 0x2000, 100, true)]);
    assert_ne!(driver.get(BUFFERS + 0x2000, 100), second);
}

#[test]
fn one_request_gets_64_kib_at_most() {
    let mut driver = driver();
    let written = driver.request(0, &[(BUFFERS, 0x10_0000, true)]);
    assert_eq!(written, Some(65536));
    assert_eq!(driver.get(BUFFERS + 65536, 16), [0; 16]);
}

#[test]
fn requests_without_room_are_handed_back_empty() {
    let mut driver = driver();
    assert_eq!(driver.request(0, &[(BUFFERS, 16, false)]), Some(0));
    assert_eq!(driver.request(0, &[(BUFFERS, 0, true)]), Some(0));
    assert_eq!(driver.request(0, &[(BUFFERS, 1, true)]), Some(1));
}

#[test]
fn a_limit_counts_bytes_and_holds_requests_back() {
    let bucket = BucketConfig {
        size: 100,
        one_time_burst: 50,
        refill_time: 100,
    };
    let mut driver = limited(&LimiterConfig {
        bandwidth: Some(bucket),
        operations: None,
    });
    // 150 at once; one token is left, and lets the third begin.
    assert_eq!(driver.request(0, &[(BUFFERS, 50, true)]), Some(50));
    assert_eq!(driver.request(0, &[(BUFFERS, 99, true)]), Some(99));
    assert_eq!(driver.request(0, &[(BUFFERS, 50, true)]), Some(50));
    let asked = Instant::now();
    assert_eq!(driver.request(0, &[(BUFFERS, 10, true)]), None);
    let used = loop {
        driver.transport.handle_host();
        if let Some(used) = driver.used(0) {
            break used;
        }
        assert!(asked.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(1));
    };
    assert_eq!(used, (3, 10));
    // 49 tokens were owed, and one was needed.
    assert!(
        asked.elapsed() >= Duration::from_millis(45),
        "{:?}",
        asked.elapsed()
    );
    // A reset forgets the request, and no answer comes late.
    driver.request(0, &[(BUFFERS, 10_000, true)]);
    driver.request(0, &[(BUFFERS, 10, true)]);
    driver.start();
    driver.transport.handle_host();
    assert_eq!(driver.used(0), None);
}

#[test]
fn what_a_limit_held_back_and_a_share_cut_short_is_taken_up_again() {
    let bucket = BucketConfig {
        size: 1,
        one_time_burst: 0,
        refill_time: 1,
    };
    let mut rng = Rng::new(&LimiterConfig {
        bandwidth: None,
        operations: Some(bucket),
    })
    .unwrap();
    // The ring is filled by a driver whose own device never runs.
    let mut driver = driver();
    for _ in 0..4 {
        driver.add(0, &[(BUFFERS, 8, true)]);
    }
    let mut queues = [driver.queue(0)];
    let memory = driver.memory.clone();
    let mut call = |rng: &mut Rng, kick: bool| {
        let mut active = Active {
            memory: &memory,
            queues: &mut queues,
            features: 0,
            share: Share::of(Duration::ZERO),
        };
        let outcome = if kick {
            rng.handle_queue(0, &mut active)
        } else {
            rng.handle_host(&mut active)
        };
        outcome.unwrap();
    };
    call(&mut rng, true);
    // From here on it is the event loop's, and each call gets one request done or none.
    let started = Instant::now();
    let mut answers = 0;
    while answers < 4 {
        answers += std::iter::from_fn(|| driver.used(0)).count();
        std::thread::sleep(Duration::from_millis(1));
        call(&mut rng, false);
        assert!(started.elapsed() < Duration::from_secs(10), "{answers} answers");
    }
}
