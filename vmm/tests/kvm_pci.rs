//! A machine whose devices are on a PCI bus: drives that come and go while it runs. Needs any KVM.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::{Machine, kvm};
use nix::sys::signal::Signal;
use secovia_stub_guests as stubs;
use serde_json::{Value, json};

/// Whether the VMM has this file open.
fn is_open(pid: i32, path: &std::path::Path) -> bool {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).expect("the VMM runs");
    fds.flatten()
        .any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == path))
}

#[test]
fn a_drive_comes_and_goes() {
    if !kvm() {
        return;
    }
    let machine = Machine::stub(stubs::IDLE).argument("--enable-pci");
    let (mut running, api) = machine.start_empty();
    let kernel = json!({ "kernel_image_path": machine.folder.join("kernel") });
    api.set("/boot-source", kernel);
    api.set("/machine-config", json!({ "vcpu_count": 1, "mem_size_mib": 64 }));
    let drive = |id: &str| {
        let path = machine.folder.join(id);
        json!({ "drive_id": id, "path_on_host": path, "is_root_device": false,
            "rate_limiter": { "ops": { "size": 10, "refill_time": 100 } } })
    };
    api.set("/drives/disk", drive("disk"));
    fs::write(machine.folder.join("more"), vec![7; 1 << 20]).unwrap();
    let call = |method: &str, path: &str, body: &Value| {
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let answer = api.call(method, path, &text);
        match answer.status {
            204 => String::new(),
            400 => answer.fault().to_owned(),
            _ => panic!("{method} {path}: {answer:?}"),
        }
    };
    let refused = |method: &str, path: &str, body: &Value, expected: &str| {
        let fault = call(method, path, body);
        assert!(fault.contains(expected), "{method} {path}: {fault:?}");
    };
    refused(
        "DELETE",
        "/drives/disk",
        &Value::Null,
        "not possible while the machine is not started",
    );
    assert_eq!(
        call("PUT", "/actions", &json!({ "action_type": "InstanceStart" })),
        ""
    );
    running.wait_for("ready\n");

    let more = machine.folder.join("more");
    let mut bad = drive("more");
    bad["is_root_device"] = json!(true);
    refused(
        "PUT",
        "/drives/more",
        &bad,
        "drives.more.is_root_device: the root device is there",
    );
    let mut bad = drive("more");
    bad["io_engine"] = json!("Async");
    refused(
        "PUT",
        "/drives/more",
        &bad,
        "drives.more.io_engine: rings are made before",
    );
    let bad = json!({ "drive_id": "more", "socket": "/nowhere/s", "is_root_device": false });
    refused(
        "PUT",
        "/drives/more",
        &bad,
        "drives.more.socket: memory that a backend can have",
    );
    let mut bad = drive("more");
    bad["path_on_host"] = json!("/nowhere/disk");
    refused(
        "PUT",
        "/drives/more",
        &bad,
        "drives.more.path_on_host: /nowhere/disk",
    );
    refused(
        "PUT",
        "/drives/disk",
        &drive("disk"),
        "drives.disk: this machine has one",
    );
    refused(
        "DELETE",
        "/drives/more",
        &Value::Null,
        "drives.more: this machine has none",
    );
    refused(
        "DELETE",
        "/network-interfaces/n",
        &Value::Null,
        "network-interfaces.n: this machine has none",
    );
    refused("DELETE", "/pmem/p", &Value::Null, "not there yet");

    // As often as there is a wish to, also while the machine holds still.
    for state in ["Resumed", "Paused", "Resumed"] {
        assert_eq!(call("PATCH", "/vm", &json!({ "state": state })), "");
        assert_eq!(call("PUT", "/drives/more", &drive("more")), "");
        assert!(is_open(running.id(), &more));
        let drives = &api.get("/vm/config").body["drives"];
        assert_eq!(drives.as_array().map(Vec::len), Some(2), "{drives}");
        refused(
            "PUT",
            "/drives/more",
            &drive("more"),
            "drives.more: this machine has one",
        );
        let limit = json!({ "drive_id": "more", "rate_limiter": { "ops": { "size": 0, "refill_time": 0 } } });
        assert_eq!(call("PATCH", "/drives/more", &limit), "");
        assert_eq!(call("DELETE", "/drives/more", &Value::Null), "");
        let started = Instant::now();
        while is_open(running.id(), &more) {
            assert!(started.elapsed() < Duration::from_secs(10), "the file stays open");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(
            api.get("/vm/config").body["drives"].as_array().map(Vec::len),
            Some(1)
        );
    }
    // Until the bus is full.
    let mut count = 1;
    let fault = loop {
        let id = format!("d{count}");
        fs::write(machine.folder.join(&id), vec![7; 4096]).unwrap();
        match call("PUT", &format!("/drives/{id}"), &drive(&id)) {
            fault if fault.is_empty() => count += 1,
            fault => break fault,
        }
    };
    assert_eq!(count, 31);
    assert!(fault.contains("no place for another device"), "{fault}");
    running.signal(Signal::SIGTERM);
    running.signal(Signal::SIGINT);
    let outcome = running.end();
    assert_eq!(
        (outcome.status, outcome.errors.as_str()),
        (Some(5), ""),
        "{outcome:?}"
    );
}
