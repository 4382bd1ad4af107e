//! Whatever is wrong with its input, the VMM says it in one line, ends with status 2 and leaves nothing behind. Needs no
//! KVM: all of it is found before a machine is made.

mod common;

use std::fs;
use std::os::unix::net::UnixListener;

use common::{Machine, Outcome};
use secovia_stub_guests::HELLO;
use serde_json::json;

fn check(name: &str, machine: &Machine, outcome: &Outcome, expected: &str) {
    assert_eq!(outcome.status, Some(2), "{name}: {outcome:?}");
    assert_eq!(outcome.output, "", "{name}");
    assert!(outcome.errors.starts_with("secovia-vmm: "), "{name}: {outcome:?}");
    assert_eq!(outcome.errors.matches('\n').count(), 1, "{name}: {outcome:?}");
    assert!(
        outcome.errors.contains(expected),
        "{name}: {outcome:?}\nshould contain: {expected}"
    );
    let left: Vec<_> = fs::read_dir(&machine.folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !["disk", "kernel", "vm.json", "taken.sock"].contains(&name.as_str()))
        .collect();
    assert_eq!(left, [""; 0], "{name}");
}

fn changed(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut elf = HELLO.elf();
    elf[offset..offset + bytes.len()].copy_from_slice(bytes);
    elf
}

/// The start of a bzImage that promises more than there is.
fn truncated_bz_image() -> Vec<u8> {
    let mut image = vec![0; 2048];
    image[0x1f1] = 1;
    image[0x1f4..0x1f8].copy_from_slice(&0x1_0000u32.to_le_bytes());
    image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
    image
}

#[test]
fn bad_kernels() {
    for (name, kernel, expected) in [
        (
            "other machine",
            changed(18, &183u16.to_le_bytes()),
            "an ELF for AArch64; give a vmlinux or bzImage",
        ),
        (
            "truncated ELF",
            HELLO.elf()[..270].to_vec(),
            "truncated: a segment ends at byte",
        ),
        (
            "truncated bzImage",
            truncated_bz_image(),
            "truncated: the kernel proper ends at byte",
        ),
        (
            "larger than memory",
            changed(64 + 40, &(200u64 << 20).to_le_bytes()),
            "needs memory up to 201 MiB, the machine has 128 MiB; raise machine-config.mem_size_mib",
        ),
        (
            "a script",
            b"#!/bin/sh\nexit 0\n".to_vec(),
            "neither an ELF vmlinux nor a bzImage",
        ),
        ("empty", Vec::new(), "neither an ELF vmlinux nor a bzImage"),
    ] {
        let machine = Machine::bytes(&kernel).with_vsock();
        let outcome = machine.run();
        check(name, &machine, &outcome, expected);
        assert!(
            outcome.errors.contains("boot-source.kernel_image_path: "),
            "{name}: {outcome:?}"
        );
    }
}

#[test]
fn bad_values() {
    for (name, pointer, value, expected) in [
        (
            "missing disk",
            "/drives/0/path_on_host",
            json!("/nonexistent"),
            "drives.disk.path_on_host: /nonexistent: No such",
        ),
        (
            "directory disk",
            "/drives/0/path_on_host",
            json!("/"),
            "neither a regular file nor a block device",
        ),
        (
            "empty disk",
            "/drives/0/path_on_host",
            json!("/proc/version"),
            "at least one sector",
        ),
        (
            "missing kernel",
            "/boot-source/kernel_image_path",
            json!("/nonexistent"),
            "create it or correct the path",
        ),
        (
            "missing initrd",
            "/boot-source/initrd_path",
            json!("/nonexistent"),
            "boot-source.initrd_path: /nonexistent",
        ),
        (
            "too much memory",
            "/machine-config/mem_size_mib",
            json!(1u64 << 40),
            "this host has",
        ),
        (
            "too little memory",
            "/machine-config/mem_size_mib",
            json!(1),
            "give at least 64",
        ),
        (
            "negative memory",
            "/machine-config/mem_size_mib",
            json!(-1),
            "invalid value: integer `-1`",
        ),
        (
            "no vCPU",
            "/machine-config/vcpu_count",
            json!(0),
            "machine-config.vcpu_count: 0; give 1 to 32",
        ),
        (
            "unknown field",
            "/drives/0/path",
            json!("x"),
            "unknown field `path`, expected one of `drive_id`, `path_on_host`",
        ),
        (
            "unknown section",
            "/mystery",
            json!([]),
            "unknown field `mystery`",
        ),
        (
            "no kernel",
            "/boot-source",
            json!(null),
            "boot-source: missing; name a kernel",
        ),
        (
            "section about what the machine has not",
            "/mmds-config",
            json!({ "network_interfaces": ["eth0"] }),
            "mmds-config.network_interfaces: this machine has no interface \"eth0\"",
        ),
        (
            "reserved address",
            "/vsock",
            json!({ "guest_cid": 1, "uds_path": "/tmp/x" }),
            "vsock.guest_cid: 1 is reserved",
        ),
    ] {
        let machine = Machine::stub(HELLO).with(pointer, value);
        check(name, &machine, &machine.run(), expected);
    }
}

#[test]
fn bad_json() {
    let machine = Machine::stub(HELLO);
    for (name, text, expected) in [
        ("cut", "{\"boot-source\": {", "EOF while parsing"),
        ("no JSON", "boot: yes", "expected value at line 1 column 1"),
        ("empty", "", "EOF while parsing"),
        (
            "doubled field",
            r#"{"boot-source": {"kernel_image_path": "a", "kernel_image_path": "b"}}"#,
            "duplicate field `kernel_image_path` at line 1",
        ),
        (
            "trailing words",
            r#"{"boot-source": {"kernel_image_path": "a"}} x"#,
            "trailing characters",
        ),
    ] {
        let outcome = machine.start_text(text).end();
        check(name, &machine, &outcome, expected);
        assert!(outcome.errors.contains("vm.json: "), "{name}: {outcome:?}");
    }
    let outcome = machine.start_text(&" ".repeat(2 << 20)).end();
    check("huge", &machine, &outcome, "more than 1048576 bytes");
}

#[test]
fn a_socket_that_exists_is_left_alone() {
    let machine = Machine::stub(HELLO);
    let taken = machine.folder.join("taken.sock");
    let _listener = UnixListener::bind(&taken).unwrap();
    let machine = machine.with("/vsock", json!({ "guest_cid": 3, "uds_path": taken }));
    let outcome = machine.run();
    check(
        "socket",
        &machine,
        &outcome,
        "taken.sock exists already; remove it or choose another path",
    );
    assert!(taken.exists());
}

#[test]
fn a_missing_configuration_is_named() {
    let output = std::process::Command::new(common::vmm())
        .args(["--config-file", "/nonexistent.json", "--no-api"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        text,
        "secovia-vmm: --config-file: /nonexistent.json: No such file or directory (os error 2); give a readable JSON file\n"
    );
}
