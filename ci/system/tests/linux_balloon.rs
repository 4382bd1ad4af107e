//! A Linux guest with a balloon: what it does not use goes back to the host.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use secovia_system_tests::api::call;
use secovia_system_tests::{Bench, Machine, given};
use secovia_vmm_api::BalloonSpec;

const LIMIT: Duration = Duration::from_secs(60);

fn bench(balloon: BalloonSpec, script: &str) -> Bench {
    let mut bench = Bench::new(&given("SECOVIA_KERNEL"), "");
    bench.spec.machine_config.mem_size_mib = 512;
    bench.spec.balloon = Some(balloon);
    bench.script(script);
    bench
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

/// Waits until the VMM has less than `mib` of memory.
fn wait_for_less(machine: &Machine, mib: u64) {
    let started = Instant::now();
    while resident(machine) >= mib {
        assert!(started.elapsed() < LIMIT, "still {} MiB", resident(machine));
        thread::sleep(Duration::from_millis(100));
    }
}

/// 256 MiB that the guest has used and freed are the host's again, without anyone's asking.
#[test]
fn memory_that_the_guest_frees_is_the_hosts_again() {
    let reporting = BalloonSpec {
        deflate_on_oom: true,
        stats_polling_interval_s: 1,
        free_page_reporting: true,
        ..BalloonSpec::default()
    };
    let script = "mkdir /fill; mount -t tmpfs -o size=300m fill /fill\n\
        dd if=/dev/zero of=/fill/file bs=1M count=256 2>/dev/null\n\
        echo report: full\n\
        sleep 3\n\
        rm /fill/file\n\
        echo report: empty\n\
        while :; do sleep 1000; done";
    let mut machine = bench(reporting, script).start();
    machine.wait_for_line("report: full");
    let full = resident(&machine);
    assert!(full > 256, "{full} MiB");
    machine.wait_for_line("report: empty");
    wait_for_less(&machine, full - 200);
}

/// A balloon of 256 MiB takes them from the guest, and from the VMM what they were.
#[test]
fn a_balloon_takes_what_it_is_told_to() {
    let half = BalloonSpec {
        amount_mib: 256,
        ..BalloonSpec::default()
    };
    let script = "while total=$(sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo); [ $total -gt 262144 ]; do\n\
            sleep 0.1\n\
        done\n\
        echo report: inflated\n\
        while :; do sleep 1000; done";
    let mut machine = bench(half, script).start();
    machine.wait_for_line("report: inflated");
    // What the kernel took at its start, and no more than is left to it.
    wait_for_less(&machine, 256);
}

/// 256 MiB and back: what the guest has used is the host's once the balloon has it, and the guest's again when the balloon
/// gives it. The VMM's memory says so each time.
#[test]
fn a_balloon_takes_256_mib_and_gives_them_back() {
    let script = "mkdir /fill; mount -t tmpfs -o size=400m fill /fill\n\
        available() { sed -n 's/^MemAvailable: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo; }\n\
        use() { dd if=/dev/zero of=/fill/file bs=1M count=$1 2>/dev/null; rm /fill/file; echo report: used $1; }\n\
        use 330\n\
        while [ $(available) -gt 260000 ]; do sleep 0.1; done\n\
        use 50\n\
        while [ $(available) -lt 380000 ]; do sleep 0.1; done\n\
        use 320\n\
        while :; do sleep 1000; done";
    let mut bench = bench(BalloonSpec::default(), script);
    let socket = bench.serve_api();
    let mut machine = bench.start();
    machine.wait_for_line("report: used 330");
    let full = resident(&machine);
    assert!(full > 330, "{full} MiB");
    call(&socket, "PATCH /balloon", r#"{"amount_mib": 256}"#);
    wait_for_less(&machine, full - 240);
    machine.wait_for_line("report: used 50");
    let squeezed = resident(&machine);
    // What the guest has left it may use again, and no more.
    assert!(squeezed < full - 190, "{squeezed} of {full} MiB");
    call(&socket, "PATCH /balloon", r#"{"amount_mib": 0}"#);
    machine.wait_for_line("report: used 320");
    let again = resident(&machine);
    assert!(again > squeezed + 190, "{again} after {squeezed} MiB");
    println!("the VMM's memory: {full} MiB, with the balloon {squeezed}, without it {again}");
}

/// What a guest has used and freed goes back to the host when it is asked for it, all at once, and is the guest's to use again;
/// what it keeps stays as it was.
#[test]
fn a_guest_names_what_it_does_not_use_when_it_is_asked() {
    let hinting = BalloonSpec {
        free_page_hinting: true,
        ..BalloonSpec::default()
    };
    let script = "mkdir /fill; mount -t tmpfs -o size=300m fill /fill\n\
        dd if=/dev/urandom of=/fill/kept bs=64k count=32 2>/dev/null; kept=$(md5sum /fill/kept)\n\
        use() { dd if=/dev/zero of=/fill/file bs=1M count=256 2>/dev/null; rm /fill/file\n\
            [ \"$(md5sum /fill/kept)\" = \"$kept\" ] && echo report: used $1; }\n\
        total() { grep MemTotal: /proc/meminfo; }\n\
        before=$(total); use first\n\
        while [ \"$(total)\" = \"$before\" ]; do sleep 0.1; done\n\
        use again\n\
        while :; do sleep 1000; done";
    let mut bench = bench(hinting, script);
    let socket = bench.serve_api();
    let mut machine = bench.start();
    machine.wait_for_line("report: used first");
    let full = resident(&machine);
    assert!(full > 256, "{full} MiB");
    call(&socket, "PATCH /balloon/hinting/start", "");
    wait_for_less(&machine, full - 200);
    let started = Instant::now();
    loop {
        let status = call(&socket, "GET /balloon/hinting/status", "");
        if (&status["host_cmd"], &status["guest_cmd"]) == (&1.into(), &0.into()) {
            break;
        }
        assert!(started.elapsed() < LIMIT, "{status}");
        thread::sleep(Duration::from_millis(100));
    }
    let asked = resident(&machine);
    // The word to go on.
    call(&socket, "PATCH /balloon", r#"{"amount_mib": 16}"#);
    machine.wait_for_line("report: used again");
    println!("the VMM's memory: {full} MiB, {asked} once the guest was asked");
}
