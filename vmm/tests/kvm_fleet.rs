//! The largest machines: as many vCPUs, disks and network interfaces as one can have, and one more. Needs root for taps.

mod common;

use common::taps::with_taps;
use common::{Machine, kvm};
use secovia_stub_guests as stubs;
use serde_json::{Value, json};

/// What [`stubs::FLEET`] prints for a device.
const NET: &str = "1";
const DISK: &str = "2";
const RNG: &str = "4";
const VSOCK: &str = "C";

/// A machine with so many vCPUs, disks and network interfaces.
fn machine(vcpus: u32, disks: usize, networks: usize) -> Machine {
    let machine = Machine::stub(stubs::FLEET);
    let disk = machine.folder.join("disk");
    let drive = |number: usize| {
        let id = format!("disk{number}");
        json!({ "drive_id": id, "path_on_host": disk, "is_root_device": false, "is_read_only": true })
    };
    let network = |number: usize| json!({ "iface_id": format!("eth{number}"), "host_dev_name": format!("tap{number}") });
    machine
        .with(
            "/machine-config",
            json!({ "vcpu_count": vcpus, "mem_size_mib": 128 }),
        )
        .with("/drives", (0..disks).map(drive).collect())
        .with("/network-interfaces", (0..networks).map(network).collect())
}

/// Runs it to its end; the guest must find all `devices`, and start all vCPUs but the first.
fn check(machine: &Machine, devices: &str, vcpus: usize) {
    let text = format!("{devices}\n{}", "c".repeat(vcpus - 1));
    let mut running = machine.start();
    running.wait_for(&text);
    running.type_in("\n");
    let outcome = running.end();
    assert_eq!(
        (outcome.output.as_str(), outcome.errors.as_str(), outcome.status),
        (text.as_str(), "", Some(3)),
        "{outcome:?}"
    );
}

#[test]
fn a_guest_finds_32_vcpus_16_disks_and_8_interfaces_and_one_more_of_each_device() {
    with_taps(9, || {
        for (disks, networks) in [(16, 8), (17, 9)] {
            let devices = DISK.repeat(disks) + &NET.repeat(networks);
            check(&machine(32, disks, networks), &devices, 32);
        }
    });
}

#[test]
fn every_place_for_a_device_can_be_taken() {
    if !kvm() {
        return;
    }
    let machine = machine(32, 62, 0)
        .with("/machine-config/mem_size_mib", json!(5120))
        .with("/machine-config/smt", json!(true))
        .with("/entropy", json!({}))
        .with_vsock();
    check(&machine, &(DISK.repeat(62) + VSOCK + RNG), 32);
}

#[test]
fn one_too_many_is_refused_with_the_number_named() {
    for (machine, expected) in [
        (machine(33, 1, 0), "machine-config.vcpu_count: 33; give 1 to 32"),
        (machine(1, 65, 0), "65 devices; at most 64 fit"),
        (machine(1, 0, 65), "65 devices; at most 64 fit"),
    ] {
        let outcome = machine.run();
        assert_eq!(outcome.status, Some(2), "{outcome:?}");
        assert!(outcome.errors.contains(expected), "{outcome:?}");
        // Over the API, the one too many is refused, and the machine stays as it was.
        let (running, api) = machine.start_empty();
        let parts = [("drives", "drive_id"), ("network-interfaces", "iface_id")];
        let mut refused = Vec::new();
        for (list, name) in parts {
            for item in machine.spec[list].as_array().unwrap() {
                let answer = api.put(&format!("/{list}/{}", item[name].as_str().unwrap()), item);
                refused.extend((answer.status != 204).then(|| answer.fault().to_owned()));
            }
        }
        let answer = api.put("/machine-config", &machine.spec["machine-config"]);
        refused.extend((answer.status != 204).then(|| answer.fault().to_owned()));
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert!(refused[0].contains(expected), "{refused:?}");
        let config: Value = api.get("/vm/config").body;
        let count = |list: &str| config[list].as_array().unwrap().len();
        assert!(count("drives") + count("network-interfaces") <= 64, "{config}");
        assert!(config["machine-config"]["vcpu_count"].as_u64() <= Some(32));
        drop(running);
    }
}
