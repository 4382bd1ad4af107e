use std::os::fd::BorrowedFd;
use std::sync::Mutex;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout};
use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::testing::{BUFFERS, FakeDriver, MEMORY, queue_base};
use crate::virtio::chain::{Chain, serve};
use crate::virtio::device::{Active, DeviceError, Outcome};
use crate::virtio::transport::TRANSPORT_FEATURES;
use crate::virtio::transport::Transport;

/// What the transport did to the device, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Activated { features: u64, event_idx: bool },
    Queue(u16),
    Host,
    Config(u64, Vec<u8>),
    Reset,
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Seen>>>);

impl Log {
    fn add(&self, seen: Seen) {
        self.0.lock().unwrap().push(seen);
    }
    fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Two queues; answers each request with its own 4 bytes, fails when the first of them is 0xff, and changes its
/// configuration when it is 0xc0. Takes its time when it is [`SLOW`].
#[derive(Default)]
struct Probe {
    log: Log,
    chain: Chain,
    fail_activate: bool,
}

/// A request that begins so takes longer than a call's share.
const SLOW: u8 = 0x51;

const OWN_FEATURE: u64 = 1 << 3;
const ALL_FEATURES: u64 = OWN_FEATURE | TRANSPORT_FEATURES;

impl VirtioDevice for Probe {
    fn device_type(&self) -> u32 {
        42
    }
    fn queue_max_sizes(&self) -> &[u16] {
        &[8, 16]
    }
    fn features(&self) -> u64 {
        OWN_FEATURE
    }
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        for (index, byte) in data.iter_mut().enumerate() {
            *byte = (offset as usize + index) as u8;
        }
    }
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        self.log.add(Seen::Config(offset, data.to_vec()));
    }
    fn activate(&mut self, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        self.log.add(Seen::Activated {
            features: active.features,
            event_idx: active.queues.iter().all(|queue| queue.event_idx_enabled()),
        });
        if self.fail_activate {
            return Err(DeviceError::Host {
                operation: "open",
                source: std::io::ErrorKind::NotFound.into(),
            });
        }
        Ok(Outcome::default())
    }
    fn handle_queue(&mut self, index: u16, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        self.log.add(Seen::Queue(index));
        let mut config_changed = false;
        let interrupt = serve(index, active, &mut self.chain, |chain, memory| {
            let [first, rest @ ..]: [u8; 4] = chain.readable(memory).read_obj()?;
            config_changed |= first == 0xc0;
            if first == SLOW {
                std::thread::sleep(Duration::from_millis(10));
            }
            if first == 0xff {
                return Err(chain.malformed("as asked"));
            }
            chain
                .writable(memory)
                .write_obj([first, rest[0], rest[1], rest[2]])?;
            Ok(4)
        })?;
        Ok(Outcome {
            interrupt,
            config_changed,
        })
    }
    fn handle_host(&mut self, _active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        self.log.add(Seen::Host);
        Ok(Outcome::default())
    }
    fn reset(&mut self) {
        self.log.add(Seen::Reset);
    }
}

fn driver() -> (FakeDriver, Log) {
    let probe = Probe::default();
    let log = probe.log.clone();
    (FakeDriver::new(Box::new(probe)), log)
}

/// One request on queue 0: 4 bytes in, 4 bytes back.
fn echo(driver: &mut FakeDriver, bytes: [u8; 4]) -> Option<Vec<u8>> {
    driver.put(BUFFERS, &bytes);
    driver.put(BUFFERS + 16, &[0; 4]);
    let written = driver.request(0, &[(BUFFERS, 4, false), (BUFFERS + 16, 4, true)])?;
    Some(driver.get(BUFFERS + 16, written as usize))
}

#[test]
fn a_driver_finds_a_modern_device_and_what_it_offers() {
    let (mut driver, _) = driver();
    assert_eq!(driver.read(offset::MAGIC), u32::from_le_bytes(*b"virt"));
    assert_eq!(driver.read(offset::VERSION), 2);
    assert_eq!(driver.read(offset::DEVICE_ID), 42);
    assert_eq!(driver.offered(), ALL_FEATURES);
    driver.write(offset::DEVICE_FEATURES_SEL, 2);
    assert_eq!(driver.read(offset::DEVICE_FEATURES), 0);
    for (queue, size) in [(0, 8), (1, 16), (2, 0), (u32::MAX, 0)] {
        driver.write(offset::QUEUE_SEL, queue);
        assert_eq!(driver.read(offset::QUEUE_NUM_MAX), size);
        assert_eq!(driver.read(offset::QUEUE_READY), 0);
    }
    for register in [
        offset::SHM_LEN_LOW,
        offset::SHM_LEN_HIGH,
        offset::SHM_BASE_LOW,
        offset::SHM_BASE_HIGH,
    ] {
        assert_eq!(driver.read(register), u32::MAX);
    }
    assert_eq!(driver.read(0x0c0), 0, "no queue reset");
}

#[test]
fn requests_are_answered_with_an_interrupt_that_is_acknowledged() {
    let (mut driver, log) = driver();
    driver.start();
    let features = ALL_FEATURES & !(1 << 29);
    let expected = [
        Seen::Reset,
        Seen::Activated {
            features,
            event_idx: false,
        },
        Seen::Host,
    ];
    assert_eq!(log.take(), expected);
    assert_eq!(echo(&mut driver, *b"ping").unwrap(), b"ping");
    assert_eq!(log.take(), [Seen::Queue(0)]);
    assert_eq!(driver.interrupt.count(), 1);
    assert_eq!(driver.read(offset::INTERRUPT_STATUS), 1);
    driver.write(offset::INTERRUPT_ACK, 2);
    assert_eq!(driver.read(offset::INTERRUPT_STATUS), 1);
    driver.write(offset::INTERRUPT_ACK, 1);
    assert_eq!(driver.read(offset::INTERRUPT_STATUS), 0);
    driver.notify(1);
    assert_eq!(log.take(), [Seen::Queue(1)]);
    assert_eq!(
        driver.interrupt.count(),
        1,
        "an empty queue is no reason for an interrupt"
    );
}

/// Whether one of the descriptors that the event loop watches is ready.
fn is_ready(transport: &MmioTransport) -> bool {
    let fds: Vec<_> = transport.host_fds();
    fds.iter().any(|fd| {
        // SAFETY: the transport, which is borrowed, has it open.
        let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
        let mut poll = [PollFd::new(fd, PollFlags::POLLIN)];
        nix::poll::poll(&mut poll, PollTimeout::ZERO).unwrap() > 0
    })
}

#[test]
fn a_full_queue_is_worked_off_in_shares_by_whoever_is_told() {
    let (mut driver, _) = driver();
    driver.start();
    driver.put(BUFFERS, &[SLOW, 1, 2, 3]);
    for _ in 0..3 {
        driver.add(0, &[(BUFFERS, 4, false), (BUFFERS + 16, 4, true)]);
    }
    assert!(!is_ready(&driver.transport));
    driver.write(offset::QUEUE_NOTIFY, 0);
    for answered in 1..=3 {
        assert_eq!(driver.transport.counters().cut_short, answered);
        assert!(driver.used(0).is_some() && driver.used(0).is_none());
        assert!(is_ready(&driver.transport));
        driver.transport.handle_host();
    }
    assert!(driver.used(0).is_none() && !is_ready(&driver.transport));
    // What is left when the driver resets the device is nobody's any more.
    driver.add(0, &[(BUFFERS, 4, false), (BUFFERS + 16, 4, true)]);
    driver.write(offset::QUEUE_NOTIFY, 0);
    driver.start();
    driver.transport.handle_host();
    assert!(driver.used(0).is_none() && !is_ready(&driver.transport));
}

#[test]
fn whoever_could_not_have_the_lock_asks_to_be_called_again() {
    let (mut driver, log) = driver();
    driver.start();
    log.take();
    driver.transport.again().unwrap().write(1).unwrap();
    assert!(is_ready(&driver.transport));
    driver.transport.handle_host();
    assert_eq!(log.take(), [Seen::Host]);
    assert!(!is_ready(&driver.transport));
}

#[test]
fn with_event_idx_a_driver_that_is_not_waiting_is_left_alone() {
    let (mut driver, log) = driver();
    driver.start_with(ALL_FEATURES);
    assert!(log.take().contains(&Seen::Activated {
        features: ALL_FEATURES,
        event_idx: true,
    }));
    // used_event 0: an interrupt for the first answer, none for the second.
    assert!(echo(&mut driver, *b"one.").is_some());
    assert_eq!(driver.interrupt.count(), 1);
    assert!(echo(&mut driver, *b"two.").is_some());
    assert_eq!(driver.interrupt.count(), 1);
    // The device says from where on it wants to be told (avail_event, behind the used ring).
    let avail_event: u16 = driver
        .memory
        .read_obj(GuestAddress(queue_base(0) + 0xc000 + 4 + 8 * 8))
        .unwrap();
    assert_eq!(avail_event, 2);
}

#[test]
fn features_that_were_not_offered_and_legacy_drivers_are_refused() {
    let (mut driver, _) = driver();
    let version_1 = 1 << 32;
    for (features, agreed) in [
        (version_1, true),
        (ALL_FEATURES, true),
        (version_1 | (1 << 4), false),
        (version_1 | (1 << 63), false),
        (OWN_FEATURE, false),
        (0, false),
    ] {
        assert_eq!(driver.negotiate(features), agreed, "{features:#x}");
        assert_eq!(driver.read(offset::STATUS), if agreed { 11 } else { 3 });
    }
    // Without FEATURES_OK there is no DRIVER_OK.
    driver.write(offset::STATUS, 7);
    assert_eq!(driver.read(offset::STATUS), 3);
}

#[test]
fn features_are_fixed_once_they_are_agreed_on() {
    let (mut driver, log) = driver();
    assert!(driver.negotiate(1 << 32));
    driver.write(offset::DRIVER_FEATURES_SEL, 0);
    driver.write(offset::DRIVER_FEATURES, OWN_FEATURE as u32);
    driver.set_up_queue(0);
    driver.set_up_queue(1);
    driver.write(offset::STATUS, 15);
    assert!(log.take().contains(&Seen::Activated {
        features: 1 << 32,
        event_idx: false,
    }));
}

#[test]
fn the_status_goes_forward_in_order_and_back_only_by_a_reset() {
    let (mut driver, _) = driver();
    for (write, expected) in [
        (2, 0),
        (8, 0),
        (4, 0),
        (1, 1),
        (4 | 1, 1),
        (3, 3),
        (1, 3),
        (64 | 3, 3),
        (2, 3),
    ] {
        driver.write(offset::STATUS, write);
        assert_eq!(driver.read(offset::STATUS), expected, "after {write:#x}");
    }
    driver.write(offset::STATUS, 128 | 3);
    assert_eq!(driver.read(offset::STATUS), 128 | 3);
    // The driver gave up; only a reset helps.
    driver.write(offset::STATUS, 128 | 15);
    assert_eq!(driver.read(offset::STATUS) & 0x7f, 3);
    driver.write(offset::STATUS, 0);
    assert_eq!(driver.read(offset::STATUS), 0);
}

#[test]
fn a_reset_makes_everything_as_new() {
    let (mut driver, log) = driver();
    driver.start();
    assert!(echo(&mut driver, *b"ping").is_some());
    log.take();
    driver.write(offset::STATUS, 0);
    assert_eq!(log.take(), [Seen::Reset]);
    assert_eq!(driver.read(offset::INTERRUPT_STATUS), 0);
    driver.write(offset::QUEUE_SEL, 0);
    assert_eq!(driver.read(offset::QUEUE_READY), 0);
    driver.notify(0);
    driver.transport.handle_host();
    assert_eq!(log.take(), []);
    driver.start();
    assert_eq!(echo(&mut driver, *b"pong").unwrap(), b"pong");
}

#[test]
fn queues_are_checked_before_the_device_sees_them() {
    type Wrong = (&'static str, fn(&mut FakeDriver));
    let wrongs: [Wrong; 8] = [
        ("not ready", |driver| driver.write(offset::QUEUE_READY, 0)),
        ("descriptors outside of memory", |driver| {
            reconfigure(driver, offset::QUEUE_DESC_LOW, MEMORY as u32 - 64);
        }),
        ("available ring outside of memory", |driver| {
            reconfigure(driver, offset::QUEUE_DRIVER_HIGH, 1);
        }),
        ("used ring outside of memory", |driver| {
            reconfigure(driver, offset::QUEUE_DEVICE_LOW, MEMORY as u32 - 8);
        }),
        ("descriptors not aligned", |driver| {
            reconfigure(driver, offset::QUEUE_DESC_LOW, 0x1008);
        }),
        ("used ring not aligned", |driver| {
            reconfigure(driver, offset::QUEUE_DEVICE_LOW, 0x1002);
        }),
        ("size no power of two", |driver| {
            reconfigure(driver, offset::QUEUE_NUM, 7)
        }),
        ("size too large", |driver| {
            reconfigure(driver, offset::QUEUE_NUM, 0x1_0010);
        }),
    ];
    for (what, wrong) in wrongs {
        let (mut driver, log) = driver();
        assert!(driver.negotiate(1 << 32));
        driver.set_up_queue(0);
        driver.set_up_queue(1);
        wrong(&mut driver);
        log.take();
        driver.write(offset::STATUS, 15);
        assert_eq!(driver.read(offset::STATUS), 64 | 15, "{what}");
        assert_eq!(driver.transport.counters().needs_reset, 1, "{what}");
        assert_eq!(driver.read(offset::INTERRUPT_STATUS), 2, "{what}");
        assert_eq!(log.take(), [], "{what}");
        driver.start();
        assert_eq!(echo(&mut driver, *b"fine").unwrap(), b"fine", "{what}");
    }
}

fn reconfigure(driver: &mut FakeDriver, register: u64, value: u32) {
    driver.write(offset::QUEUE_SEL, 1);
    driver.write(offset::QUEUE_READY, 0);
    driver.write(register, value);
    driver.write(offset::QUEUE_READY, 1);
}

#[test]
fn a_ready_queue_cannot_be_moved() {
    let (mut driver, _) = driver();
    assert!(driver.negotiate(1 << 32));
    driver.set_up_queue(1);
    driver.set_up_queue(0);
    let ignored = driver.transport.counters().ignored;
    driver.write(offset::QUEUE_DESC_LOW, 0);
    driver.write(offset::QUEUE_NUM, 1);
    assert_eq!(driver.transport.counters().ignored, ignored + 2);
    driver.write(offset::STATUS, 15);
    assert_eq!(echo(&mut driver, *b"here").unwrap(), b"here");
    let ignored = driver.transport.counters().ignored;
    driver.write(offset::QUEUE_DESC_LOW, 0);
    driver.write(offset::QUEUE_NUM, 1);
    driver.write(offset::QUEUE_READY, 1);
    assert_eq!(driver.transport.counters().ignored, ignored + 3);
    assert_eq!(echo(&mut driver, *b"here").unwrap(), b"here");
}

#[test]
fn a_queue_that_the_driver_took_back_is_not_served() {
    let (mut driver, log) = driver();
    driver.start();
    driver.write(offset::QUEUE_SEL, 0);
    driver.write(offset::QUEUE_READY, 0);
    assert_eq!(driver.read(offset::QUEUE_READY), 0);
    log.take();
    assert_eq!(echo(&mut driver, *b"gone"), None);
    assert_eq!(log.take(), []);
    assert_eq!(driver.read(offset::STATUS), 15);
}

#[test]
fn a_device_that_cannot_go_on_says_so_and_recovers_by_a_reset() {
    let (mut driver, log) = driver();
    driver.start();
    let interrupts = driver.interrupt.count();
    assert_eq!(echo(&mut driver, [0xff; 4]), None);
    assert_eq!(driver.read(offset::STATUS), 64 | 15);
    assert_eq!(driver.read(offset::INTERRUPT_STATUS), 2);
    assert_eq!(driver.interrupt.count(), interrupts + 1);
    assert_eq!(driver.transport.counters().needs_reset, 1);
    // Nothing reaches it now but configuration reads.
    log.take();
    driver.notify(0);
    driver.transport.handle_host();
    driver.write(offset::STATUS, 15);
    assert_eq!(log.take(), []);
    assert_eq!(driver.read(offset::STATUS), 64 | 15);
    assert_eq!(driver.read(offset::CONFIG), u32::from_le_bytes([0, 1, 2, 3]));
    driver.start();
    assert_eq!(echo(&mut driver, *b"back").unwrap(), b"back");
    assert_eq!(driver.transport.counters().needs_reset, 1);
}

#[test]
fn a_device_that_fails_to_start_needs_a_reset_too() {
    let mut driver = FakeDriver::new(Box::new(Probe {
        fail_activate: true,
        ..Probe::default()
    }));
    assert!(driver.negotiate(1 << 32));
    driver.set_up_queue(0);
    driver.set_up_queue(1);
    driver.write(offset::STATUS, 15);
    assert_eq!(driver.read(offset::STATUS), 64 | 15);
}

#[test]
fn a_broken_ring_needs_a_reset() {
    let (mut driver, _) = driver();
    driver.start();
    // The available index jumps.
    driver
        .memory
        .write_obj(1000u16, GuestAddress(queue_base(0) + 0x8000 + 2))
        .unwrap();
    driver.notify(0);
    assert_eq!(driver.read(offset::STATUS), 64 | 15);
}

#[test]
fn a_changed_configuration_moves_the_generation_and_interrupts() {
    let (mut driver, _) = driver();
    driver.start();
    let generation = driver.read(offset::CONFIG_GENERATION);
    assert!(echo(&mut driver, [1; 4]).is_some());
    assert_eq!(driver.read(offset::CONFIG_GENERATION), generation);
    driver.write(offset::INTERRUPT_ACK, 3);
    assert!(echo(&mut driver, [0xc0; 4]).is_some());
    assert_ne!(driver.read(offset::CONFIG_GENERATION), generation);
    assert_eq!(driver.read(offset::INTERRUPT_STATUS), 3);
}

#[test]
fn the_configuration_space_takes_the_widths_of_its_fields() {
    let (mut driver, log) = driver();
    driver.start();
    log.take();
    for width in [1usize, 2, 4, 8] {
        let mut data = vec![0xee; width];
        driver.transport.read(offset::CONFIG + 8, &mut data);
        assert_eq!(data, (8..8 + width as u8).collect::<Vec<_>>());
        assert_eq!(driver.transport.write(offset::CONFIG + 8, &data), Effect::None);
        assert_eq!(log.take(), [Seen::Config(8, data)]);
    }
    // Other widths, and fields across their alignment.
    for (at, width) in [(0, 3), (0, 5), (0, 7), (1, 2), (2, 4), (4, 8), (0, 0)] {
        let mut data = vec![0xee; width];
        driver.transport.read(offset::CONFIG + at, &mut data);
        assert_eq!(data, vec![0; width]);
        assert_eq!(driver.transport.write(offset::CONFIG + at, &data), Effect::None);
    }
    // A driver that has not said that it can drive the device has nothing to write.
    driver.write(offset::STATUS, 0);
    log.take();
    assert_eq!(driver.transport.write(offset::CONFIG, &[1]), Effect::None);
    assert_eq!(log.take(), []);
}

#[test]
fn registers_take_aligned_accesses_of_four_bytes_only() {
    let (mut driver, _) = driver();
    for (register, width) in [(0, 1), (0, 2), (0, 8), (2, 4), (1, 4)] {
        let mut data = vec![0xee; width];
        driver.transport.read(register, &mut data);
        assert_eq!(data, vec![0; width]);
    }
    assert_eq!(driver.transport.write(offset::STATUS, &[1]), Effect::None);
    assert_eq!(
        driver.transport.write(offset::STATUS, &[1, 0, 0, 0, 0, 0, 0, 0]),
        Effect::None
    );
    assert_eq!(driver.read(offset::STATUS), 0);
    assert_eq!(driver.transport.counters().ignored, 7);
}

#[test]
fn notifications_of_queues_that_are_not_there_are_ignored() {
    let (mut driver, log) = driver();
    driver.start();
    log.take();
    for queue in [2, 3, 0xffff, 0x1_0000, u32::MAX] {
        driver.write(offset::QUEUE_NOTIFY, queue);
    }
    assert_eq!(log.take(), []);
    assert_eq!(driver.transport.counters().notifications, 0);
}

#[test]
fn host_events_reach_a_running_device_only() {
    let (mut driver, log) = driver();
    driver.transport.handle_host();
    assert_eq!(log.take(), []);
    driver.start();
    log.take();
    driver.transport.handle_host();
    assert_eq!(log.take(), [Seen::Host]);
}

#[test]
fn a_lost_interrupt_is_counted_and_the_device_lives_on() {
    struct NoLine;
    impl Interrupt for NoLine {
        fn trigger(&self) -> std::io::Result<()> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
    }
    let (mut driver, _) = driver();
    driver.transport = MmioTransport::new(
        Box::new(Probe::default()),
        driver.memory.clone(),
        Arc::new(NoLine),
    )
    .unwrap();
    driver.start();
    assert!(echo(&mut driver, *b"ping").is_some());
    assert_eq!(driver.transport.counters().lost_interrupts, 1);
    assert_eq!(driver.read(offset::INTERRUPT_STATUS), 1);
}

#[test]
fn a_device_with_an_impossible_queue_is_refused_by_name() {
    struct Odd;
    impl VirtioDevice for Odd {
        fn device_type(&self) -> u32 {
            2
        }
        fn queue_max_sizes(&self) -> &[u16] {
            &[8, 100]
        }
        fn features(&self) -> u64 {
            0
        }
        fn read_config(&self, _offset: u64, _data: &mut [u8]) {}
        fn activate(&mut self, _active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
            Ok(Outcome::default())
        }
        fn handle_queue(&mut self, _index: u16, _active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
            Ok(Outcome::default())
        }
        fn reset(&mut self) {}
    }
    let (driver, _) = driver();
    let error = MmioTransport::new(Box::new(Odd), driver.memory.clone(), driver.interrupt.clone())
        .err()
        .unwrap();
    assert!(error.to_string().contains("queue 1 of size 100"), "{error}");
}
