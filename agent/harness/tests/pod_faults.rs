//! Whatever dies or fails, no Pod is lost or doubled, no microVM is an orphan, nothing is stormed, and the audit chain is
//! whole: the agent and the pool's part are killed at random points under a load, the API server fails for a minute, the disk is
//! full. With a stand-in for the VMM and one for the API server. (A real API server that is away: `ci/pool-faults`.)

mod region;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use region::Region;
use secovia_agent_api::{ImageImport, RestartPolicy, Vm, VmState};
use secovia_agent_harness::{Programs, Settings, Testbed};
use secovia_pool::pods::Pods;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

/// How often the agent is killed, and the pool's part.
const KILLS: u32 = 50;

/// So many Pods are here at most: a world has 16 users for microVMs.
const PODS: usize = 8;

fn programs() -> Programs {
    Programs::fake(
        env!("CARGO_BIN_EXE_agent-under-test"),
        env!("CARGO_BIN_EXE_fake-vmm"),
        env!("CARGO_BIN_EXE_jailer-under-test"),
    )
}

/// The pool's part with Pods, with all its tasks, as a process of its own would be.
struct Pool(Option<Runtime>);

impl Pool {
    fn start(bed: &Testbed, region: &Region) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let inside = runtime.enter();
        let pods = Pods {
            agent: bed.client(),
            region: region.client(),
            node: "node-1".into(),
            address: "192.0.2.7".parse().unwrap(),
            cache: bed.path("pool"),
        };
        runtime.spawn(async move { pods.keep(&watch::Sender::new(false)).await });
        drop(inside);
        Self(Some(runtime))
    }
}

/// As with kill -9: nothing is finished that was begun.
impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Chance that is the same each time (SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

fn spec(policy: &str, script: &str) -> Value {
    json!({"restartPolicy": policy, "terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "image": "base",
        "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c"], "args": [script],
        "resources": {"limits": {"memory": "64Mi"}, "requests": {"cpu": "10m"}}}]})
}

const FOREVER: &str = "while :; do sleep 0.1; done";

fn uid(number: u32) -> String {
    format!("{number:08x}-0000-4000-8000-{number:012x}")
}

fn number_of(vm: &Vm) -> Option<String> {
    vm.labels.get("secovia.pod/uid").cloned()
}

/// No two microVMs are one Pod's, and one that is to run once was started once at most.
fn assert_none_is_doubled(vms: &[Vm]) {
    let mut seen: BTreeMap<String, &Vm> = BTreeMap::new();
    for vm in vms {
        if let Some(other) = number_of(vm).and_then(|uid| seen.insert(uid, vm)) {
            panic!("two of one Pod: {vm:#?} {other:#?}");
        }
        assert!(
            vm.restart != RestartPolicy::No || vm.starts <= 1,
            "{} ran {} times",
            vm.name,
            vm.starts
        );
    }
}

/// A Pod of the load, and what is to become of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Runs,
    Ends,
    Deleted,
}

async fn until(what: &str, bed: &Testbed, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "{what}: not in time\n{}",
            bed.agent_log()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One thing changes: a Pod comes, is deleted with a grace or at once, or is changed.
fn act(region: &Region, pods: &mut BTreeMap<u32, Fate>, next: &mut u32, chance: &mut Chance) {
    let here: Vec<u32> = pods
        .iter()
        .filter(|(_, fate)| **fate != Fate::Deleted)
        .map(|(number, _)| *number)
        .collect();
    let name = |number: u32| format!("pod-{number}");
    if here.len() < 3 || (here.len() < PODS && chance.below(3) > 0) {
        let number = *next;
        *next += 1;
        let (fate, spec) = match chance.below(4) {
            0 => (Fate::Ends, spec("Never", "sleep 0.3; exit 0")),
            1 => (Fate::Ends, spec("OnFailure", "sleep 0.1; exit 0")),
            _ => (Fate::Runs, spec("Always", FOREVER)),
        };
        region.bind_as(&name(number), &uid(number), spec);
        pods.insert(number, fate);
        return;
    }
    let number = here[chance.below(here.len() as u64) as usize];
    match chance.below(4) {
        0 => region.vanish(&name(number)),
        1 => {
            // It stays what it is: a label is nothing to act on.
            region.label(&name(number), "color", "blue");
            return;
        }
        _ => region.ask_to_delete(&name(number), 1),
    }
    pods.insert(number, Fate::Deleted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_point_nothing_is_lost_or_doubled() {
    let mut bed = Testbed::with_image(&programs(), &Settings::default()).await;
    let region = Region::start().await;
    let mut pool = Pool::start(&bed, &region);
    let seed = std::env::var("SECOVIA_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(4);
    eprintln!("seed {seed} (SECOVIA_SEED)");
    let mut chance = Chance(seed);
    let (mut pods, mut next) = (BTreeMap::new(), 1);
    for _ in 0..KILLS {
        for _ in 0..1 + chance.below(3) {
            act(&region, &mut pods, &mut next, &mut chance);
            tokio::time::sleep(Duration::from_millis(chance.below(60))).await;
        }
        tokio::time::sleep(Duration::from_micros(chance.below(250_000))).await;
        let both = chance.below(2) == 0;
        if both {
            drop(std::mem::replace(&mut pool, Pool(None)));
        }
        bed.kill_agent();
        bed.start().await;
        if both {
            pool = Pool::start(&bed, &region);
        }
        assert_none_is_doubled(&bed.client().list_vms(true).await.unwrap());
    }
    // The pool alone, as often.
    for _ in 0..KILLS {
        act(&region, &mut pods, &mut next, &mut chance);
        tokio::time::sleep(Duration::from_micros(chance.below(120_000))).await;
        drop(pool);
        pool = Pool::start(&bed, &region);
        assert_none_is_doubled(&bed.client().list_vms(true).await.unwrap());
    }
    eprintln!(
        "{} Pods came, {} are wanted",
        pods.len(),
        pods.values().filter(|fate| **fate != Fate::Deleted).count()
    );
    for (number, fate) in &pods {
        let name = format!("pod-{number}");
        match fate {
            Fate::Deleted => region.gone(&name).await,
            Fate::Runs => {
                let runs =
                    |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["running"].is_object();
                region.wait(&name, "running", runs).await;
            }
            Fate::Ends => {
                // What was cut off in the middle has failed, or was run again where its policy says so.
                let ended = |pod: &Value| {
                    ["Succeeded", "Failed"].contains(&pod["status"]["phase"].as_str().unwrap_or(""))
                };
                region.wait(&name, "ended", ended).await;
            }
        }
    }
    let client = bed.client();
    let wanted: Vec<String> = pods
        .iter()
        .filter(|(_, fate)| **fate == Fate::Runs)
        .map(|(number, _)| uid(*number))
        .collect();
    until("exactly what is wanted runs", &bed, async || {
        let vms = client.list_vms(true).await.unwrap();
        assert_none_is_doubled(&vms);
        let mut active: Vec<String> = vms
            .iter()
            .filter(|vm| vm.state.is_active())
            .filter_map(number_of)
            .collect();
        active.sort();
        active == wanted
            && vms
                .iter()
                .all(|vm| number_of(vm).is_some_and(|uid| region.has(&uid)))
    })
    .await;
    bed.assert_records_are_true().await;
    let verdict = client.verify_audit().await.unwrap();
    assert_eq!(verdict.broken, None);
    eprintln!("the audit chain has {} records", verdict.records);
    // At rest nothing is asked at all.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = region.held().requests;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(region.held().requests, before);
    drop(pool);
}

/// A minute of errors, while Pods come and go: few requests, no microVM more or less than is known of, and all is caught up with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_fails_for_a_minute_is_not_stormed_and_loses_no_pod() {
    let bed = Testbed::with_image(&programs(), &Settings::default()).await;
    let region = Region::start().await;
    let pool = Pool::start(&bed, &region);
    let runs = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["running"].is_object();
    for number in 1..4 {
        region.bind_as(&format!("pod-{number}"), &uid(number), spec("Always", FOREVER));
        region.wait(&format!("pod-{number}"), "running", runs).await;
    }
    let before = bed.client().list_vms(true).await.unwrap();
    region.held().fault = Some(500);
    let asked = region.held().requests;
    region.ask_to_delete("pod-1", 1);
    region.bind_as("pod-4", &uid(4), spec("Always", FOREVER));
    tokio::time::sleep(Duration::from_secs(30)).await;
    region.held().fault = Some(429);
    tokio::time::sleep(Duration::from_secs(30)).await;
    // A certificate that ended meanwhile.
    region.held().fault = Some(401);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let asked = region.held().requests - asked;
    assert!((2..60).contains(&asked), "{asked} requests in 70 s");
    let vms = bed.client().list_vms(true).await.unwrap();
    let ids = |vms: &[Vm]| {
        vms.iter()
            .map(|vm| (vm.id.clone(), vm.starts))
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&vms), ids(&before), "what runs, runs on");
    region.held().fault = None;
    region.gone("pod-1").await;
    region.wait("pod-4", "running", runs).await;
    assert_eq!(bed.client().list_vms(true).await.unwrap().len(), 3);
    assert_eq!(bed.client().verify_audit().await.unwrap().broken, None);
    drop(pool);
}

/// A file system that is mounted at a place, until this is dropped.
struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    fn of_size(at: &'a Path, size: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "none"])
            .arg(at)
            .status();
        assert!(mounted.unwrap().success());
        Self(at)
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_what_runs_runs_on_and_what_waits_comes_when_there_is_room() {
    let mut bed = Testbed::new(&programs(), &Settings::default());
    let state = bed.path("state");
    let _mount = Mount::of_size(&state, "24m");
    bed.start().await;
    let path = bed.fake_image("base").to_str().unwrap().to_string();
    bed.client()
        .import_image(&ImageImport { path, name: None })
        .await
        .unwrap();
    let region = Region::start().await;
    let pool = Pool::start(&bed, &region);
    let runs = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["running"].is_object();
    region.bind_as("pod-1", &uid(1), spec("Always", FOREVER));
    region.wait("pod-1", "running", runs).await;
    let before = bed.client().list_vms(true).await.unwrap();
    // All of it, to the last block.
    let full = Command::new("dd")
        .args(["if=/dev/zero", "bs=4k", "status=none"])
        .arg(format!("of={}", state.join("full").display()))
        .output()
        .unwrap();
    assert!(!full.status.success(), "it was to be filled");
    region.bind_as("pod-2", &uid(2), spec("Always", FOREVER));
    region.ask_to_delete("pod-1", 1);
    region.bind_as("pod-3", &uid(3), spec("Always", FOREVER));
    tokio::time::sleep(Duration::from_secs(8)).await;
    let vms = bed.client().list_vms(true).await.unwrap();
    assert_none_is_doubled(&vms);
    assert!(
        before
            .iter()
            .all(|one| vms.iter().all(|vm| vm.id != one.id || vm.starts == one.starts))
    );
    let asked = region.held().requests;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let asked = region.held().requests - asked;
    assert!(asked < 40, "{asked} requests in 5 s");
    fs::remove_file(state.join("full")).unwrap();
    region.gone("pod-1").await;
    for pod in ["pod-2", "pod-3"] {
        region.wait(pod, "running", runs).await;
    }
    let vms = bed.client().list_vms(true).await.unwrap();
    assert_none_is_doubled(&vms);
    assert_eq!(vms.iter().filter(|vm| vm.state == VmState::Running).count(), 2);
    bed.assert_records_are_true().await;
    assert_eq!(bed.client().verify_audit().await.unwrap().broken, None);
    drop(pool);
    bed.kill_agent();
    for (_, pid) in bed.vmms() {
        let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
    }
}
