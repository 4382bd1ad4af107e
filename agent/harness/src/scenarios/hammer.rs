//! A guest that does one thing as often as it can, beside one that minds its own business.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use secovia_agent_api::{KillRequest, Vm, VmState};
use secovia_guest_protocol::ExitStatus;

use crate::{Programs, Settings, Testbed, exec, sh};

/// A guest's doings: a name, and a script that says `go` before it begins.
const HAMMERS: [(&str, &str); 5] = [
    // Each shell starts two more and waits for nobody.
    (
        "fork-bomb",
        "echo go; bomb() { bomb | bomb & }; bomb; while :; do sleep 1; done",
    ),
    // The writable layer lies in the guest's memory; then a process that wants all of it.
    (
        "memory",
        "echo go; cat /dev/zero >/tmp/full; while :; do tail /dev/zero; done",
    ),
    (
        "console",
        "echo go; while :; do yes 'a line of the console, over and over' >/dev/console; done",
    ),
    // Output goes to the agent over vsock, and into the log.
    (
        "output",
        "echo go; while :; do yes 'a line of output, over and over'; done",
    ),
    (
        "disk",
        "echo go; while :; do dd if=/dev/zero of=/f bs=1M count=48 conv=fsync; cat /dev/vda >/dev/null; done 2>/dev/null",
    ),
];

/// What is no hammer: a guest that computes, as many do.
const BUSY: &str = "echo go; while :; do :; done";

/// How long each goes on before anything is measured.
const WARM_UP: Duration = Duration::from_secs(3);

/// How often the other guest is asked, of which the median counts.
const ASKED: usize = 15;

/// Size of a log file; a log has two.
const LOG_MAX: u64 = 256 << 10;

/// What a VMM may hold beside its guest's memory, as its control group has it.
const OVERHEAD: u64 = 64 << 20;

/// What the agent may hold, whatever its guests tell it.
const AGENT_MAX: u64 = 48 << 20;

/// What the console and the VMM's own words may take.
const WORDS_MAX: u64 = 3 << 20;

/// Whatever a guest does: its VMM's memory, the agent's, its logs and its console stay within their bounds, the other guest
/// answers within twice its normal time, and it can be ended. Needs a real guest.
///
/// Normal is beside a guest that computes: a host may have so few processors that every guest is felt.
pub async fn a_hammering_guest_is_held_in_its_bounds(programs: &Programs) {
    let settings = Settings {
        log_max_bytes: LOG_MAX,
        ..Settings::default()
    };
    let bed = Testbed::with_image(programs, &settings).await;
    let client = bed.client();
    client
        .create_vm(&sh("quiet", "echo up; while :; do sleep 10; done"))
        .await
        .unwrap();
    bed.said("quiet", "up").await;
    // The first may find everything cold.
    latency(&bed).await;
    let alone = latency(&bed).await;
    client.create_vm(&sh("busy", BUSY)).await.unwrap();
    bed.said("busy", "go").await;
    let normal = latency(&bed).await.max(alone);
    client.delete_vm("busy", true).await.unwrap();
    eprintln!("exec takes {alone:?} alone, {normal:?} beside a guest that computes");
    for (name, script) in HAMMERS {
        let mut create = sh(name, script);
        create.disk_mib = (name == "disk").then_some(64);
        client.create_vm(&create).await.unwrap();
        bed.said(name, "go").await;
        tokio::time::sleep(WARM_UP).await;
        let mut hammered = latency(&bed).await;
        // The host may have been busy with something else, too.
        for _ in 0..2 {
            if hammered >= normal * 2 {
                hammered = hammered.min(latency(&bed).await);
            }
        }
        let vm = client.vm(name).await.unwrap();
        let sizes = sizes(&bed, &vm);
        eprintln!("{name}: exec takes {hammered:?} beside it; {sizes:?}");
        assert!(
            hammered < normal * 2,
            "{name}: {hammered:?}, normally {normal:?}\n{}",
            bed.agent_log()
        );
        sizes.check(name, vm.memory_mib << 20);
        client.kill_vm(name, &KillRequest::default()).await.unwrap();
        client.delete_vm(name, false).await.unwrap();
    }
    assert_eq!(client.vm("quiet").await.unwrap().state, VmState::Running);
    client.delete_vm("quiet", true).await.unwrap();
    bed.assert_nothing_runs();
}

/// How long the quiet guest takes to run a command: the median.
async fn latency(bed: &Testbed) -> Duration {
    let mut times = Vec::new();
    for _ in 0..ASKED {
        let begun = Instant::now();
        let ended = exec(&bed.client(), "quiet", &["true"]).await;
        assert_eq!(
            ended.exit,
            Some(ExitStatus::Exited(0)),
            "{ended:?}\n{}",
            bed.agent_log()
        );
        times.push(begun.elapsed());
    }
    times.sort();
    times[ASKED / 2]
}

/// What a guest costs the host, in bytes.
#[derive(Debug)]
struct Sizes {
    /// The VMM's memory, its guest's included.
    memory: u64,
    /// The log of the workload's output.
    log: u64,
    /// The console, and what the VMM said.
    words: u64,
    /// The agent's own log.
    agent: u64,
    /// The agent's memory.
    agent_memory: u64,
}

/// The most memory that a process has had at a time, in bytes.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

fn sizes(bed: &Testbed, vm: &Vm) -> Sizes {
    Sizes {
        memory: peak(vm.vmm_pid.expect("it runs")),
        agent_memory: peak(bed.agent_pid()),
        log: files(&bed.path("state/vms").join(&vm.id).join("log"), &|_| true),
        words: files(&bed.path("run"), &|name| name.ends_with(".log")),
        agent: fs::metadata(bed.path("agent.log")).unwrap().len(),
    }
}

/// The sum of the lengths of the files below a folder whose names are `wanted`.
fn files(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let sum = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let kind = entry.file_type().ok()?;
        if kind.is_dir() {
            return Some(files(&entry.path(), wanted));
        }
        let counts = kind.is_file() && wanted(&entry.file_name().to_string_lossy());
        counts.then(|| entry.metadata().map_or(0, |metadata| metadata.len()))
    };
    entries.filter_map(sum).sum()
}

impl Sizes {
    fn check(&self, name: &str, guest: u64) {
        assert!(self.memory <= guest + OVERHEAD, "{name}: {self:?}");
        // The last batch may go over the edge.
        assert!(
            (1..=2 * LOG_MAX + (1 << 20)).contains(&self.log),
            "{name}: {self:?}"
        );
        assert!(self.words <= WORDS_MAX, "{name}: {self:?}");
        assert!(self.agent <= 1 << 20, "{name}: {self:?}");
        assert!(self.agent_memory <= AGENT_MAX, "{name}: {self:?}");
    }
}
