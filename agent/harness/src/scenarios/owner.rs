//! An owner who needs the machine, beside guests that use all they can get: with the real VMM, on a host whose control
//! groups are of version 2.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use secovia_agent_api::client::Client;
use secovia_agent_api::{AuditEvent, RestartPolicy, VmCreate, VmState};

use crate::bed::{PATIENCE, POLL};
use crate::{Programs, Settings, Testbed, sh};

/// What is lent: all but a little.
const POLICY: &str = "[reserve]\ncpu = 0.1\nmemory = \"448M\"\ndisk = \"16M\"\n\
    [measure]\nwarm_up_s = 1\nmargin_percent = 1\n\
    [reclaim]\nhold_ms = 500\ncooldown_s = 2\n";

/// The owner's processes.
const OWNER: &str = "/sys/fs/cgroup/owner.slice";

/// The rungs, lowest first.
const RUNGS: [&str; 6] = ["open", "closed", "squeeze", "pause", "shutdown", "kill"];

/// Lets the owner work, and returns what the work printed.
async fn owner(load: &str, words: &[&str]) -> u64 {
    let mut command = Command::new(load);
    command.arg(OWNER).args(words);
    // The agent's messages have to be read meanwhile.
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// A world whose agent offers something.
async fn lending(programs: &Programs) -> Testbed {
    let settings = Settings {
        policy: POLICY,
        ..Settings::default()
    };
    let bed = Testbed::with_image(programs, &settings).await;
    let begun = Instant::now();
    loop {
        let offer = bed.client().offer().await.unwrap();
        if offer.lines.iter().all(|line| line.offered > 0) {
            return bed;
        }
        assert!(begun.elapsed() < PATIENCE, "{offer:#?}\n{}", bed.agent_log());
        tokio::time::sleep(POLL).await;
    }
}

fn has_cgroups() -> bool {
    let has = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if !has {
        println!("SKIP: lending: this host has no control groups of version 2");
    }
    has
}

/// How it went, for `ci/bench lending`: how fast is no matter of a test.
fn figures(of: &str, what: &Value) {
    println!("\nfigures {}", json!({ "of": of, "figures": what }));
}

/// The number behind a name in a file of `/proc`.
fn number(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Memory that nobody else gets: what a host has beyond two gibibytes. Given back when dropped.
struct Occupied;

impl Occupied {
    const FILE: &str = "/proc/sys/vm/nr_hugepages";

    fn beyond_two_gib() -> Self {
        let beyond = (number("/proc/meminfo", "MemTotal:") >> 10).saturating_sub(2048);
        let pages = beyond * 1024 / number("/proc/meminfo", "Hugepagesize:");
        fs::write(Self::FILE, pages.to_string()).unwrap();
        Self
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        let _ = fs::write(Self::FILE, "0");
    }
}

/// Whether all guests run and hold the memory that they fill when they start.
async fn all_filled(client: &Client, names: &[&str]) -> bool {
    for name in names {
        let vm = client.vm(name).await.unwrap();
        let text = crate::log_text(client, name, &Default::default()).await;
        if vm.state != VmState::Running || text.matches("up").count() as u32 != vm.starts {
            return false;
        }
    }
    true
}

/// On a host of two gibibytes with three guests of 300 MiB the owner takes 1.2 GiB: it gets it, and nobody runs out of
/// memory. The ladder is climbed in order, and comes down again; the guests run on, or come back when there is room.
pub async fn the_owners_memory_comes_first(programs: &Programs, load: &str) {
    if !has_cgroups() {
        return;
    }
    let _occupied = Occupied::beyond_two_gib();
    let mut empty = u64::MAX;
    for _ in 0..3 {
        empty = empty.min(owner(load, &["memory", "1200"]).await);
    }
    let bed = lending(programs).await;
    let client = bed.client();
    let killed = number("/proc/vmstat", "oom_kill ");
    // What a guest has touched, its host holds.
    let script = "mount -t tmpfs -o size=240m none /mnt && dd if=/dev/zero of=/mnt/fill bs=1M count=210 2>/dev/null; \
        echo up; while :; do sleep 1; done";
    let names = ["one", "two", "three"];
    for name in names {
        let create = VmCreate {
            memory_mib: 300,
            cpu_millis: Some(10),
            restart: RestartPolicy::Always,
            ..sh(name, script)
        };
        client.create_vm(&create).await.unwrap();
    }
    for name in names {
        bed.running(name).await;
    }
    let begun = Instant::now();
    while !all_filled(&client, &names).await {
        assert!(begun.elapsed() < PATIENCE, "{}", bed.agent_log());
        tokio::time::sleep(POLL).await;
    }
    let available = number("/proc/meminfo", "MemAvailable:") >> 10;
    println!("{available} MiB available beside three guests");
    let beside = owner(load, &["memory", "1200"]).await;
    println!("1.2 GiB in {beside} ms, {empty} ms on an empty host");
    let begun = Instant::now();
    while client.offer().await.unwrap().ladder.rung != "open" {
        assert!(begun.elapsed() < PATIENCE, "{}", bed.agent_log());
        tokio::time::sleep(POLL).await;
    }
    // A measurement in the midst of the owner's work says that it needs all that memory, and what was taken back waits.
    for name in names {
        let state = client.vm(name).await.unwrap().state;
        let comes_back = matches!(
            state,
            VmState::Running | VmState::Starting | VmState::BackOff { .. }
        );
        assert!(comes_back, "{name}: {state:?}");
    }
    assert_eq!(
        number("/proc/vmstat", "oom_kill "),
        killed,
        "nobody ran out of memory"
    );
    let mut climbed = Vec::new();
    for record in client.audit(None).await.unwrap() {
        if let AuditEvent::LadderMoved { from, to, why } = record.event {
            let at = |rung: &str| RUNGS.iter().position(|known| *known == rung).unwrap();
            if why != "relief" {
                assert_eq!(
                    at(&to),
                    at(&from) + 1,
                    "up goes rung by rung: {from} to {to} for {why}"
                );
            } else {
                assert!(at(&to) < at(&from), "{from} to {to} for {why}");
            }
            climbed.push(to);
        }
    }
    println!("the ladder: {}", climbed.join(" "));

    figures("memory", &json!({ "empty_ms": empty, "beside_ms": beside }));
    assert!(climbed.iter().any(|rung| rung == "squeeze"), "{climbed:?}");
    assert_eq!(client.verify_audit().await.unwrap().broken, None);
}

/// Guests that compute on all CPUs cost an owner who does the same little. Alike, they would take two thirds.
pub async fn the_owners_cpu_time_comes_first(programs: &Programs, load: &str) {
    if !has_cgroups() {
        return;
    }
    let cpus = available_parallelism().unwrap();
    let threads = cpus.to_string();
    // Before there is an agent: it would offer nothing of what the owner has just used.
    let alone = owner(load, &["cpu", &threads, "10"]).await;
    let bed = lending(programs).await;
    let client = bed.client();
    let busy = "(while :; do :; done) & echo up; while :; do :; done";
    for name in ["one", "two"] {
        let create = VmCreate {
            cpus: cpus.get().min(2) as u8,
            cpu_millis: Some(100),
            ..sh(name, busy)
        };
        client.create_vm(&create).await.unwrap();
        bed.running(name).await;
        bed.said(name, "up").await;
    }
    let before = client.vm_stats("one").await.unwrap().cpu_time_us;
    let beside = owner(load, &["cpu", &threads, "10"]).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = client.vm_stats("one").await.unwrap().cpu_time_us;
    figures(
        "cpu",
        &json!({ "alone_per_mille": alone, "beside_per_mille": beside, "guest_ms": (after - before) / 1_000 }),
    );
    assert!(after - before > 1_000_000, "the guests do compute when they may");
    assert!(beside * 100 >= alone * 80, "{beside} of {alone}");
    assert_eq!(client.vm("two").await.unwrap().state, VmState::Running);
}
