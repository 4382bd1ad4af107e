//! The VMM with tiny guests, on any KVM.

mod common;

use std::process::Command;
use std::time::Duration;

use common::{DISK_CONTENTS, Machine, kvm};
use nix::pty::openpty;
use nix::sys::signal::Signal;
use nix::sys::termios::{LocalFlags, tcgetattr};
use secovia_stub_guests::{self as stubs, Guest, back_door};
use serde_json::json;

/// Runs a guest to its end and holds its output and the exit status against what they should be.
fn check(guest: Guest, output: &str, status: i32) {
    for elf in [guest.elf(), guest.pvh_elf()] {
        let outcome = Machine::bytes(&elf).run();
        assert_eq!(
            (outcome.output.as_str(), outcome.status),
            (output, Some(status)),
            "{}: {outcome:?}",
            guest.name
        );
        assert_eq!(outcome.errors, "", "{}", guest.name);
    }
}

#[test]
fn every_way_to_end_has_its_status() {
    if !kvm() {
        return;
    }
    check(stubs::HELLO, "stub\n", 3);
    check(stubs::ACPI_RESET, "acpi\n", 3);
    check(stubs::TRIPLE_FAULT, "fault\n", 3);
    check(stubs::POWER_OFF, "off\n", 0);
    check(stubs::PANIC, "panic\n", 4);
}

#[test]
fn nothing_answers_where_nothing_is() {
    if !kvm() {
        return;
    }
    check(stubs::NOTHING_THERE, "nothing\n", 3);
}

/// The guest is there that tests break out with; the device is not.
#[test]
fn there_is_no_back_door() {
    if !kvm() {
        return;
    }
    let guest = back_door::guest(&[back_door::Call::new(libc::SYS_getpid, [])]);
    let outcome = Machine::bytes(&guest).run();
    assert_eq!(
        (outcome.output.as_str(), outcome.errors.as_str(), outcome.status),
        ("closed\n", "", Some(3)),
        "{outcome:?}"
    );
}

#[test]
fn a_disk_is_read_by_polling_and_by_interrupt() {
    if !kvm() {
        return;
    }
    let contents = std::str::from_utf8(DISK_CONTENTS).unwrap();
    check(stubs::DISK_READ, contents, 3);
    check(stubs::DISK_INTERRUPT, contents, 3);
}

#[test]
fn a_disk_is_read_in_rounds_by_either_engine() {
    if !kvm() {
        return;
    }
    for engine in ["Sync", "Async"] {
        let machine = Machine::stub(stubs::DISK_ROUNDS).with("/drives/0/io_engine", json!(engine));
        let mut running = machine.start();
        running.wait_for("ready\n");
        for round in 1..4 {
            running.type_in("\n");
            running.wait_for(&"ready\n".repeat(round + 1));
        }
        running.type_in("q");
        let outcome = running.end();
        assert_eq!(
            (outcome.output.as_str(), outcome.status),
            ("ready\nready\nready\nready\n", Some(3)),
            "{engine}: {outcome:?}"
        );
    }
}

/// A filter that knows no io_uring stands for such a kernel.
#[test]
fn a_host_without_io_uring_is_named_and_what_to_do() {
    const RULES: &str = include_str!("../seccomp/rules.json");
    let there = r#""call": "io_uring_setup","#;
    assert!(RULES.contains(there));
    let machine = Machine::stub(stubs::DISK_READ).with("/drives/0/io_engine", json!("Async"));
    let rules = machine.folder.join("rules.json");
    let lacking = format!(r#"{there} "answer": "ENOSYS","#);
    std::fs::write(&rules, RULES.replace(there, &lacking)).unwrap();
    let outcome = machine
        .argument(&format!("--seccomp-filter {}", rules.display()))
        .run();
    assert_eq!(outcome.status, Some(2), "{outcome:?}");
    let line = outcome.errors.as_str();
    assert!(
        line.contains("drives.disk.path_on_host: disk")
            && line.contains("io_engine Async: make an io_uring: Function not implemented")
            && line.contains("or give Sync"),
        "{line}"
    );
}

/// On two kinds of file system: most write zeroes by themselves, tmpfs has them written one by one.
#[test]
fn a_disk_is_erased() {
    if !kvm() {
        return;
    }
    for folder in [std::env::temp_dir(), "/dev/shm".into()] {
        let disk = folder.join(format!("secovia-vmm-erase-{}", std::process::id()));
        std::fs::write(&disk, [0xaa; 32 << 9]).unwrap();
        let outcome = Machine::stub(stubs::DISK_ERASE)
            .with("/drives/0/path_on_host", json!(disk))
            .run();
        let contents = std::fs::read(&disk).unwrap();
        std::fs::remove_file(&disk).unwrap();
        assert_eq!(
            (outcome.output.as_str(), outcome.status),
            ("erased\n", Some(3)),
            "{outcome:?}"
        );
        let (erased, rest) = contents.split_at(16 << 9);
        assert!(erased.iter().all(|byte| *byte == 0) && rest.iter().all(|byte| *byte == 0xaa));
    }
}

#[test]
fn the_guest_starts_its_second_vcpu() {
    if !kvm() {
        return;
    }
    let machine = Machine::stub(stubs::SECOND_CPU).with("/machine-config/vcpu_count", json!(2));
    let outcome = machine.run();
    assert_eq!(
        (outcome.output.as_str(), outcome.status),
        ("AP\n", Some(3)),
        "{outcome:?}"
    );
}

#[test]
fn what_is_typed_reaches_the_guest() {
    if !kvm() {
        return;
    }
    // More than the serial port holds at a time.
    let line = "0123456789abcdef".repeat(20) + "\n";
    let machine = Machine::stub(stubs::ECHO);
    let mut running = machine.start();
    running.wait_for("ready\n");
    running.type_in(&line);
    let outcome = running.end();
    assert_eq!(
        (outcome.output, outcome.status),
        (format!("ready\n{line}"), Some(3))
    );
}

/// A terminal of its own, as a shell gives it: raw while the machine has it, and as before afterwards.
#[test]
fn a_terminal_is_raw_while_the_machine_runs() {
    if !kvm() {
        return;
    }
    let machine = Machine::stub(stubs::POWER_BUTTON);
    let terminal = openpty(None, None).unwrap();
    let in_lines = || {
        tcgetattr(&terminal.slave)
            .unwrap()
            .local_flags
            .contains(LocalFlags::ICANON)
    };
    assert!(in_lines());
    let mut session = Command::new("setsid");
    session.arg("--ctty");
    let mut running = machine.start_by(session, terminal.slave.try_clone().unwrap().into());
    running.wait_for("ready\n");
    assert!(!in_lines());
    running.signal(Signal::SIGTERM);
    let outcome = running.end();
    assert_eq!(outcome.status, Some(0), "{outcome:?}");
    assert!(in_lines());
}

#[test]
fn sigterm_presses_the_power_button() {
    if !kvm() {
        return;
    }
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let machine = Machine::stub(stubs::POWER_BUTTON);
        let mut running = machine.start();
        running.wait_for("ready\n");
        running.signal(signal);
        let outcome = running.end();
        assert_eq!(outcome.status, Some(0), "{outcome:?}");
    }
}

#[test]
fn a_guest_that_ignores_the_button_is_ended_after_the_grace() {
    if !kvm() {
        return;
    }
    let machine = Machine::stub(stubs::IDLE).argument("--grace 1");
    let mut running = machine.start();
    running.wait_for("ready\n");
    running.signal(Signal::SIGTERM);
    let outcome = running.end();
    assert_eq!(outcome.status, Some(5), "{outcome:?}");
    assert!(outcome.taken >= Duration::from_secs(1), "{outcome:?}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    if !kvm() {
        return;
    }
    let machine = Machine::stub(stubs::IDLE).argument("--grace 600");
    let mut running = machine.start();
    running.wait_for("ready\n");
    // Two signals of one kind that are pending together are one.
    running.signal(Signal::SIGTERM);
    running.signal(Signal::SIGINT);
    let outcome = running.end();
    assert_eq!(outcome.status, Some(5), "{outcome:?}");
    assert!(outcome.taken < Duration::from_secs(60), "{outcome:?}");
}

#[test]
fn the_socket_is_there_while_the_machine_is_and_gone_afterwards() {
    if !kvm() {
        return;
    }
    for (guest, text, signal, status) in [
        (stubs::POWER_BUTTON, "ready\n", true, 0),
        (stubs::HELLO, "stub\n", false, 3),
        (stubs::PANIC, "panic\n", false, 4),
    ] {
        let machine = Machine::stub(guest).with_vsock();
        let mut running = machine.start();
        running.wait_for(text);
        if signal {
            assert!(machine.socket().exists());
            running.signal(Signal::SIGTERM);
        }
        let outcome = running.end();
        assert_eq!(outcome.status, Some(status), "{outcome:?}");
        assert!(!machine.socket().exists(), "{}", guest.name);
    }
}

#[test]
fn a_log_goes_to_its_file() {
    if !kvm() {
        return;
    }
    let machine = Machine::stub(stubs::POWER_BUTTON);
    let log = machine.folder.join("log");
    let machine = machine.argument(&format!("--level debug --id a-1 --log-path {}", log.display()));
    let mut running = machine.start();
    running.wait_for("ready\n");
    running.signal(Signal::SIGTERM);
    let outcome = running.end();
    assert_eq!(outcome.errors, "");
    let text = std::fs::read_to_string(log).unwrap();
    assert!(
        text.contains("[a-1] INFO  asked to end: power button pressed"),
        "{text}"
    );
}

#[test]
fn a_guest_that_has_booted_is_timed_once_where_that_was_asked_for() {
    if !kvm() {
        return;
    }
    for (words, lines) in [("--level info --boot-timer", 1), ("--level info", 0)] {
        let outcome = Machine::stub(stubs::BOOTED).argument(words).run();
        assert_eq!(
            (outcome.output.as_str(), outcome.status),
            ("booted\n", Some(3)),
            "{outcome:?}"
        );
        let mut found = outcome
            .errors
            .lines()
            .filter_map(|line| line.split_once("Guest-boot-time = "));
        assert_eq!(found.clone().count(), lines, "{outcome:?}");
        if let Some((_, times)) = found.next() {
            let micros: u128 = times.trim_start().split(' ').next().unwrap().parse().unwrap();
            assert!(micros > 0 && micros <= outcome.taken.as_micros(), "{times}");
        }
    }
}

#[test]
fn a_disk_is_no_two_machines_to_write() {
    if !kvm() {
        return;
    }
    let first = Machine::stub(stubs::IDLE);
    let mut running = first.start();
    running.wait_for("ready\n");
    let disk = first.spec.pointer("/drives/0/path_on_host").unwrap().clone();
    let outcome = Machine::stub(stubs::HELLO)
        .with("/drives/0/path_on_host", disk)
        .run();
    assert_eq!(outcome.status, Some(2), "{outcome:?}");
    assert!(
        outcome.errors.contains("drives.disk.path_on_host: disk"),
        "{outcome:?}"
    );
    assert!(
        outcome.errors.contains("in use by another process"),
        "{outcome:?}"
    );
}

#[test]
fn the_probe_reports_figures() {
    if !kvm() {
        return;
    }
    let output = std::process::Command::new(common::vmm())
        .arg("--probe")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["api_version"], 12);
    assert_eq!(report["missing"], json!([]));
    let speed = report["instructions_per_second"].as_u64().unwrap();
    assert!(speed > 1000, "{report}");
    assert!(report["exits_per_second"].as_u64().unwrap() > 100, "{report}");
    assert_eq!(report["hardware_speed"], speed >= 100_000_000, "{report}");
}
