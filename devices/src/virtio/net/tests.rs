use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_GUEST_UFO, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU,
};

use super::packet::HEADER_LEN;
use super::*;
use crate::limiter::{BucketConfig, LimiterConfig};
use crate::testing::{BUFFERS, FakeDriver};
use crate::virtio::device::Share;
use crate::virtio::transport::Transport;

mod model;
mod neighbour;
mod tap;

const EVENT_IDX: u64 = 1 << 29;
const MERGEABLE: u64 = 1 << VIRTIO_NET_F_MRG_RXBUF;
const LARGE: u64 = 1 << VIRTIO_NET_F_GUEST_TSO4 | 1 << VIRTIO_NET_F_GUEST_TSO6 | 1 << VIRTIO_NET_F_GUEST_UFO;
const MAC: [u8; 6] = [2, 0, 0, 1, 2, 3];

/// A cable whose other end the test holds: a socket that keeps packets apart, as a tap does.
#[derive(Debug)]
struct Socket {
    socket: OwnedFd,
    offloads: Arc<AtomicU32>,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Link for Socket {
    fn set_offloads(&self, offloads: u32) -> io::Result<()> {
        if self.offloads.swap(offloads, Ordering::Relaxed) == REFUSE {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(())
    }
}

/// Kept by a link that takes no offloads.
const REFUSE: u32 = u32::MAX;

/// The host's end.
struct Host {
    socket: OwnedFd,
    offloads: Arc<AtomicU32>,
}

impl Host {
    /// Sends a packet to the guest, with a header that says nothing.
    fn send(&self, frame: &[u8]) {
        self.send_raw(&[[0; HEADER_LEN].as_slice(), frame].concat());
    }

    fn send_raw(&self, packet: &[u8]) {
        assert_eq!(nix::unistd::write(&self.socket, packet), Ok(packet.len()));
    }

    /// The next packet from the guest: header and frame.
    fn receive(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut packet = vec![0; 70_000];
        let len = nix::unistd::read(&self.socket, &mut packet).ok()?;
        packet.truncate(len);
        let frame = packet.split_off(HEADER_LEN);
        Some((packet, frame))
    }
}

fn config() -> NetConfig {
    NetConfig {
        id: "eth0".into(),
        tap: "tap0".into(),
        mac: Some(MAC),
        mtu: None,
        rx_limit: LimiterConfig::default(),
        tx_limit: LimiterConfig::default(),
    }
}

fn device(config: &NetConfig) -> (Net, Host) {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let (ours, socket) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
    let offloads = Arc::new(AtomicU32::new(0));
    let link = Socket {
        socket: ours,
        offloads: offloads.clone(),
    };
    (
        Net::new(config, Box::new(link)).unwrap(),
        Host { socket, offloads },
    )
}

/// A driver that accepts all but EVENT_IDX and `without`.
fn driver(config: &NetConfig, without: u64) -> (FakeDriver, Host) {
    let (net, host) = device(config);
    let mut driver = FakeDriver::new(Box::new(net));
    let features = driver.offered() & !EVENT_IDX & !without;
    driver.start_with(features);
    (driver, host)
}

fn frame(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 256) as u8).collect()
}

/// Gives the device `count` receive buffers of `len` bytes, one after the other from BUFFERS on.
fn give(driver: &mut FakeDriver, count: u64, len: u32) {
    for number in 0..count {
        driver.add(RX, &[(BUFFERS + number * u64::from(len), len, true)]);
    }
    driver.notify(RX);
}

/// Sends a packet whose header and frame are in one buffer.
fn send(driver: &mut FakeDriver, header: &[u8], frame: &[u8]) {
    let packet = [header, frame].concat();
    driver.put(BUFFERS + 0x10_0000, &packet);
    let used = driver.request(TX, &[(BUFFERS + 0x10_0000, packet.len() as u32, false)]);
    assert_eq!(used, Some(0));
}

#[test]
fn the_guests_packets_reach_the_host_whole() {
    let (mut driver, host) = driver(&config(), 0);
    let first = frame(1514);
    send(&mut driver, &[0; HEADER_LEN], &first);
    assert_eq!(host.receive(), Some((vec![0; HEADER_LEN], first)));
    // Header and frame in pieces, cut where no field ends.
    let packet = [[0; HEADER_LEN].as_slice(), &frame(3000)].concat();
    driver.put(BUFFERS, &packet);
    let pieces = [
        (BUFFERS, 5, false),
        (BUFFERS + 5, 700, false),
        (BUFFERS + 705, 2307, false),
    ];
    assert_eq!(driver.request(TX, &pieces), Some(0));
    assert_eq!(host.receive().unwrap().1, frame(3000));
    assert_eq!(host.receive(), None);
}

#[test]
fn a_packet_in_more_pieces_than_one_call_takes_is_whole() {
    let (mut driver, host) = driver(&config(), 0);
    driver.put(BUFFERS, &[[0; HEADER_LEN].as_slice(), &frame(1000)].concat());
    let pieces: Vec<_> = (0..253).map(|piece| (BUFFERS + piece * 4, 4, false)).collect();
    assert_eq!(driver.request(TX, &pieces), Some(0));
    assert_eq!(host.receive().unwrap().1, frame(1000));
}

#[test]
fn what_is_no_packet_is_dropped_and_the_next_one_goes() {
    let (mut driver, host) = driver(&config(), 1 << VIRTIO_NET_F_GUEST_CSUM);
    send(&mut driver, &[0; 11], &[]);
    send(&mut driver, &[0; HEADER_LEN], &frame(13));
    send(&mut driver, &[0; HEADER_LEN], &frame(66_000));
    // A checksum outside of the frame.
    send(&mut driver, &[1, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0, 0], &frame(101));
    // A buffer of the wrong direction: there is nothing to send in it.
    assert_eq!(driver.request(TX, &[(BUFFERS, 100, true)]), Some(0));
    assert_eq!(driver.request(TX, &[(BUFFERS, 0, false)]), Some(0));
    assert_eq!(host.receive(), None);
    send(
        &mut driver,
        &[0xff, 0, 1, 2, 3, 4, 34, 0, 16, 0, 9, 9],
        &frame(60),
    );
    let header = vec![1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0];
    assert_eq!(host.receive(), Some((header, frame(60))));
    assert_eq!(driver.transport.counters().needs_reset, 0);
}

#[test]
fn a_host_that_takes_no_packet_costs_that_packet() {
    let (mut driver, host) = driver(&config(), 0);
    // Until the socket is full.
    for _ in 0..40 {
        send(&mut driver, &[0; HEADER_LEN], &frame(60_000));
    }
    while host.receive().is_some() {}
    send(&mut driver, &[0; HEADER_LEN], &frame(60));
    assert_eq!(host.receive().unwrap().1, frame(60));
}

#[test]
fn a_packet_comes_in_one_buffer() {
    let (mut driver, host) = driver(&config(), 0);
    give(&mut driver, 64, 1530);
    let interrupts = driver.interrupt.count();
    let mut packet = [[0xff; HEADER_LEN].as_slice(), &frame(1514)].concat();
    host.send_raw(&packet);
    driver.transport.handle_host();
    assert_eq!(driver.used(RX), Some((0, 1526)));
    assert_eq!(driver.used(RX), None);
    assert_eq!(driver.interrupt.count(), interrupts + 1);
    packet[10..12].copy_from_slice(&[1, 0]);
    assert_eq!(driver.get(BUFFERS, packet.len()), packet);
    assert_eq!(driver.get(BUFFERS + 1526, 4), [0; 4], "nothing past the packet");
}

#[test]
fn a_large_packet_comes_in_several_buffers_that_show_at_once() {
    let (mut driver, host) = driver(&config(), 0);
    give(&mut driver, 64, 1530);
    host.send(&frame(40_000));
    driver.transport.handle_host();
    let mut packet = Vec::new();
    for number in 0..27 {
        let len = if number < 26 { 1530 } else { 40_012 - 26 * 1530 };
        assert_eq!(driver.used(RX), Some((number, len)));
        packet.extend(driver.get(BUFFERS + u64::from(number) * 1530, len as usize));
    }
    assert_eq!(driver.used(RX), None);
    assert_eq!(packet[10..12], [27, 0]);
    assert_eq!(packet[HEADER_LEN..], frame(40_000));
    // The 37 left have room for no packet of the largest kind; a small one goes through all the same.
    host.send(&frame(99));
    driver.transport.handle_host();
    assert_eq!(driver.used(RX), Some((27, 111)));
    assert_eq!(driver.get(BUFFERS + 27 * 1530 + 10, 2), [1, 0]);
    assert_eq!(driver.get(BUFFERS + 27 * 1530 + 12, 99), frame(99));
}

#[test]
fn a_packet_waits_for_buffers() {
    let (mut driver, host) = driver(&config(), 0);
    host.send(&frame(100));
    driver.transport.handle_host();
    assert_eq!(driver.used(RX), None);
    give(&mut driver, 1, 4096);
    assert_eq!(driver.used(RX), Some((0, 112)));
    // Larger than what is there: it waits, in order, and goes into what comes.
    give(&mut driver, 1, 2000);
    host.send(&frame(5000));
    host.send(&frame(100));
    driver.transport.handle_host();
    assert_eq!(driver.used(RX), None);
    give(&mut driver, 1, 2000);
    assert_eq!(driver.used(RX), None);
    driver.add(RX, &[(BUFFERS + 0x4000, 2000, true)]);
    driver.notify(RX);
    let used: Vec<_> = std::iter::from_fn(|| driver.used(RX)).collect();
    assert_eq!(used, [(1, 2000), (2, 2000), (3, 1012)]);
    assert_eq!(driver.get(BUFFERS + 0x4000, 1012), frame(5000)[3988..]);
    give(&mut driver, 1, 2000);
    assert_eq!(driver.used(RX), Some((4, 112)));
}

#[test]
fn a_packet_that_never_fits_is_dropped() {
    // All 256 buffers are 20 bytes long: 5120 in all.
    let (mut driver, host) = driver(&config(), 0);
    give(&mut driver, 256, 20);
    host.send(&frame(5200));
    host.send(&frame(50));
    driver.transport.handle_host();
    let used: Vec<_> = std::iter::from_fn(|| driver.used(RX)).collect();
    assert_eq!(used, [(0, 20), (1, 20), (2, 20), (3, 2)]);
    assert_eq!(driver.get(BUFFERS + 12, 50), frame(50));
}

#[test]
fn without_mergeable_buffers_each_packet_has_one() {
    let (mut driver, host) = driver(&config(), MERGEABLE | LARGE);
    give(&mut driver, 4, 1526);
    host.send(&frame(1514));
    host.send(&frame(1515));
    host.send(&frame(70));
    driver.transport.handle_host();
    let used: Vec<_> = std::iter::from_fn(|| driver.used(RX)).collect();
    assert_eq!(used, [(0, 1526), (1, 82)], "the one that is too long is dropped");
    assert_eq!(driver.get(BUFFERS + 10, 2), [1, 0]);
    assert_eq!(driver.get(BUFFERS + 12, 1514), frame(1514));
    // A buffer that is shorter than it should be still takes what fits.
    let features = driver.offered() & !EVENT_IDX & !MERGEABLE & !LARGE;
    driver.start_with(features);
    give(&mut driver, 4, 500);
    host.send(&frame(600));
    host.send(&frame(400));
    driver.transport.handle_host();
    let used: Vec<_> = std::iter::from_fn(|| driver.used(RX)).collect();
    assert_eq!(used, [(0, 412)]);
    assert_eq!(driver.get(BUFFERS + 12, 400), frame(400));
}

#[test]
fn a_receive_buffer_without_room_for_a_header_needs_a_reset() {
    for buffer in [(BUFFERS, 11, true), (BUFFERS, 2000, false)] {
        let (mut driver, host) = driver(&config(), 0);
        host.send(&frame(100));
        driver.transport.handle_host();
        driver.add(RX, &[buffer]);
        driver.notify(RX);
        assert_eq!(driver.transport.counters().needs_reset, 1);
        driver.start();
        give(&mut driver, 64, 1530);
        host.send(&frame(100));
        driver.transport.handle_host();
        assert_eq!(driver.used(RX), Some((0, 112)));
    }
}

#[test]
fn a_driver_without_checksums_hears_nothing_of_them() {
    let (mut driver, host) = driver(&config(), 1 << VIRTIO_NET_F_GUEST_CSUM);
    give(&mut driver, 64, 1530);
    host.send_raw(&[[2; HEADER_LEN].as_slice(), &frame(60)].concat());
    driver.transport.handle_host();
    assert_eq!(driver.used(RX), Some((0, 72)));
    assert_eq!(driver.get(BUFFERS, 2), [0, 2]);
}

#[test]
fn the_link_offloads_what_was_agreed_on_and_nothing_after_a_reset() {
    let all = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN | libc::TUN_F_UFO;
    for (without, expected) in [
        (0, all),
        (1 << VIRTIO_NET_F_GUEST_CSUM, 0),
        (LARGE, libc::TUN_F_CSUM),
        (
            1 << VIRTIO_NET_F_GUEST_ECN | 1 << VIRTIO_NET_F_GUEST_UFO,
            libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6,
        ),
    ] {
        let (mut driver, host) = driver(&config(), without);
        assert_eq!(host.offloads.load(Ordering::Relaxed), expected);
        // What came for this driver is nothing for the next.
        host.send(&frame(100));
        driver.write(crate::virtio::mmio::offset::STATUS, 0);
        assert_eq!(host.offloads.load(Ordering::Relaxed), 0);
        driver.start();
        give(&mut driver, 64, 1530);
        driver.transport.handle_host();
        assert_eq!(driver.used(RX), None);
    }
}

#[test]
fn a_link_that_cannot_offload_what_was_agreed_on_does_not_start() {
    let (net, host) = device(&config());
    let mut driver = FakeDriver::new(Box::new(net));
    host.offloads.store(REFUSE, Ordering::Relaxed);
    let features = driver.offered();
    assert!(driver.negotiate(features));
    driver.set_up_queue(RX);
    driver.set_up_queue(TX);
    driver.write(crate::virtio::mmio::offset::STATUS, 15);
    assert_eq!(driver.transport.counters().needs_reset, 1);
}

#[test]
fn the_configuration_space_tells_address_link_and_mtu() {
    let jumbo = NetConfig {
        mtu: Some(9000),
        ..config()
    };
    let mut driver = FakeDriver::new(Box::new(device(&jumbo).0));
    let offered = driver.offered();
    assert_ne!(offered & (1 << VIRTIO_NET_F_MAC), 0);
    assert_ne!(offered & (1 << VIRTIO_NET_F_MTU), 0);
    let mut word = |offset| driver.read(crate::virtio::mmio::offset::CONFIG + offset);
    assert_eq!(
        [word(0), word(4), word(8), word(12)],
        [0x0100_0002, 0x0001_0302, 9000 << 16, 0]
    );
    let anonymous = NetConfig {
        mac: None,
        ..config()
    };
    let mut driver = FakeDriver::new(Box::new(device(&anonymous).0));
    let offered = driver.offered();
    assert_eq!(offered & (1 << VIRTIO_NET_F_MAC | 1 << VIRTIO_NET_F_MTU), 0);
}

#[test]
fn a_call_whose_share_is_over_leaves_the_rest_to_the_next() {
    let (mut net, host) = device(&config());
    // The rings are filled by a driver whose own device never runs.
    let (mut driver, _other) = driver(&config(), 0);
    for number in 0..3 {
        driver.add(RX, &[(BUFFERS + number * 0x1_1000, 0x1_1000, true)]);
        driver.add(TX, &[(BUFFERS + 0x10_0000, 72, false)]);
        host.send(&frame(60));
    }
    let mut queues = [driver.queue(RX), driver.queue(TX)];
    let memory = driver.memory.clone();
    let mut call = |net: &mut Net, length: Duration, work: &dyn Fn(&mut Net, &mut Active<'_>) -> Outcome| {
        let mut active = Active {
            memory: &memory,
            queues: &mut queues,
            features: MERGEABLE,
            share: Share::of(length),
        };
        let interrupt = work(net, &mut active).interrupt;
        (interrupt, active.share.was_cut_short())
    };
    let hour = Duration::from_secs(3600);
    call(&mut net, hour, &|net, active| net.activate(active).unwrap());
    let sent = |host: &Host| std::iter::from_fn(|| host.receive()).count();
    let used = |driver: &mut FakeDriver, queue| std::iter::from_fn(|| driver.used(queue)).count();
    let turn = call(&mut net, Duration::ZERO, &|net, active| {
        net.handle_queue(TX, active).unwrap()
    });
    assert_eq!(turn, (true, true));
    assert_eq!((sent(&host), used(&mut driver, TX)), (1, 1));
    // The rest is the event loop's, with what has come meanwhile.
    for round in 1..=3 {
        let turn = call(&mut net, Duration::ZERO, &|net, active| {
            net.handle_host(active).unwrap()
        });
        assert_eq!(turn, (true, true), "round {round}");
        assert_eq!(used(&mut driver, RX), 1);
        assert_eq!(
            (sent(&host), used(&mut driver, TX)),
            if round < 3 { (1, 1) } else { (0, 0) }
        );
    }
    for queue in [TX, RX] {
        let last = call(&mut net, Duration::ZERO, &|net, active| {
            net.handle_queue(queue, active).unwrap()
        });
        assert_eq!(last, (false, false));
    }
}

/// A copy of the descriptor by which the device is called when its alarm rings.
fn alarm(net: &Net) -> OwnedFd {
    net.port.alarm.as_fd().try_clone_to_owned().unwrap()
}

fn rings(alarm: &OwnedFd) -> bool {
    use nix::poll::{PollFd, PollFlags, poll};
    poll(&mut [PollFd::new(alarm.as_fd(), PollFlags::POLLIN)], 5000u16).unwrap() == 1
}

fn operations(size: u64, refill_time: u64) -> LimiterConfig {
    LimiterConfig {
        bandwidth: None,
        operations: Some(BucketConfig {
            size,
            one_time_burst: 0,
            refill_time,
        }),
    }
}

#[test]
fn limits_hold_in_both_directions_and_nothing_is_lost() {
    let limited = NetConfig {
        rx_limit: operations(10, 100),
        tx_limit: operations(20, 200),
        ..config()
    };
    let (net, host) = device(&limited);
    let alarm = alarm(&net);
    let mut driver = FakeDriver::new(Box::new(net));
    driver.start();
    let started = Instant::now();
    give(&mut driver, 256, 1530);
    for number in 0..50 {
        host.send(&frame(60 + number));
    }
    driver.put(BUFFERS + 0x20_0000, &[0; 200]);
    for _ in 0..50 {
        driver.add(TX, &[(BUFFERS + 0x20_0000, 72, false)]);
    }
    driver.transport.handle_host();
    driver.notify(TX);
    let (mut received, mut sent) = (0, 0);
    loop {
        while let Some((head, len)) = driver.used(RX) {
            assert_eq!((head, len), (received, 72 + received));
            received += 1;
        }
        while host.receive().is_some() {
            sent += 1;
        }
        // 10 at once, and one each 10 ms; 20, and one each 10 ms.
        let milliseconds = started.elapsed().as_millis();
        assert!(
            u128::from(received) <= 11 + milliseconds / 10,
            "{received} after {milliseconds} ms"
        );
        assert!(sent <= 21 + milliseconds / 10, "{sent} after {milliseconds} ms");
        if (received, sent) == (50, 50) {
            break;
        }
        assert!(rings(&alarm), "{received} received, {sent} sent");
        driver.transport.handle_host();
    }
    assert!(started.elapsed() >= Duration::from_millis(390));
}

#[test]
fn with_event_idx_the_driver_is_told_when_it_wants_to_be() {
    let (net, host) = device(&config());
    let mut driver = FakeDriver::new(Box::new(net));
    let features = driver.offered();
    driver.start_with(features);
    give(&mut driver, 100, 1530);
    driver.want_interrupt(RX);
    for _ in 0..3 {
        host.send(&frame(3000));
    }
    let interrupts = driver.interrupt.count();
    driver.transport.handle_host();
    assert_eq!(driver.interrupt.count(), interrupts + 1);
    assert_eq!(std::iter::from_fn(|| driver.used(RX)).count(), 6);
    // It has not asked again.
    host.send(&frame(3000));
    driver.transport.handle_host();
    assert_eq!(driver.interrupt.count(), interrupts + 1);
    while driver.used(RX).is_some() {}
    // The second of the next packet's two.
    let event = crate::testing::queue_base(RX) + 0x8000 + 4 + 2 * 256;
    driver.put(event, &9u16.to_le_bytes());
    host.send(&frame(3000));
    driver.transport.handle_host();
    assert_eq!(
        driver.interrupt.count(),
        interrupts + 2,
        "it wanted to hear of a buffer in the middle"
    );
}

#[test]
fn without_event_idx_the_drivers_flag_is_heeded() {
    let (mut driver, host) = driver(&config(), 0);
    give(&mut driver, 64, 1530);
    let flags = crate::testing::queue_base(RX) + 0x8000;
    driver.put(flags, &[1, 0]);
    let interrupts = driver.interrupt.count();
    host.send(&frame(60));
    driver.transport.handle_host();
    assert_eq!(driver.interrupt.count(), interrupts);
    driver.put(flags, &[0, 0]);
    host.send(&frame(60));
    driver.transport.handle_host();
    assert_eq!(driver.interrupt.count(), interrupts + 1);
}
