//! The VMM with a network interface on a real tap, and a tiny guest that sends a packet back. Needs root, any KVM.

mod common;

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use common::Machine;
use common::taps::with_taps;
use secovia_stub_guests as stubs;
use serde_json::json;

fn machine() -> Machine {
    Machine::stub(stubs::NET_ECHO).with("/drives", json!([])).with(
        "/network-interfaces",
        json!([{ "iface_id": "eth0", "host_dev_name": "tap0", "guest_mac": "06:00:00:00:00:02" }]),
    )
}

#[test]
fn a_packet_goes_to_the_guest_and_back() {
    with_taps(1, || {
        // With a limit that lets one packet pass in a tenth of a second, both ways: the alarm rings in a real event loop.
        let bucket = json!({ "ops": { "size": 1, "refill_time": 100 } });
        for limit in [json!(null), bucket] {
            let machine = machine()
                .with("/network-interfaces/0/rx_rate_limiter", limit.clone())
                .with("/network-interfaces/0/tx_rate_limiter", limit);
            let mut running = machine.start();
            running.wait_for("ready\n");
            let socket = UdpSocket::bind("10.77.0.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let started = Instant::now();
            let mut answer = [0; 2000];
            let (length, from) = loop {
                // Again and again: the kernel drops what is sent before it has seen that the tap has a user.
                socket.send_to(&[0xa5; 1400], "10.77.0.2:7").unwrap();
                match socket.recv_from(&mut answer) {
                    Ok(received) => break received,
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    Err(error) => panic!("{error}"),
                }
                assert!(started.elapsed() < Duration::from_secs(60), "no packet came back");
            };
            assert_eq!(from.to_string(), "10.77.0.2:7");
            assert_eq!(answer[..length], [0xa5; 1400]);
            let outcome = running.end();
            assert_eq!(
                (outcome.output.as_str(), outcome.status),
                ("ready\necho\n", Some(3)),
                "{outcome:?}"
            );
            assert_eq!(outcome.errors, "");
        }
    });
}

#[test]
fn a_tap_that_cannot_be_had_is_named_with_its_field() {
    with_taps(1, || {
        let outcome = machine()
            .with("/network-interfaces/0/host_dev_name", json!("tap1"))
            .run();
        assert_eq!(outcome.status, Some(2), "{outcome:?}");
        let expected = "network-interfaces.eth0.host_dev_name: tap tap1: there is no such network interface";
        assert!(outcome.errors.contains(expected), "{outcome:?}");

        let first = machine();
        let mut running = first.start();
        running.wait_for("ready\n");
        let outcome = machine().run();
        assert_eq!(outcome.status, Some(2), "{outcome:?}");
        assert!(
            outcome.errors.contains("tap tap0: in use by another process"),
            "{outcome:?}"
        );
    });
}
