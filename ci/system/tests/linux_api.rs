//! A Linux guest whose machine is changed by its API while it runs.

use std::thread::sleep;
use std::time::{Duration, Instant};

use secovia_system_tests::api::call;
use secovia_system_tests::{Bench, given};
use secovia_vmm_api::BalloonSpec;

/// A paused guest's clock of lines stands still, and goes on; a balloon takes memory and gives it back, while it runs.
#[test]
fn a_guest_is_paused_and_its_balloon_moved() {
    const LIMIT: Duration = Duration::from_secs(60);
    let mut bench = Bench::new(&given("SECOVIA_KERNEL"), "");
    bench.spec.machine_config.mem_size_mib = 512;
    bench.spec.balloon = Some(BalloonSpec {
        deflate_on_oom: false,
        stats_polling_interval_s: 1,
        ..BalloonSpec::default()
    });
    bench.script(
        "total() { sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo; }\n\
         echo report: up\n\
         while [ $(total) -gt 262144 ]; do echo tick; sleep 0.1; done\n\
         echo report: inflated\n\
         while [ $(total) -lt 400000 ]; do sleep 0.1; done\n\
         echo report: deflated\n\
         while :; do sleep 1000; done",
    );
    let socket = bench.serve_api();
    let mut machine = bench.start();
    machine.wait_for_line("report: up");
    machine.wait_for_line("tick");
    call(&socket, "PATCH /vm", r#"{"state": "Paused"}"#);
    // What was on its way to us.
    sleep(Duration::from_millis(200));
    let paused = machine.console();
    sleep(Duration::from_secs(2));
    assert_eq!(machine.console(), paused, "a paused guest writes");
    call(&socket, "PATCH /vm", r#"{"state": "Resumed"}"#);
    let since = Instant::now();
    while machine.console().len() == paused.len() {
        assert!(since.elapsed() < LIMIT, "a guest that goes on does not write");
        sleep(Duration::from_millis(10));
    }
    call(&socket, "PATCH /balloon", r#"{"amount_mib": 256}"#);
    machine.wait_for_line("report: inflated");
    let since = Instant::now();
    while call(&socket, "GET /balloon/statistics", "")["actual_mib"] != 256 {
        assert!(since.elapsed() < LIMIT, "the guest does not say so");
        sleep(Duration::from_millis(100));
    }
    assert!(call(&socket, "GET /balloon/statistics", "")["total_memory"].as_u64() > Some(0));
    call(&socket, "PATCH /balloon", r#"{"amount_mib": 0}"#);
    machine.wait_for_line("report: deflated");
}
