use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::testing::{BUFFERS, FakeDriver};
use crate::virtio::mmio::offset;
use crate::virtio::transport::Transport;

/// Takes memory back by writing over it, and remembers how long each piece was.
#[derive(Debug, Clone, Default)]
struct Taken(Arc<Mutex<Vec<usize>>>);

const GONE: u8 = 0xdd;

impl Reclaim for Taken {
    fn reclaim(&self, slice: &GuestSlice<'_>) -> io::Result<()> {
        slice.copy_from(&vec![GONE; slice.len()]);
        self.0.lock().unwrap().push(slice.len());
        Ok(())
    }
}

impl Taken {
    fn take(&self) -> Vec<usize> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

const ALL: BalloonConfig = BalloonConfig {
    pages: 7,
    deflate_on_oom: true,
    statistics_interval: Some(Duration::from_millis(20)),
    hinting: true,
    reporting: true,
};
const STATISTICS: u16 = 2;
const HINTING: u16 = 3;
const REPORTING: u16 = 4;
const PAGE_LEN: usize = PAGE as usize;

fn balloon(config: &BalloonConfig) -> (FakeDriver, BalloonHandle, Taken) {
    let taken = Taken::default();
    let balloon = Balloon::new(config, Box::new(taken.clone())).unwrap();
    let handle = balloon.handle();
    (FakeDriver::new(Box::new(balloon)), handle, taken)
}

fn started(config: &BalloonConfig) -> (FakeDriver, BalloonHandle, Taken) {
    let (mut driver, handle, taken) = balloon(config);
    driver.start();
    (driver, handle, taken)
}

/// Names pages on a queue.
fn name(driver: &mut FakeDriver, queue: u16, pages: &[u32]) {
    let bytes: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
    driver.put(BUFFERS, &bytes);
    assert_eq!(
        driver.request(queue, &[(BUFFERS, bytes.len() as u32, false)]),
        Some(0)
    );
}

#[test]
fn exactly_the_pages_that_are_named_go_back_and_neighbours_together() {
    let (mut driver, _, taken) = started(&ALL);
    let page = |number: u32| u64::from(number) * PAGE;
    for number in 0x300..0x310 {
        driver.put(page(number), &[1; PAGE_LEN]);
    }
    name(&mut driver, INFLATE, &[0x305, 0x304, 0x303, 0x30a]);
    assert_eq!(taken.take(), [3 * PAGE_LEN, PAGE_LEN]);
    for number in 0x300..0x310 {
        let gone = matches!(number, 0x303..=0x305 | 0x30a);
        let expected = if gone { GONE } else { 1 };
        assert_eq!(
            driver.get(page(number), PAGE_LEN),
            [expected; PAGE_LEN],
            "page {number:#x}"
        );
    }
    // Taking them out again is nobody's work.
    name(&mut driver, DEFLATE, &[0x305, 0x304]);
    assert_eq!(taken.take(), [0_usize; 0]);
    assert_eq!(driver.get(page(0x306), PAGE_LEN), [1; PAGE_LEN]);
}

#[test]
fn pages_that_are_not_the_guests_are_passed_over() {
    let (mut driver, _, taken) = started(&ALL);
    // Memory ends at 4 MiB, page 0x400.
    name(&mut driver, INFLATE, &[0x400, u32::MAX, 0x3ff, 0x8000_0000]);
    assert_eq!(taken.take(), [PAGE_LEN]);
    // A number that is cut off is none, and neither is a buffer of the wrong direction.
    assert_eq!(driver.request(INFLATE, &[(BUFFERS, 3, false)]), Some(0));
    assert_eq!(driver.request(INFLATE, &[(BUFFERS, 64, true)]), Some(0));
    assert_eq!(taken.take(), [0_usize; 0]);
    assert_eq!(driver.transport.counters().needs_reset, 0);
}

#[test]
fn one_request_gives_back_4096_pages_at_most() {
    let (mut driver, _, taken) = started(&ALL);
    // No two of them neighbours.
    let pages: Vec<u32> = (0..5000).map(|number| 0x200 + number % 200 * 2).collect();
    name(&mut driver, INFLATE, &pages);
    let taken: usize = taken.take().iter().sum();
    // The same 200 again in each 256 that are looked at together.
    assert_eq!(taken, 16 * 200 * PAGE_LEN);
}

#[test]
fn the_guest_hears_of_a_target_and_says_how_far_it_is() {
    let (mut driver, handle, _) = started(&ALL);
    assert_eq!(driver.read(offset::CONFIG), 7);
    assert_eq!((handle.target(), handle.actual()), (7, 0));
    let interrupts = driver.interrupt.count();
    let generation = driver.read(offset::CONFIG_GENERATION);
    handle.set_target(100).unwrap();
    driver.transport.handle_host();
    assert_eq!(driver.interrupt.count(), interrupts + 1);
    assert_eq!(driver.read(offset::INTERRUPT_STATUS) & 2, 2);
    assert_ne!(driver.read(offset::CONFIG_GENERATION), generation);
    assert_eq!(driver.read(offset::CONFIG), 100);
    // Nothing new, no interrupt.
    driver.transport.handle_host();
    assert_eq!(driver.interrupt.count(), interrupts + 1);
    driver.write(offset::CONFIG + 4, 60);
    assert_eq!((handle.actual(), driver.read(offset::CONFIG + 4)), (60, 60));
    // The target is the machine's to set.
    driver.write(offset::CONFIG, 1);
    assert_eq!((handle.target(), driver.read(offset::CONFIG)), (100, 100));
    // A driver that starts anew has an empty balloon, and the same target.
    driver.start();
    assert_eq!((handle.actual(), driver.read(offset::CONFIG)), (0, 100));
}

#[test]
fn the_guest_is_asked_for_statistics_again_and_again() {
    let (mut driver, handle, _) = started(&ALL);
    let entry = |tag: u16, value: u64| [tag.to_le_bytes().as_slice(), &value.to_le_bytes()].concat();
    let first = [entry(4, 1 << 30), entry(5, 1 << 31), entry(99, 1), entry(2, 17)].concat();
    driver.put(BUFFERS, &first);
    let asked = Instant::now();
    let buffer = [(BUFFERS, first.len() as u32 + 5, false)];
    assert_eq!(driver.request(STATISTICS, &buffer), None, "the buffer stays here");
    let expected = BalloonStatistics {
        free_memory: Some(1 << 30),
        total_memory: Some(1 << 31),
        major_faults: Some(17),
        ..BalloonStatistics::default()
    };
    assert_eq!(handle.statistics(), expected);
    let interrupts = driver.interrupt.count();
    while driver.used(STATISTICS).is_none() {
        driver.transport.handle_host();
        assert!(asked.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(asked.elapsed() >= Duration::from_millis(20));
    assert_eq!(driver.interrupt.count(), interrupts + 1);
    // What it says then replaces all of it. A second buffer sends the first one back.
    handle.set_statistics_interval(Duration::from_secs(3600));
    driver.put(BUFFERS, &entry(6, 5));
    assert_eq!(driver.request(STATISTICS, &[(BUFFERS, 10, false)]), None);
    assert_eq!(
        handle.statistics(),
        BalloonStatistics {
            available_memory: Some(5),
            ..BalloonStatistics::default()
        }
    );
    let head = driver.add(STATISTICS, &[(BUFFERS, 10, false)]);
    driver.notify(STATISTICS);
    assert_eq!(driver.used(STATISTICS), Some((u32::from(head) - 1, 0)));
    std::thread::sleep(Duration::from_millis(30));
    driver.transport.handle_host();
    assert_eq!(driver.used(STATISTICS), None);
}

/// As Linux's driver does it, whose word of the buffer comes too early to be heard.
#[test]
fn statistics_that_are_there_before_the_driver_is_ready_are_taken() {
    let (mut driver, handle, _) = balloon(&ALL);
    let features = driver.offered() & !(1 << 29);
    assert!(driver.negotiate(features));
    (0..5).for_each(|queue| driver.set_up_queue(queue));
    driver.put(
        BUFFERS,
        &[&5u16.to_le_bytes()[..], &7u64.to_le_bytes()[..]].concat(),
    );
    driver.add(STATISTICS, &[(BUFFERS, 10, false)]);
    driver.write(offset::STATUS, 15);
    assert_eq!(handle.statistics().total_memory, Some(7));
}

#[test]
fn pages_that_the_guest_does_not_use_go_back_unless_it_keeps_something_in_them() {
    let (mut driver, _, taken) = started(&ALL);
    let buffers = [(0x20_0000, 0x4000, true), (0x30_0000, 0x2000, true)];
    assert_eq!(driver.request(REPORTING, &buffers), Some(0));
    assert_eq!(taken.take(), [0x4000, 0x2000]);
    assert_eq!(driver.get(0x20_0000, 1), [GONE]);
    // What is readable is no report.
    assert_eq!(driver.request(REPORTING, &[(0x20_0000, 0x4000, false)]), Some(0));
    assert_eq!(taken.take(), [0_usize; 0]);
    // Free pages are filled with something that the guest expects to find again.
    driver.write(offset::CONFIG + 12, 0xaaaa_aaaa);
    assert_eq!(driver.read(offset::CONFIG + 12), 0xaaaa_aaaa);
    assert_eq!(driver.request(REPORTING, &buffers), Some(0));
    assert_eq!(taken.take(), [0_usize; 0]);
    // A driver that did not accept that feature has not said so.
    let features = driver.offered() & !PAGE_POISON & !(1 << 29);
    driver.start_with(features);
    driver.write(offset::CONFIG + 12, 0xaaaa_aaaa);
    assert_eq!(driver.request(REPORTING, &buffers), Some(0));
    assert_eq!(taken.take(), [0x4000, 0x2000]);
}

#[test]
fn a_guest_that_is_asked_names_what_it_keeps_aside_until_it_hears_that_it_was_taken() {
    let (mut driver, handle, taken) = started(&ALL);
    let command = |driver: &mut FakeDriver| driver.read(offset::CONFIG + 8);
    let pages = [(0x20_0000, 0x4000, true)];
    let say = |driver: &mut FakeDriver, command: u32| name(driver, HINTING, &[command]);
    // Nobody asked.
    assert_eq!(command(&mut driver), 0);
    assert_eq!(driver.request(HINTING, &pages), Some(0));
    assert_eq!(taken.take(), [0_usize; 0]);

    let interrupts = driver.interrupt.count();
    handle.start_hinting(true).unwrap();
    driver.transport.handle_host();
    assert_eq!(driver.interrupt.count(), interrupts + 1);
    assert_eq!(command(&mut driver), 2);
    say(&mut driver, 2);
    assert_eq!(driver.request(HINTING, &pages), Some(0));
    assert_eq!(taken.take(), [0x4000]);
    assert_eq!(driver.get(0x20_0000, 1), [GONE]);
    assert_eq!(handle.counters().hinted, 0x4000);
    let (generation, status) = (driver.read(offset::CONFIG_GENERATION), handle.hinting_status());
    assert_eq!((status.host, status.guest), (2, Some(2)));
    // It has named all, and hears at once that it may use them.
    say(&mut driver, 0);
    assert_eq!(command(&mut driver), 1);
    assert_ne!(driver.read(offset::CONFIG_GENERATION), generation);
    assert_eq!(driver.request(HINTING, &pages), Some(0));
    assert_eq!(taken.take(), [0_usize; 0], "they may be in use");

    // A round that the machine ends, in the middle: what is in the queue already may be in use.
    handle.start_hinting(false).unwrap();
    driver.transport.handle_host();
    assert_eq!(command(&mut driver), 3);
    say(&mut driver, 3);
    assert_eq!(driver.request(HINTING, &pages), Some(0));
    assert_eq!(taken.take(), [0x4000]);
    handle.stop_hinting().unwrap();
    assert_eq!(driver.request(HINTING, &pages), Some(0));
    assert_eq!(taken.take(), [0_usize; 0]);
    assert_eq!(command(&mut driver), 1);

    // Free pages are filled with something that the guest expects to find again.
    driver.write(offset::CONFIG + 12, 0xaaaa_aaaa);
    handle.start_hinting(true).unwrap();
    driver.transport.handle_host();
    say(&mut driver, 4);
    assert_eq!(driver.request(HINTING, &pages), Some(0));
    assert_eq!(taken.take(), [0_usize; 0]);

    // A driver that starts anew knows of no round, and is asked for none.
    driver.start();
    assert_eq!((command(&mut driver), handle.hinting_status().guest), (0, None));
}

#[test]
fn queues_that_were_not_agreed_on_have_no_number() {
    let (mut driver, _, taken) = balloon(&ALL);
    let offered = driver.offered() & !(1 << 29);
    let start = |driver: &mut FakeDriver, features: u64, queues: u16| {
        assert!(driver.negotiate(features));
        for queue in 0..queues {
            driver.set_up_queue(queue);
        }
        driver.write(offset::STATUS, 15);
        driver.transport.counters().needs_reset
    };
    // Without statistics and hints, reporting is the third.
    let offered = offered & !FREE_PAGE_HINT;
    assert_eq!(start(&mut driver, offered & !STATS_VQ, 3), 0);
    assert_eq!(driver.request(2, &[(0x20_0000, 0x1000, true)]), Some(0));
    assert_eq!(taken.take(), [0x1000]);
    // Without both there are two.
    assert_eq!(start(&mut driver, offered & !STATS_VQ & !PAGE_REPORTING, 2), 0);
    name(&mut driver, INFLATE, &[0x300]);
    assert_eq!(taken.take(), [PAGE_LEN]);
    // One too few is one too few.
    assert_eq!(start(&mut driver, offered & !STATS_VQ, 2), 1);
}

#[test]
fn only_what_is_configured_is_offered() {
    let (mut driver, _, _) = balloon(&BalloonConfig::default());
    let offered = driver.offered();
    let all = STATS_VQ | DEFLATE_ON_OOM | FREE_PAGE_HINT | PAGE_REPORTING;
    assert_eq!(offered & all, 0);
    let (mut driver, _, _) = balloon(&ALL);
    assert_eq!(driver.offered() & all, all);
}

#[test]
fn a_host_that_takes_nothing_back_is_no_fault_of_the_guests() {
    struct Refuse;
    impl Reclaim for Refuse {
        fn reclaim(&self, _slice: &GuestSlice<'_>) -> io::Result<()> {
            Err(io::ErrorKind::InvalidInput.into())
        }
    }
    let mut driver = FakeDriver::new(Box::new(Balloon::new(&ALL, Box::new(Refuse)).unwrap()));
    driver.start();
    driver.put(0x30_0000, &[1; PAGE_LEN]);
    name(&mut driver, INFLATE, &[0x300]);
    assert_eq!(driver.get(0x30_0000, PAGE_LEN), [1; PAGE_LEN]);
    assert_eq!(driver.transport.counters().needs_reset, 0);
}
