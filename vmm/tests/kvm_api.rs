//! The API's way with a machine: from nothing to its end.

mod common;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use common::{DISK_CONTENTS, Machine, kvm};
use nix::sys::signal::Signal;
use secovia_stub_guests as stubs;
use serde_json::{Value, json};

/// Describes `machine` to its API, part by part.
fn describe(machine: &Machine, api: &common::api::Api) {
    for (key, value) in machine.spec.as_object().unwrap() {
        match value {
            Value::Array(list) => {
                for item in list {
                    let id = item.get("drive_id").or(item.get("iface_id")).unwrap();
                    api.set(&format!("/{key}/{}", id.as_str().unwrap()), item);
                }
            }
            value => api.set(&format!("/{key}"), value),
        }
    }
}

const START: &str = r#"{"action_type": "InstanceStart"}"#;

#[test]
fn a_machine_is_described_started_and_read() {
    if !kvm() {
        return;
    }
    let machine = Machine::stub(stubs::DISK_READ);
    let (running, api) = machine.start_empty();
    let mode = std::fs::metadata(machine.api_socket())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600, "only its owner may use it");
    describe(&machine, &api);
    api.set("/actions", START);
    let outcome = running.end();
    let contents = std::str::from_utf8(DISK_CONTENTS).unwrap();
    assert_eq!(
        (outcome.output.as_str(), outcome.errors.as_str(), outcome.status),
        (contents, "", Some(3)),
        "{outcome:?}"
    );
    assert!(!machine.api_socket().exists());
}

#[test]
fn a_paused_guest_does_nothing_until_it_goes_on() {
    if !kvm() {
        return;
    }
    let machine = Machine::stub(stubs::ECHO);
    let (mut running, api) = machine.start_served();
    running.wait_for("ready\n");
    assert_eq!(api.get("/").body["state"], "Running");
    for _ in 0..3 {
        assert_eq!(api.patch("/vm", r#"{"state": "Paused"}"#).status, 204);
    }
    assert_eq!(api.get("/").body["state"], "Paused");
    running.type_in("a");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(api.patch("/vm", r#"{"state": "Resumed"}"#).status, 204);
    assert_eq!(api.get("/").body["state"], "Running");
    running.wait_for("ready\na");
    running.type_in("\n");
    let outcome = running.end();
    assert_eq!(
        (outcome.output.as_str(), outcome.status),
        ("ready\na\n", Some(3)),
        "{outcome:?}"
    );
}

#[test]
fn vcpus_are_parked_and_come_back_however_often() {
    if !kvm() {
        return;
    }
    let machine = Machine::stub(stubs::SERIAL_FLOOD).with("/machine-config/vcpu_count", json!(2));
    let (mut running, api) = machine.start_served();
    running.wait_for("ready\n");
    for _ in 0..20 {
        assert_eq!(api.patch("/vm", r#"{"state": "Paused"}"#).status, 204);
        assert_eq!(api.patch("/vm", r#"{"state": "Resumed"}"#).status, 204);
    }
    running.signal(Signal::SIGTERM);
    running.signal(Signal::SIGINT);
    assert_eq!(running.end().status, Some(5));
}

#[test]
fn ctrl_alt_del_presses_the_power_button() {
    if !kvm() {
        return;
    }
    let machine = Machine::stub(stubs::POWER_BUTTON);
    let (mut running, api) = machine.start_served();
    running.wait_for("ready\n");
    api.set("/actions", r#"{"action_type": "SendCtrlAltDel"}"#);
    assert_eq!(running.end().status, Some(0));
}

#[test]
fn a_start_that_the_host_refuses_can_be_tried_again() {
    if !kvm() {
        return;
    }
    let first = Machine::stub(stubs::IDLE);
    let (mut holder, _) = first.start_served();
    holder.wait_for("ready\n");
    let machine = Machine::stub(stubs::HELLO);
    let (running, api) = machine.start_empty();
    let missing = api.put("/actions", START);
    assert_eq!(
        (missing.status, missing.fault()),
        (400, "boot-source: missing; name a kernel with kernel_image_path")
    );
    describe(&machine, &api);
    let taken =
        json!({ "drive_id": "disk", "path_on_host": first.folder.join("disk"), "is_root_device": false });
    api.set("/drives/disk", &taken);
    let refused = api.put("/actions", START);
    assert!(
        refused.fault().contains("in use by another process"),
        "{refused:?}"
    );
    describe(&machine, &api);
    api.set("/actions", START);
    assert_eq!(running.end().output, "stub\n");
}

#[test]
fn a_start_that_comes_to_grief_is_answered_and_ends_the_process() {
    if !kvm() {
        return;
    }
    let machine = Machine::bytes(b"this is no kernel");
    let (running, api) = machine.start_empty();
    describe(&machine, &api);
    let refused = api.put("/actions", START);
    assert_eq!(refused.status, 400);
    assert!(refused.fault().contains("kernel"), "{refused:?}");
    let outcome = running.end();
    assert_eq!(outcome.status, Some(2), "{outcome:?}");
    assert!(!machine.api_socket().exists());
}

#[test]
fn a_signal_before_the_start_is_the_end() {
    let machine = Machine::stub(stubs::HELLO);
    let (running, api) = machine.start_empty();
    assert_eq!(api.get("/").body["state"], "Not started");
    running.signal(Signal::SIGTERM);
    let outcome = running.end();
    assert_eq!(outcome.status, Some(0), "{outcome:?}");
    assert!(!machine.api_socket().exists());
}

#[test]
fn a_socket_that_is_there_is_not_taken_over() {
    let machine = Machine::stub(stubs::HELLO);
    std::fs::write(machine.api_socket(), "mine").unwrap();
    let words = format!("--api-sock {}", machine.api_socket().display());
    let output = std::process::Command::new(common::vmm())
        .args(words.split(' '))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("exists already; remove it"), "{text}");
    assert_eq!(std::fs::read_to_string(machine.api_socket()).unwrap(), "mine");
}

/// Requests of the guest's before it is ready for the first time: it tries its disk once.
const FIRST_ROUND: u64 = stubs::DISK_ROUND as u64 + 1;

/// A drive's limiter that lets `size` requests through, and no more for an hour.
fn hourly(size: u64) -> Value {
    json!({ "ops": { "size": size, "refill_time": 3_600_000 } })
}

#[test]
fn a_limit_and_a_disk_change_while_the_guest_reads() {
    if kvm() {
        ["Sync", "Async"].into_iter().for_each(change_while_it_reads);
    }
}

fn change_while_it_reads(engine: &str) {
    let machine = Machine::stub(stubs::DISK_ROUNDS)
        .with("/drives/0/io_engine", json!(engine))
        .with("/drives/0/rate_limiter", hourly(FIRST_ROUND));
    let (mut running, api) = machine.start_served();
    running.wait_for("ready\n");
    // The next round is held back.
    running.type_in("\n");
    std::thread::sleep(Duration::from_millis(100));
    let lifted = Instant::now();
    let patch = json!({ "drive_id": "disk", "rate_limiter": { "ops": { "size": 0, "refill_time": 0 } } });
    assert_eq!(api.patch("/drives/disk", &patch).status, 204);
    running.wait_for("ready\nready\n");
    let held = lifted.elapsed();
    running.type_in("\n");
    let begun = Instant::now();
    running.wait_for("ready\nready\nready\n");
    let round = begun.elapsed();
    assert!(
        held < round * 3 + Duration::from_millis(100),
        "{held:?} with a round of {round:?}"
    );

    // Another file, the same one again, and one that is none.
    let disk = machine.folder.join("disk");
    let other = machine.folder.join("other");
    std::fs::copy(&disk, &other).unwrap();
    let mut rounds = 3;
    for path in [&other, &other, &disk] {
        let patch = json!({ "drive_id": "disk", "path_on_host": path });
        assert_eq!(api.patch("/drives/disk", &patch).status, 204);
        let config = api.get("/vm/config").body;
        assert_eq!(config["drives"][0]["path_on_host"], json!(path));
        running.type_in("\n");
        rounds += 1;
        running.wait_for(&"ready\n".repeat(rounds));
    }
    // It goes on after a pause in the middle of a round.
    for _ in 0..20 {
        running.type_in("\n");
        for state in ["Paused", "Resumed"] {
            assert_eq!(api.patch("/vm", json!({ "state": state })).status, 204);
        }
        rounds += 1;
        running.wait_for(&"ready\n".repeat(rounds));
    }
    for (path, expected) in [
        ("/nowhere/disk", "No such file"),
        ("/dev/null", "neither a regular file"),
    ] {
        let refused = api.patch(
            "/drives/disk",
            json!({ "drive_id": "disk", "path_on_host": path }),
        );
        assert_eq!(refused.status, 400);
        assert!(
            refused.fault().starts_with("drives.disk.path_on_host: "),
            "{refused:?}"
        );
        assert!(refused.fault().contains(expected), "{refused:?}");
    }
    running.type_in("q");
    let outcome = running.end();
    assert_eq!(
        (outcome.status, outcome.errors.as_str()),
        (Some(3), ""),
        "{outcome:?}"
    );
}

#[test]
fn metrics_tell_what_happened_on_request_and_at_the_end() {
    if !kvm() {
        return;
    }
    let machine = Machine::stub(stubs::DISK_ROUNDS).with("/entropy", json!({}));
    let path = machine.folder.join("metrics");
    let machine = machine.argument(&format!("--metrics-path {}", path.display()));
    let lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(&path).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let (mut running, api) = machine.start_served();
    running.wait_for("ready\n");
    api.put("/actions", START);
    for _ in 0..2 {
        api.set("/actions", r#"{"action_type": "FlushMetrics"}"#);
    }
    let rounds = json!(stubs::DISK_ROUND);
    let told = lines();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0]["block"]["read_count"], FIRST_ROUND);
    assert_eq!(told[0]["block_disk"]["read_count"], FIRST_ROUND);
    assert!(told[0]["vcpu"]["exit_mmio_write"].as_u64() >= told[0]["block"]["read_count"].as_u64());
    assert_eq!(
        told[0]["put_api_requests"],
        json!({ "actions_count": 2, "actions_fails": 1 })
    );
    assert_eq!(told[0]["seccomp"]["num_faults"], 0);
    assert!(told[0]["utc_timestamp_ms"].as_u64() > Some(1_700_000_000_000));
    // Only what is new.
    assert_eq!(told[1]["block"]["read_count"], 0);
    running.type_in("\n");
    running.wait_for("ready\nready\n");
    running.type_in("q");
    assert_eq!(running.end().status, Some(3));
    let told = lines();
    assert_eq!(told.len(), 3);
    assert!(
        told[2]["block"]["read_count"].as_u64() >= rounds.as_u64(),
        "{told:?}"
    );
}

#[test]
fn metrics_are_told_as_prometheus_reads_them() {
    if !kvm() {
        return;
    }
    let machine = Machine::stub(stubs::DISK_ROUNDS);
    let (mut running, api) = machine.start_served();
    running.wait_for("ready\n");
    let mut stream = std::os::unix::net::UnixStream::connect(&api.socket).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{text}");
    assert!(head.contains("Content-Type: text/plain; version=0.0.4"), "{text}");
    let line = format!("secovia_vmm_block_read_count{{id=\"disk\"}} {FIRST_ROUND}\n");
    assert!(body.contains(&line), "{text}");
    for part in [
        "secovia_vmm_vcpu_exit_io_out ",
        "secovia_vmm_get_api_requests_metrics_count 1\n",
    ] {
        assert!(body.contains(part), "{text}");
    }
    for line in body.lines() {
        let is_type = line.starts_with("# TYPE secovia_vmm_") && line.ends_with(" counter");
        let is_number = line
            .rsplit_once(' ')
            .is_some_and(|(_, number)| number.parse::<u64>().is_ok());
        assert!(is_type || is_number, "{line}");
    }
}

#[test]
fn the_console_goes_where_the_api_says() {
    if !kvm() {
        return;
    }
    let machine = Machine::stub(stubs::HELLO);
    let path = machine.folder.join("console");
    let machine = machine.with("/serial", json!({ "serial_out_path": path }));
    let (running, api) = machine.start_empty();
    describe(&machine, &api);
    api.set("/actions", START);
    let outcome = running.end();
    assert_eq!((outcome.status, outcome.output.as_str()), (Some(3), ""));
    assert_eq!(std::fs::read_to_string(path).unwrap(), "stub\n");
}

#[test]
fn a_log_is_set_up_once() {
    let machine = Machine::stub(stubs::HELLO);
    let path = machine.folder.join("log");
    let (running, api) = machine.start_empty();
    let missing = api.put("/logger", json!({ "log_path": "/nowhere/log" }));
    assert!(
        missing
            .fault()
            .starts_with("logger.log_path: /nowhere/log: No such file"),
        "{missing:?}"
    );
    let spec = json!({ "log_path": path, "level": "Debug", "show_level": false, "show_log_origin": true });
    api.set("/logger", &spec);
    api.set("/logger", json!({ "level": "Info" }));
    assert!(api.put("/logger", &spec).fault().contains("has its file already"));
    running.signal(Signal::SIGTERM);
    let outcome = running.end();
    assert_eq!((outcome.status, outcome.errors.as_str()), (Some(0), ""));
    let text = std::fs::read_to_string(path).unwrap();
    assert!(
        text.contains("] asked to end before the start\n") && text.contains(".rs:"),
        "{text}"
    );
    assert!(!text.contains("INFO"), "{text}");
}

#[test]
fn several_clients_are_served_and_bad_ones_sent_away() {
    let machine = Machine::stub(stubs::HELLO).argument("--http-api-max-payload-size 100");
    let (running, api) = machine.start_empty();
    // Silent ones keep nobody out.
    let silent: Vec<_> = (0..15)
        .map(|_| std::os::unix::net::UnixStream::connect(&api.socket).unwrap())
        .collect();
    assert_eq!(api.get("/version").status, 200);
    let long = api.put("/logger", "x".repeat(101));
    assert_eq!(
        (long.status, long.fault()),
        (
            413,
            "the body has 101 bytes, 100 are read (--http-api-max-payload-size)"
        )
    );
    assert_eq!(api.raw(b"nonsense\r\n\r\n").status, 400);
    // Two requests in one piece, and one in two, on a connection that stays.
    let mut stream = std::os::unix::net::UnixStream::connect(&api.socket).unwrap();
    stream
        .write_all(b"GET /version HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\nGET /vers")
        .unwrap();
    std::thread::sleep(Duration::from_millis(20));
    stream
        .write_all(b"ion HTTP/1.1\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(
        (
            text.matches("HTTP/1.1 200 OK").count(),
            text.matches("firecracker_version").count()
        ),
        (3, 2),
        "{text}"
    );
    drop(silent);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().status, Some(0));
}
