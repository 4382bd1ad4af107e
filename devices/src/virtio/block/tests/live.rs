//! Changes while the guest uses the disk.

use super::*;
use crate::virtio::transport::Transport;

/// One operation an hour.
fn hourly() -> LimiterConfig {
    LimiterConfig {
        bandwidth: None,
        operations: Some(BucketConfig {
            size: 1,
            one_time_burst: 0,
            refill_time: 3_600_000,
        }),
    }
}

#[test]
fn a_limit_that_is_lifted_lets_waiting_requests_go_at_once() {
    let path = disk_file(4);
    let block = Block::open(&BlockConfig {
        limit: hourly(),
        ..config(&path)
    })
    .unwrap();
    let handle = block.handle();
    let mut driver = FakeDriver::new(Box::new(block));
    driver.start();
    assert_eq!(request(&mut driver, IN, 0, &[(DATA, 512, true)]).0, OK);
    driver.add(0, &[(HEADER, 16, false), (DATA, 512, true), (STATUS, 1, true)]);
    driver.notify(0);
    assert_eq!(driver.used(0), None, "held back");
    handle.limit().change(&LimiterConfig {
        operations: Some(BucketConfig {
            size: 0,
            one_time_burst: 0,
            refill_time: 0,
        }),
        ..LimiterConfig::default()
    });
    driver.transport.handle_host();
    assert!(driver.used(0).is_some(), "let go");
    assert_eq!((handle.counters().served, handle.counters().limited), (2, 1));
}

#[test]
fn the_guest_is_told_of_another_disk_and_reads_it() {
    let (first, second) = (disk_file(4), disk_file(8));
    let block = Block::open(&config(&first)).unwrap();
    let handle = block.handle();
    let mut driver = FakeDriver::new(Box::new(block));
    driver.start();
    let capacity = crate::virtio::mmio::offset::CONFIG;
    let status = crate::virtio::mmio::offset::INTERRUPT_STATUS;
    assert_eq!(driver.read(capacity), 4);
    handle.replace(Disk::open(&config(&second)).unwrap());
    driver.transport.handle_host();
    assert_eq!(driver.read(status) & 2, 2, "configuration change");
    assert_eq!(driver.read(capacity), 8);
    assert_eq!(request(&mut driver, IN, 7, &[(DATA, 512, true)]).0, OK);
    assert_eq!(driver.get(DATA, 1), [7]);
    // It may grow, too.
    std::fs::write(second.as_path(), [9; 16 * 512]).unwrap();
    handle.resize(Disk::measure(&config(&second)).unwrap());
    driver.transport.handle_host();
    assert_eq!(driver.read(capacity), 16);
    assert_eq!(request(&mut driver, IN, 15, &[(DATA, 512, true)]).0, OK);
    // The old one is nobody's any more.
    assert!(Disk::open(&config(&first)).is_ok());
}
