use super::*;
use crate::testing::{BUFFERS, FakeDriver};

fn driver() -> FakeDriver {
    let mut driver = FakeDriver::new(Box::new(Rng::new()));
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
