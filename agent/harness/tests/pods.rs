//! Pods of a region become microVMs of the agent: the pool's own code between the agent, with a stand-in for the VMM, and a
//! stand-in for the API server.

mod region;
mod shop;

use std::time::{Duration, Instant};

use region::Region;
use secovia_agent_api::{KillRequest, LogQuery, ReclaimRequest, StopRequest, Vm, VmState};
use secovia_agent_harness::{Programs, Settings, Testbed, log_text};
use secovia_pool::pods::Pods;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

struct World {
    bed: Testbed,
    region: Region,
    pool: Option<JoinHandle<()>>,
}

impl World {
    async fn new(settings: Settings) -> Self {
        let programs = Programs::fake(
            env!("CARGO_BIN_EXE_agent-under-test"),
            env!("CARGO_BIN_EXE_fake-vmm"),
            env!("CARGO_BIN_EXE_jailer-under-test"),
        );
        let bed = Testbed::with_image(&programs, &settings).await;
        let region = Region::start().await;
        let mut world = Self {
            bed,
            region,
            pool: None,
        };
        world.start_pool();
        world
    }

    fn start_pool(&mut self) {
        let pods = Pods {
            agent: self.bed.client(),
            region: self.region.client(),
            node: "node-1".into(),
            address: "192.0.2.7".parse().unwrap(),
            cache: self.bed.path("pool"),
        };
        self.pool = Some(tokio::spawn(async move {
            pods.keep(&watch::Sender::new(false)).await
        }));
    }

    /// As with kill -9: nothing is finished that was begun.
    async fn kill_pool(&mut self) {
        let pool = self.pool.take().unwrap();
        pool.abort();
        let _ = pool.await;
    }

    async fn vms(&self) -> Vec<Vm> {
        self.bed.client().list_vms(true).await.unwrap()
    }

    async fn wait_phase(&self, pod: &str, phase: &str) -> Value {
        self.region
            .wait(pod, phase, |pod| pod["status"]["phase"] == phase)
            .await
    }

    async fn wait_running(&self, pod: &str) -> Value {
        let is_running = |pod: &Value| state(pod)["running"].is_object();
        self.region.wait(pod, "running", is_running).await
    }
}

fn spec(policy: &str, script: &str) -> Value {
    json!({"restartPolicy": policy, "terminationGracePeriodSeconds": 20, "containers": [{"name": "main", "image": "base",
        "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c"], "args": [script],
        "resources": {"limits": {"memory": "64Mi"}}}]})
}

fn state(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]["state"]
}

fn waits_for(pod: &Value) -> &str {
    state(pod)["waiting"]["reason"].as_str().unwrap_or_default()
}

const FOREVER: &str = "while :; do sleep 0.1; done";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_runs_and_is_deleted_with_its_grace() {
    let world = World::new(Settings::default()).await;
    let script = "trap 'sleep 0.5; exit 5' TERM; echo up; while :; do sleep 0.1; done";
    world.region.bind("web-0", '1', spec("Always", script));
    let pod = world.wait_running("web-0").await;
    let bound = world.vms().await;
    assert_eq!(bound.len(), 1);
    assert_eq!(bound[0].name, "web-0-111111111111");
    assert_eq!(bound[0].command, ["sh", "-c", script]);
    let status = &pod["status"];
    assert_eq!(
        (&status["phase"], &status["hostIP"]),
        (&json!("Running"), &json!("192.0.2.7"))
    );
    let ready = status["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["type"] == "Ready");
    assert_eq!(ready.unwrap()["status"], "True");
    // It has its trap when it has said so.
    let client = world.bed.client();
    while log_text(&client, "web-0-111111111111", &LogQuery::default())
        .await
        .is_empty()
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    world.region.ask_to_delete("web-0", 15);
    let ended = |pod: &Value| state(pod)["terminated"]["exitCode"] == 5;
    world
        .region
        .wait("web-0", "ended with the status of its own", ended)
        .await;
    world.region.gone("web-0").await;
    assert!(world.vms().await.is_empty(), "nothing is left of it");
    let held = world.region.held();
    assert_eq!(held.phases["web-0"].last().map(String::as_str), Some("Failed"));
    // Nothing waits for them, so that they may come in another order.
    let mut reasons: Vec<&str> = held.events.iter().map(|(_, reason, _)| reason.as_str()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["Created", "Killing", "Pulled", "Started"]);
    let killing = held.events.iter().find(|(_, reason, _)| reason == "Killing");
    assert!(killing.unwrap().2.contains("15 s"), "{:?}", held.events);
}

/// What is fetched lies where the agent sees nothing of it, and is sent to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_fetched_from_a_registry() {
    let world = World::new(Settings::default()).await;
    let registry = shop::Image::new(&["sh", "-c", "echo fetched; sleep 60"])
        .registry()
        .await;
    let of = |policy: &str| {
        json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "imagePullPolicy": policy,
            "image": format!("{registry}/town/app:1"), "resources": {"limits": {"memory": "64Mi"}}}]})
    };
    world.region.bind("first", '1', of("Always"));
    world.wait_running("first").await;
    let fetched = || {
        let held = world.region.held();
        // The event also tells, in other words, of an image that was here.
        let pulled = held
            .events
            .iter()
            .filter(|(_, _, message)| message.starts_with("Successfully pulled"));
        pulled.count()
    };
    assert_eq!(fetched(), 1);
    let vms = world.vms().await;
    assert!(vms[0].image.starts_with("app-"), "{}", vms[0].image);
    assert_eq!(vms[0].command, ["sh", "-c", "echo fetched; sleep 60"]);
    // It is here now, and unchanged there.
    world.region.bind("second", '2', of("IfNotPresent"));
    world.region.bind("third", '3', of("Always"));
    world.wait_running("second").await;
    world.wait_running("third").await;
    assert_eq!(fetched(), 1);
    let left = std::fs::read_dir(world.bed.path("pool")).unwrap().count();
    assert_eq!(left, 0, "what was sent is not kept twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_are_reported_by_the_policy() {
    let world = World::new(Settings::default()).await;
    world.region.bind("done", '1', spec("OnFailure", "exit 0"));
    world.region.bind("fails", '2', spec("Never", "exit 3"));
    world
        .region
        .bind("loops", '3', spec("Always", "sleep 0.2; exit 4"));
    world
        .region
        .bind("none", '4', spec("Never", "exec /no/such/program"));
    let done = world.wait_phase("done", "Succeeded").await;
    assert_eq!(state(&done)["terminated"]["reason"], "Completed");
    let fails = world.wait_phase("fails", "Failed").await;
    assert_eq!(state(&fails)["terminated"]["exitCode"], 3);
    let none = world.wait_phase("none", "Failed").await;
    assert_eq!(state(&none)["terminated"]["exitCode"], 127);
    let again = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(2);
    let loops = world.region.wait("loops", "started again", again).await;
    assert_eq!(
        loops["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"],
        4
    );
    assert_eq!(loops["status"]["phase"], "Running");
    // What ended stays ended, and its log can be read, until it is deleted.
    assert_eq!(world.vms().await.len(), 4);
    world.region.ask_to_delete("done", 0);
    world.region.gone("done").await;
    assert_eq!(world.vms().await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused_by_name_and_what_is_missing_is_waited_for() {
    let world = World::new(Settings::default()).await;
    let mut privileged = spec("Always", FOREVER);
    privileged["containers"][0]["securityContext"] = json!({"privileged": true});
    world.region.bind("privileged", '1', privileged);
    let mut huge = spec("Always", FOREVER);
    huge["containers"][0]["resources"] = json!({"limits": {"memory": "64Ti"}});
    world.region.bind("huge", '2', huge);
    let mut absent = spec("Always", FOREVER);
    absent["containers"][0]["image"] = "no-such-image".into();
    absent["containers"][0]["imagePullPolicy"] = "Never".into();
    world.region.bind("absent", '3', absent);
    let mut configured = spec("Always", FOREVER);
    configured["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "settings"}}]);
    world.region.bind("configured", '4', configured);

    let refused = world.wait_phase("privileged", "Failed").await;
    assert_eq!(refused["status"]["reason"], "NotSupported");
    let message = refused["status"]["message"].as_str().unwrap();
    assert!(
        message.contains("spec.containers[0].securityContext.privileged"),
        "{message}"
    );
    let refused = world.wait_phase("huge", "Failed").await;
    assert_eq!(refused["status"]["reason"], "OutOfmemory");
    world
        .region
        .wait("absent", "waiting", |pod| waits_for(pod) == "ErrImageNeverPull")
        .await;
    let waits = |pod: &Value| waits_for(pod) == "CreateContainerConfigError";
    let pod = world.region.wait("configured", "waiting", waits).await;
    assert_eq!(pod["status"]["phase"], "Pending");
    world
        .region
        .keep_config_map("settings", json!({"GREETING": "hello"}));
    world.wait_running("configured").await;
    let vms = world.vms().await;
    assert_eq!(vms.len(), 1, "of what was refused there is nothing");
    assert_eq!(vms[0].env["GREETING"], "hello");
    let held = world.region.held();
    let of = |pod: &str, reason: &str| {
        held.events
            .iter()
            .any(|(name, why, _)| name == pod && why == reason)
    };
    assert!(
        of("privileged", "NotSupported") && of("huge", "OutOfmemory"),
        "{:?}",
        held.events
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_was_away_adopts_stops_and_makes_nothing_twice() {
    let mut world = World::new(Settings::default()).await;
    world.region.bind("stays", '1', spec("Always", FOREVER));
    world.region.bind("deleted", '2', spec("Always", FOREVER));
    world.region.bind("vanished", '3', spec("Always", FOREVER));
    for pod in ["stays", "deleted", "vanished"] {
        world.wait_running(pod).await;
    }
    let before = world.bed.client().vm("stays-111111111111").await.unwrap();
    world.kill_pool().await;
    world.region.ask_to_delete("deleted", 1);
    world.region.vanish("vanished");
    world.region.bind("new", '4', spec("Always", FOREVER));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.vms().await.len(), 3, "without the pool nothing ends");
    world.start_pool();
    world.region.gone("deleted").await;
    world.wait_running("new").await;
    let begun = Instant::now();
    while world.vms().await.len() != 2 {
        assert!(begun.elapsed() < Duration::from_secs(60), "what vanished stays");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let stays = world.bed.client().vm("stays-111111111111").await.unwrap();
    assert_eq!((&stays.id, stays.starts), (&before.id, 1), "it ran on");
    assert_eq!(stays.vmm_pid, before.vmm_pid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_region_answers_with_errors_nothing_ends_and_little_is_asked() {
    let world = World::new(Settings::default()).await;
    world.region.bind("stays", '1', spec("Always", FOREVER));
    world.wait_running("stays").await;
    for code in [500, 429] {
        world.region.held().fault = Some(code);
        // The watch ends with it, and something changes that would be reported.
        world.region.bind(
            &format!("new-{code}"),
            if code == 500 { '2' } else { '3' },
            spec("Always", FOREVER),
        );
        world
            .bed
            .client()
            .kill_vm("stays-111111111111", &KillRequest { signal: Some(9) })
            .await
            .unwrap();
        let before = world.region.held().requests;
        tokio::time::sleep(Duration::from_secs(4)).await;
        let asked = world.region.held().requests - before;
        assert!(asked < 40, "{asked} requests in 4 s of status {code}");
        assert_eq!(world.vms().await.len(), if code == 500 { 1 } else { 2 });
        world.region.held().fault = None;
        world.wait_running(&format!("new-{code}")).await;
    }
    let again = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64() == Some(2);
    world
        .region
        .wait("stays", "reported as started twice more", again)
        .await;
    // At rest nothing is asked at all.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = world.region.held().requests;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.region.held().requests, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_stopped_here_runs_again_as_its_pod_says() {
    let world = World::new(Settings::default()).await;
    world.region.bind("web", '1', spec("Always", FOREVER));
    world.wait_running("web").await;
    let client = world.bed.client();
    client
        .stop_vm("web-111111111111", &StopRequest { grace_s: 0 })
        .await
        .unwrap();
    world
        .bed
        .wait_for("web-111111111111", "started again", |vm| {
            vm.starts == 2 && vm.state == VmState::Running
        })
        .await;
    client.delete_vm("web-111111111111", true).await.unwrap();
    let begun = Instant::now();
    while client.vm("web-111111111111").await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it is not made anew");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_takes_the_machine_back_and_pods_are_evicted() {
    let world = World::new(Settings::default()).await;
    world.region.bind(
        "web",
        '1',
        spec("Always", "trap 'exit 0' TERM; while :; do sleep 0.1; done"),
    );
    world.wait_running("web").await;
    let client = world.bed.client();
    let deadline_s = Some(30);
    client.reclaim(&ReclaimRequest { deadline_s }).await.unwrap();
    let pod = world.wait_phase("web", "Failed").await;
    assert_eq!(pod["status"]["reason"], "Evicted");
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    let disrupted = conditions
        .iter()
        .find(|one| one["type"] == "DisruptionTarget")
        .unwrap();
    assert_eq!(
        (&disrupted["status"], &disrupted["reason"]),
        (&json!("True"), &json!("TerminationByKubelet"))
    );
    world.region.bind("late", '2', spec("Always", FOREVER));
    world.wait_phase("late", "Failed").await;
    client.release().await.unwrap();
    assert_eq!(
        client.offer().await.unwrap().ladder.ordered_by,
        None,
        "from that moment on"
    );
    world.region.bind("later", '3', spec("Always", FOREVER));
    world.wait_running("later").await;
}
