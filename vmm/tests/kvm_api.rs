//! The API's way with a machine: from nothing to its end.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

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
