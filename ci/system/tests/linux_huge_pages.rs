//! A Linux guest whose memory is of the host's pool of huge pages.

use std::fs;

use secovia_system_tests::{Bench, given};
use secovia_vmm_api::{Exit, HugePages};

const POOL: &str = "/proc/sys/vm/nr_hugepages";
const MIB: u64 = 128;

/// How many pages of the pool nobody has and nobody has reserved.
fn free() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").expect("read /proc/meminfo");
    let number = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let word = line.and_then(|line| line.split_whitespace().next());
        word.expect(name).parse().expect(name)
    };
    number("HugePages_Free:") - number("HugePages_Rsvd:")
}

fn bench(report: &str) -> Bench {
    let mut bench = Bench::new(&given("SECOVIA_KERNEL"), report);
    bench.spec.machine_config.mem_size_mib = MIB;
    bench.spec.machine_config.huge_pages = HugePages::TwoMebibytes;
    bench
}

/// All pages are the guest's from the start, and the pool's again at its end. Where there are too few, nothing starts.
#[test]
fn the_pools_pages_are_taken_whole_and_come_back() {
    let before = fs::read_to_string(POOL).expect("read the pool's size");
    if fs::write(POOL, (MIB / 2 + 10).to_string()).is_err() || free() < MIB / 2 {
        println!(
            "SKIP: huge pages: this host has no {} of them to set aside",
            MIB / 2
        );
        return;
    }
    let all = free();
    let mut machine = bench("stay").start();
    machine.wait_for_line("report: up");
    assert_eq!(free(), all - MIB / 2);

    let second = bench("poweroff").start().end();
    second.assert_code(Exit::Internal.code());
    assert!(
        second
            .errors
            .contains("machine-config.huge_pages: take 128 MiB of the host's huge pages"),
        "{second}"
    );
    drop(machine);
    assert_eq!(free(), all);
    fs::write(POOL, before).expect("restore the pool");
}
