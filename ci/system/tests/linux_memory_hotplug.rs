//! A Linux guest whose memory grows and shrinks while it runs (virtio-mem).

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use secovia_system_tests::{Bench, Machine, given};
use secovia_vmm_api::MemoryHotplugSpec;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// The answer's body, which is null for status 204.
fn call(socket: &Path, request: &str, body: &str) -> Value {
    let mut stream = UnixStream::connect(socket).expect("connect to the API");
    let length = body.len();
    write!(
        stream,
        "{request} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .expect("send a request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("read the answer");
    assert!(text.starts_with("HTTP/1.1 20"), "{request} {body}: {text}");
    let (_, body) = text.split_once("\r\n\r\n").expect("an answer has a body or none");
    serde_json::from_str(body).unwrap_or_default()
}

/// The VMM's memory that is there, in MiB.
fn resident(machine: &Machine) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", machine.pid())).expect("the VMM runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse::<u64>().ok())
        .expect("a number")
        / 1024
}

/// A guest of 256 MiB gets 512 more, fills 400 of them, frees them, and gives all back: it is the host's again.
#[test]
fn a_guest_grows_by_512_mib_and_shrinks_again() {
    let mut bench = Bench::new(&given("SECOVIA_KERNEL"), "");
    bench.spec.machine_config.mem_size_mib = 256;
    bench.spec.memory_hotplug = Some(MemoryHotplugSpec {
        total_size_mib: 1024,
        block_size_mib: 2,
        slot_size_mib: 128,
    });
    let boot = bench.spec.boot_source.as_mut().expect("there is one");
    let arguments = boot.boot_args.get_or_insert_default();
    arguments.push_str(" memhp_default_state=online_movable");
    bench.script(
        "total() { sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo; }\n\
         before=$(total)\n\
         echo report: up\n\
         while [ $(total) -lt $((before + 524288)) ]; do sleep 0.1; done\n\
         echo report: grown\n\
         mkdir /fill; mount -t tmpfs -o size=450m fill /fill\n\
         dd if=/dev/zero of=/fill/file bs=1M count=400 2>/dev/null\n\
         tr '\\0' x </fill/file | tr -d x | wc -c | sed 's/^/report: full /'\n\
         sleep 3\n\
         rm /fill/file\n\
         echo report: empty\n\
         while [ $(total) -gt $((before + 65536)) ]; do sleep 0.1; done\n\
         echo report: shrunk\n\
         while :; do sleep 1000; done",
    );
    let socket = bench.serve_api();
    let mut machine = bench.start();
    machine.wait_for_line("report: up");
    let small = resident(&machine);
    let status = || call(&socket, "GET /hotplug/memory", "");
    let wait_for = |mib: u64| {
        let since = Instant::now();
        while status()["plugged_size_mib"] != mib {
            assert!(since.elapsed() < LIMIT, "{}", status());
            sleep(Duration::from_millis(100));
        }
    };
    assert_eq!(status()["plugged_size_mib"], 0);
    call(&socket, "PATCH /hotplug/memory", r#"{"requested_size_mib": 512}"#);
    machine.wait_for_line("report: grown");
    wait_for(512);
    machine.wait_for_line("report: full 0");
    let full = resident(&machine);
    assert!(full >= small + 300, "{small} MiB, then {full}");
    machine.wait_for_line("report: empty");
    call(&socket, "PATCH /hotplug/memory", r#"{"requested_size_mib": 0}"#);
    machine.wait_for_line("report: shrunk");
    wait_for(0);
    let last = resident(&machine);
    assert!(last + 300 < full, "{full} MiB, then {last}");
    eprintln!("{small} MiB, with 400 MiB in use {full}, at last {last}");
}
