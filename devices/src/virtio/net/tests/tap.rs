//! With a real tap interface, in a network namespace of the test's own; needs root.

use std::io::Write;
use std::net::UdpSocket;
use std::process::Command;

use super::*;
use crate::virtio::transport::Transport;

const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const UDP_HEADERS: usize = 14 + 20 + 8;

/// Runs `test` where no network is but a tap `tap7`, which is up and has the address 10.77.0.1; the guest is 10.77.0.2.
fn with_tap(test: impl FnOnce() + Send + 'static) {
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    let run = move || {
        if let Err(reason) = set_up() {
            let _ = writeln!(std::io::stderr(), "SKIP: {name}: {reason}");
            return;
        }
        test();
    };
    std::thread::spawn(run).join().unwrap();
}

fn set_up() -> Result<(), String> {
    let net = nix::sched::CloneFlags::CLONE_NEWNET;
    nix::sched::unshare(net).map_err(|error| format!("no network namespace of its own: {error}"))?;
    for words in [
        "tuntap add dev tap7 mode tap",
        "addr add 10.77.0.1/24 dev tap7",
        "link set dev tap7 up",
        "neigh replace 10.77.0.2 lladdr 02:00:00:00:00:02 dev tap7",
    ] {
        let status = Command::new("ip").args(words.split(' ')).status();
        if !status.is_ok_and(|status| status.success()) {
            return Err(format!("ip {words} fails"));
        }
    }
    Ok(())
}

fn tap(name: &str) -> NetConfig {
    NetConfig {
        tap: name.into(),
        mac: Some(GUEST_MAC),
        ..config()
    }
}

/// The Internet checksum over a UDP datagram in an IPv4 packet, its own field included: 0 if it is right.
fn checksum(ip: &[u8]) -> u16 {
    let udp = &ip[20..];
    let mut words: Vec<u8> = ip[12..20].to_vec();
    words.extend([0, 17]);
    words.extend((udp.len() as u16).to_be_bytes());
    words.extend(udp);
    if words.len() % 2 == 1 {
        words.push(0);
    }
    let sum: u32 = words
        .chunks(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

/// The next UDP packet that comes to the guest: header and frame. The kernel's own chatter is passed over.
/// `send` again and again: the kernel drops what is sent before it has seen that the tap has a user.
fn receive_udp(driver: &mut FakeDriver, send: impl Fn()) -> (Vec<u8>, Vec<u8>) {
    let started = Instant::now();
    loop {
        send();
        driver.transport.handle_host();
        while let Some((head, len)) = driver.used(RX) {
            let mut packet = driver.get(BUFFERS + u64::from(head) * 0x1000, len as usize);
            let frame = packet.split_off(HEADER_LEN);
            if frame[12..14] == [8, 0] && frame[14 + 9] == 17 {
                return (packet, frame);
            }
        }
        assert!(started.elapsed() < Duration::from_secs(10), "no packet came");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn driver_on_tap(without: u64) -> FakeDriver {
    let net = Net::open(&tap("tap7")).unwrap();
    let mut driver = FakeDriver::new(Box::new(net));
    let features = driver.offered() & !EVENT_IDX & !without;
    driver.start_with(features);
    give(&mut driver, 250, 0x1000);
    driver
}

#[test]
fn datagrams_go_both_ways_with_their_checksums_left_to_the_last() {
    with_tap(|| {
        let socket = UdpSocket::bind("10.77.0.1:4000").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        for (without, left_out) in [(0, true), (1 << VIRTIO_NET_F_GUEST_CSUM, false)] {
            let mut driver = driver_on_tap(without);
            let (header, mut frame) = receive_udp(&mut driver, || {
                socket.send_to(b"to the guest", "10.77.0.2:5000").unwrap();
            });
            assert_eq!(frame[..6], GUEST_MAC);
            assert_eq!(&frame[UDP_HEADERS..], b"to the guest");
            assert_eq!(header[0] & 1 == 1, left_out, "{header:?}");
            assert_eq!(checksum(&frame[14..]) != 0, left_out);
            if left_out {
                assert_eq!(
                    header[6..10],
                    [34, 0, 6, 0],
                    "where the checksum begins, and goes"
                );
            }

            // Back the same way, with the checksum for the host to make: the field holds that of the pseudo header.
            let (to, from) = frame.split_at_mut(6);
            to.swap_with_slice(&mut from[..6]);
            let (source, destination) = frame[26..34].split_at_mut(4);
            source.swap_with_slice(destination);
            let (source, destination) = frame[34..38].split_at_mut(2);
            source.swap_with_slice(destination);
            frame[UDP_HEADERS..].copy_from_slice(b"to the host!");
            let pseudo: u32 = [26, 28, 30, 32]
                .map(|at| u32::from(u16::from_be_bytes([frame[at], frame[at + 1]])))
                .iter()
                .sum::<u32>()
                + 17
                + 20;
            let pseudo = (pseudo & 0xffff) + (pseudo >> 16);
            frame[40..42].copy_from_slice(&(pseudo as u16).to_be_bytes());
            send(&mut driver, &[1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0], &frame);
            let mut answer = [0; 100];
            let (len, from) = socket.recv_from(&mut answer).unwrap();
            assert_eq!(
                (&answer[..len], from.to_string().as_str()),
                (&b"to the host!"[..], "10.77.0.2:5000")
            );
        }
    });
}

#[test]
fn a_tap_that_is_down_costs_packets_and_no_more() {
    with_tap(|| {
        let mut driver = driver_on_tap(0);
        Command::new("ip")
            .args(["link", "set", "dev", "tap7", "down"])
            .status()
            .unwrap();
        send(&mut driver, &[0; HEADER_LEN], &frame(60));
        driver.transport.handle_host();
        assert_eq!(driver.transport.counters().needs_reset, 0);
        // Nor does one that is gone.
        Command::new("ip")
            .args(["link", "del", "dev", "tap7"])
            .status()
            .unwrap();
        send(&mut driver, &[0; HEADER_LEN], &frame(60));
        driver.transport.handle_host();
        assert_eq!(driver.transport.counters().needs_reset, 0);
    });
}

#[test]
fn what_is_no_tap_of_ours_is_refused_by_name() {
    with_tap(|| {
        let open = |name: &str| Net::open(&tap(name)).unwrap_err();
        let error = open("tap8");
        assert!(matches!(error, NetError::Missing { .. }), "{error}");
        assert!(
            error.to_string().contains("ip tuntap add dev tap8 mode tap"),
            "{error}"
        );
        let error = open("lo");
        assert!(matches!(error, NetError::Kind { .. }), "{error}");
        for name in ["", "tap%d", "a-name-of-16-byte", "tap7/x"] {
            let error = open(name);
            assert!(matches!(error, NetError::Missing { .. }), "{error}");
        }
        let first = Net::open(&tap("tap7")).unwrap();
        let error = open("tap7");
        assert!(matches!(error, NetError::InUse { .. }), "{error}");
        assert!(error.to_string().contains("tap7: in use"), "{error}");
        drop(first);
        Net::open(&tap("tap7")).unwrap();
    });
}
