//! What is lent, and how the owner takes it back.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use secovia_agent_api::client::ClientError;
use secovia_agent_api::{AuditEvent, ErrorCode, ReclaimRequest, RestartPolicy, VmCreate, VmState};

use crate::bed::{PATIENCE, POLL};
use crate::{Programs, Settings, Testbed, sh};

/// Ends at once when it is asked to.
const GENTLE: &str = "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done";

/// Does not listen.
const DEAF: &str = "trap '' TERM; echo up; while :; do sleep 0.05; done";

fn code(error: ClientError) -> ErrorCode {
    match error {
        ClientError::Refused(detail) => detail.code,
        other => panic!("{other}"),
    }
}

fn always(name: &str, script: &str) -> VmCreate {
    VmCreate {
        restart: RestartPolicy::Always,
        ..sh(name, script)
    }
}

/// The kinds of all audit records, oldest first.
async fn kinds(bed: &Testbed) -> Vec<String> {
    let records = bed.client().audit(None).await.unwrap();
    let kind = |event: &AuditEvent| {
        serde_json::to_value(event).unwrap()["kind"]
            .as_str()
            .unwrap()
            .to_string()
    };
    records.iter().map(|record| kind(&record.event)).collect()
}

async fn audit_is_whole(bed: &Testbed) {
    let verdict = bed.client().verify_audit().await.unwrap();
    assert_eq!(verdict.broken, None);
}

/// Four VMs, one of them deaf and one that always comes back: `reclaim` ends them inside its deadline, every time, with
/// nobody to talk to but the local socket. Until `release` nothing runs and nothing is admitted.
pub async fn the_owner_takes_it_back_in_time(programs: &Programs, rounds: u32, deadline_s: u32) {
    let bed = Testbed::with_image(programs, &Settings::default()).await;
    let client = bed.client();
    client.create_vm(&always("always", GENTLE)).await.unwrap();
    let mut slowest = 0;
    for round in 0..rounds {
        client.create_vm(&sh("gentle", GENTLE)).await.unwrap();
        // The deaf one uses up what time there is, so it is there once in a while.
        let third = if round % 5 == 0 { DEAF } else { GENTLE };
        client.create_vm(&sh("third", third)).await.unwrap();
        let once = VmCreate {
            rm: true,
            ..sh("once", GENTLE)
        };
        client.create_vm(&once).await.unwrap();
        for name in ["always", "gentle", "third", "once"] {
            bed.running(name).await;
            bed.said(name, "up").await;
        }
        assert_eq!(bed.vmms().len(), 4);
        let begun = Instant::now();
        let request = ReclaimRequest {
            deadline_s: Some(deadline_s),
        };
        let reclaimed = client.reclaim(&request).await.unwrap();
        let took = begun.elapsed();
        assert_eq!((reclaimed.ended, &reclaimed.left), (4, &vec![]), "{reclaimed:?}");
        assert!(took < Duration::from_secs(deadline_s.into()), "{took:?}");
        slowest = slowest.max(reclaimed.took_ms);
        bed.assert_nothing_runs();
        assert_eq!(
            code(client.create_vm(&sh("late", GENTLE)).await.unwrap_err()),
            ErrorCode::AdmissionClosed
        );
        assert_eq!(
            code(client.start_vm("gentle").await.unwrap_err()),
            ErrorCode::AdmissionClosed
        );
        assert!(matches!(
            client.vm("always").await.unwrap().state,
            VmState::BackOff { .. }
        ));
        assert!(client.vm("once").await.is_err(), "it was for one run");
        client.release().await.unwrap();
        for name in ["gentle", "third"] {
            client.delete_vm(name, true).await.unwrap();
        }
    }
    bed.running("always").await;
    audit_is_whole(&bed).await;
    println!("{rounds} reclaims of four VMs, deadline {deadline_s} s: the slowest took {slowest} ms");
}

/// The agent dies over a reclaim: the next one carries it on to its end, and keeps to it until the release.
pub async fn a_reclaim_outlives_the_agent(programs: &Programs) {
    let mut bed = Testbed::with_image(programs, &Settings::default()).await;
    let client = bed.client();
    client.create_vm(&always("always", DEAF)).await.unwrap();
    client.create_vm(&sh("deaf", DEAF)).await.unwrap();
    for name in ["always", "deaf"] {
        bed.running(name).await;
        bed.said(name, "up").await;
    }
    let begun = Instant::now();
    let asking = tokio::spawn(async move {
        let request = ReclaimRequest { deadline_s: Some(8) };
        // The connection breaks when the agent dies.
        let _ = client.reclaim(&request).await;
    });
    bed.wait_for("deaf", "stopping", |vm| vm.state == VmState::Stopping)
        .await;
    bed.kill_agent();
    asking.await.unwrap();
    bed.start().await;
    while !bed.vmms().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(8), "{}", bed.agent_log());
        tokio::time::sleep(POLL).await;
    }
    let client = bed.client();
    assert_eq!(
        client.offer().await.unwrap().ladder.ordered_by.as_deref(),
        Some("owner")
    );
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(bed.vmms(), [], "nothing comes back before the release");
    client.release().await.unwrap();
    let vm = bed.running("always").await;
    assert_eq!(bed.vmms().len(), 1);
    client.delete_vm(&vm.id, true).await.unwrap();
    let kinds = kinds(&bed).await;
    for kind in [
        "agent_started",
        "admitted",
        "reclaim_ordered",
        "ladder_moved",
        "shut_down",
        "returned",
        "release_ordered",
    ] {
        assert!(kinds.iter().any(|seen| seen == kind), "{kind}: {kinds:?}");
    }
    audit_is_whole(&bed).await;
}

/// The policy is reloaded whole or not at all, and what it does not offer is not lent.
pub async fn a_policy_is_reloaded_whole_or_not_at_all(programs: &Programs) {
    let mut bed = Testbed::with_image(programs, &Settings::default()).await;
    let client = bed.client();
    assert!(!client.offer().await.unwrap().lending);
    client.create_vm(&sh("first", GENTLE)).await.unwrap();
    let first = bed.running("first").await;
    let config = bed.path("agent.toml");
    let without = fs::read_to_string(&config).unwrap();
    let reload = |bed: &Testbed| kill(Pid::from_raw(bed.agent_pid() as i32), Signal::SIGHUP).unwrap();
    let lends = async |bed: &Testbed, lends: bool| {
        let begun = Instant::now();
        while bed.client().offer().await.unwrap().lending != lends {
            assert!(begun.elapsed() < PATIENCE, "{}", bed.agent_log());
            tokio::time::sleep(POLL).await;
        }
    };
    // The reservation is more than the machine has: nothing is left to be lent.
    let policy = "[reserve]\ncpu = 9000\nmemory = \"900T\"\ndisk = \"900T\"\n[measure]\nwarm_up_s = 1\n\
                  [labels]\nsite = \"cellar\"\n";
    fs::write(&config, format!("{without}{policy}")).unwrap();
    reload(&bed);
    lends(&bed, true).await;
    assert_eq!(
        client.offer().await.unwrap().labels.site.as_deref(),
        Some("cellar")
    );
    let error = client.create_vm(&sh("second", GENTLE)).await.unwrap_err();
    for words in ["create microVM `second`", "too little cpu", "memory", "--explain"] {
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
    // With so much reserved the machine is as good as full: it may be closed before it is counted.
    let code = code(error);
    assert!(
        [ErrorCode::InsufficientResources, ErrorCode::AdmissionClosed].contains(&code),
        "{code:?}"
    );
    assert_eq!(client.vm("first").await.unwrap().vmm_pid, first.vmm_pid);
    // One wrong line, and nothing of the file counts.
    fs::write(
        &config,
        format!("{without}[reserve]\ncpu = 0\nmemory = \"1G\"\ndisk = \"1G\"\n"),
    )
    .unwrap();
    reload(&bed);
    let begun = Instant::now();
    while !bed.agent_log().contains("nothing is reloaded") {
        assert!(begun.elapsed() < PATIENCE, "{}", bed.agent_log());
        tokio::time::sleep(POLL).await;
    }
    assert!(
        bed.agent_log().contains("`reserve.cpu` is 0"),
        "{}",
        bed.agent_log()
    );
    assert!(client.offer().await.unwrap().lending);
    fs::write(&config, &without).unwrap();
    reload(&bed);
    lends(&bed, false).await;
    client.delete_vm("first", true).await.unwrap();
    bed.kill_agent();
    bed.start().await;
    audit_is_whole(&bed).await;
    bed.assert_nothing_runs();
}

/// Nobody is given memory that the machine does not have, however it is divided.
pub async fn memory_is_bounded_without_a_policy(programs: &Programs) {
    let bed = Testbed::with_image(programs, &Settings::default()).await;
    let client = bed.client();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
    let total_kib: u64 = meminfo.split_whitespace().nth(1).unwrap().parse().unwrap();
    let large = |name: &str| VmCreate {
        memory_mib: total_kib / 1024 * 6 / 10,
        ..sh(name, GENTLE)
    };
    // Its memory is reserved, not touched.
    let idle = VmCreate {
        start: false,
        ..large("rests")
    };
    client.create_vm(&idle).await.unwrap();
    client.create_vm(&large("one")).await.unwrap();
    let error = client.create_vm(&large("two")).await.unwrap_err();
    assert!(error.to_string().contains("too little memory"), "{error}");
    assert_eq!(code(error), ErrorCode::InsufficientResources);
    assert!(
        client.start_vm("rests").await.is_err(),
        "what rests holds no memory, and gets none"
    );
    client.delete_vm("one", true).await.unwrap();
    client.start_vm("rests").await.unwrap();
    bed.running("rests").await;
}
