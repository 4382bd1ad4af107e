//! The VMM with guests that do one thing as often as they can, for ever. Whatever it is: the VMM's memory and log stay
//! within bounds, and it ends when it is asked to.

mod common;

use std::fs::{self, File};
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{Machine, Outcome, Running, kvm};
use nix::sys::signal::Signal;
use secovia_stub_guests as stubs;
use serde_json::json;

/// How long each storm lasts.
const STORM: Duration = Duration::from_secs(2);

/// What the VMM may grow by: guest memory that the guest or its device writes first while it storms (2 MiB at a time,
/// where the host has huge pages), and some.
const GROWTH_KIB: u64 = 6 << 10;

/// What a guest that does not heed the button gets, and what a busy host may take on top.
const END: Duration = Duration::from_secs(1 + 10);

/// A line of the process's status in KiB.
fn kib(running: &Running, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", running.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Lets the storm rage, and ends it.
fn sit_out(running: Running) -> Outcome {
    let before = kib(&running, "VmRSS:");
    thread::sleep(STORM);
    let most = kib(&running, "VmHWM:");
    assert!(most <= before + GROWTH_KIB, "{most} KiB after {before}");
    running.signal(Signal::SIGTERM);
    let asked = Instant::now();
    let outcome = running.end();
    assert_eq!(outcome.status, Some(5), "{outcome:?}");
    assert!(asked.elapsed() < END, "{:?}", asked.elapsed());
    outcome
}

fn storm(machine: Machine) -> Outcome {
    let machine = machine.argument("--grace 1");
    let mut running = machine.start();
    running.wait_for("ready\n");
    sit_out(running)
}

#[test]
fn a_serial_flood_that_nobody_reads_does_not_hold_the_machine() {
    if !kvm() {
        return;
    }
    let outcome = storm(Machine::stub(stubs::SERIAL_FLOOD));
    assert_eq!(outcome.errors, "");
}

#[test]
fn a_serial_flood_does_not_fill_the_file_that_it_goes_to() {
    if !kvm() {
        return;
    }
    const LIMIT: u64 = 4096;
    let machine = Machine::stub(stubs::SERIAL_FLOOD).argument(&format!("--grace 1 --console-limit {LIMIT}"));
    let path = machine.folder.join("console");
    let running = machine.start_to(Stdio::from(File::create(&path).unwrap()));
    let length = || fs::metadata(&path).unwrap().len();
    let begun = Instant::now();
    let mut most = 0;
    // Until it was begun anew at least once.
    while length() >= most {
        most = length();
        assert!(
            most <= LIMIT && begun.elapsed() < Duration::from_secs(60),
            "{most}"
        );
    }
    sit_out(running);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.len() as u64 <= LIMIT && text.contains("left out]\nx") && text.ends_with('x'));
}

#[test]
fn a_notify_storm_on_a_device_that_breaks_does_not_fill_the_log() {
    if !kvm() {
        return;
    }
    let outcome = storm(Machine::stub(stubs::NOTIFY_STORM));
    let lines = outcome.errors.lines().count();
    // The device broke, which is told; that it broke hundreds of times is not.
    assert!((1..=10).contains(&lines), "{outcome:?}");
    assert!(
        outcome.errors.contains("virtio-blk needs a reset by its driver"),
        "{outcome:?}"
    );
}

#[test]
fn an_interrupt_storm_does_not_hold_the_machine() {
    if !kvm() {
        return;
    }
    let outcome = storm(Machine::stub(stubs::INTERRUPT_STORM));
    assert_eq!(
        (outcome.output.as_str(), outcome.errors.as_str()),
        ("ready\n", "")
    );
}

/// The queue is empty only when the host lets the second vCPU wait: without an end to each call the first would be back
/// from it by chance alone. (That each call has an end, the devices' own tests show.)
#[test]
fn a_disk_queue_that_is_always_full_does_not_hold_the_machine() {
    if !kvm() {
        return;
    }
    let machine = Machine::stub(stubs::DISK_FLOOD).with("/machine-config/vcpu_count", json!(2));
    let outcome = storm(machine);
    assert_eq!(
        (outcome.output.as_str(), outcome.errors.as_str()),
        ("ready\n", "")
    );
}

#[test]
fn a_vsock_flood_gets_no_more_streams_than_there_may_be() {
    if !kvm() {
        return;
    }
    let machine = Machine::stub(stubs::VSOCK_FLOOD)
        .with("/drives", json!([]))
        .with_vsock();
    let service = UnixListener::bind(machine.folder.join("v.sock_99")).unwrap();
    // A service that takes every connection and never lets one go.
    let streams = Arc::new(Mutex::new(Vec::new()));
    let most = Arc::new(AtomicUsize::new(0));
    let (held, counted) = (streams.clone(), most.clone());
    thread::spawn(move || {
        for stream in service.incoming().map_while(Result::ok) {
            let mut held = held.lock().unwrap();
            held.push(stream);
            counted.store(held.len(), Ordering::Relaxed);
        }
    });
    let machine = machine.argument("--grace 1");
    let mut running = machine.start();
    running.wait_for("ready\n");
    let begun = Instant::now();
    let limit = secovia_devices::virtio::vsock::MAX_STREAMS;
    while most.load(Ordering::Relaxed) < limit {
        assert!(begun.elapsed() < Duration::from_secs(60), "{most:?} streams");
        thread::sleep(Duration::from_millis(10));
    }
    let outcome = sit_out(running);
    assert_eq!(most.load(Ordering::Relaxed), limit);
    assert_eq!(outcome.errors, "");
}
