//! An agent that ends, in whatever way and moment, and comes back.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use secovia_agent_api::{LogQuery, RestartPolicy, StopRequest, Vm, VmCreate, VmState, WaitUntil};
use secovia_guest_protocol::ExitStatus;

use crate::bed::PATIENCE;
use crate::{Programs, Settings, Testbed, exec, log_text, run, sh};

const COUNTS: &str = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done";

async fn three(bed: &Testbed) -> Vec<Vm> {
    let mut vms = Vec::new();
    for name in ["one", "two", "three"] {
        bed.client().create_vm(&sh(name, COUNTS)).await.unwrap();
    }
    for name in ["one", "two", "three"] {
        vms.push(bed.running(name).await);
    }
    vms
}

/// kill -9 of the agent with three VMs: they go on, the next agent has the same three, exec works in each, and not a
/// byte of their output is lost or told twice.
pub async fn a_killed_agent_finds_its_vms_again(programs: &Programs) {
    let mut bed = Testbed::with_image(programs, &Settings::default()).await;
    let before = three(&bed).await;
    let vmms = bed.vmms();
    assert_eq!(vmms.len(), 3);
    for round in 0..3 {
        bed.kill_agent();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(bed.vmms(), vmms, "the VMs go on");
        bed.start().await;
        let client = bed.client();
        for vm in &before {
            let after = client.vm(&vm.name).await.unwrap();
            assert_eq!((&after.id, after.vmm_pid), (&vm.id, vm.vmm_pid));
            assert_eq!(
                (&after.state, after.started_at_ms),
                (&VmState::Running, vm.started_at_ms)
            );
            let ended = exec(&client, &vm.name, &["sh", "-c", "echo here"]).await;
            assert_eq!(
                (ended.stdout.as_str(), ended.exit),
                ("here\n", Some(ExitStatus::Exited(0)))
            );
        }
        let begun = Instant::now();
        let least = 20 * (round + 1);
        loop {
            let log = log_text(&client, "two", &LogQuery::default()).await;
            let lines: Vec<&str> = log.lines().collect();
            for (i, line) in lines.iter().enumerate() {
                assert_eq!(*line, i.to_string(), "{log}");
            }
            if lines.len() > least {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{}", bed.agent_log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    bed.assert_records_are_true().await;
    for vm in &before {
        bed.client().delete_vm(&vm.id, true).await.unwrap();
    }
    bed.assert_nothing_runs();
}

/// SIGTERM ends the agent in good order, and the VMs go on.
pub async fn a_stopped_agent_leaves_its_vms_alone(programs: &Programs) {
    let mut bed = Testbed::with_image(programs, &Settings::default()).await;
    let before = three(&bed).await;
    let vmms = bed.vmms();
    assert!(bed.end_agent(Signal::SIGTERM).success());
    assert!(
        !bed.path("run/agent.sock").exists(),
        "the socket goes with the agent"
    );
    assert_eq!(bed.vmms(), vmms);
    bed.start().await;
    for vm in &before {
        assert_eq!(bed.running(&vm.name).await.vmm_pid, vm.vmm_pid);
    }
}

/// What happens while no agent is there is found out by the next one: a workload's end with its status and last words,
/// a VMM's end without them.
pub async fn what_happened_meanwhile_is_found_out(programs: &Programs) {
    let mut bed = Testbed::with_image(programs, &Settings::default()).await;
    let client = bed.client();
    client
        .create_vm(&sh("ends", "echo first; sleep 1; echo last; exit 9"))
        .await
        .unwrap();
    let doomed = sh("dies", "while :; do sleep 0.05; done");
    client.create_vm(&doomed).await.unwrap();
    bed.running("ends").await;
    let dies = bed.running("dies").await;
    bed.kill_agent();
    let pid = nix::unistd::Pid::from_raw(dies.vmm_pid.unwrap() as i32);
    nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    bed.start().await;
    let ends = bed.wait_for("ends", "over", |vm| !vm.state.is_active()).await;
    assert_eq!(ends.state, VmState::Exited { code: 9 });
    assert_eq!(
        log_text(&client, "ends", &LogQuery::default()).await,
        "first\nlast\n"
    );
    let dies = client.vm("dies").await.unwrap();
    assert!(
        matches!(&dies.state, VmState::Failed { reason, .. } if reason.contains("no agent")),
        "{dies:?}"
    );
    bed.assert_nothing_runs();
}

/// A stop that was begun is carried on by the next agent, and the workload still has its own last word.
pub async fn a_stop_outlives_the_agent(programs: &Programs) {
    let mut bed = Testbed::with_image(programs, &Settings::default()).await;
    let client = bed.client();
    let script = "trap 'sleep 2; echo bye; exit 6' TERM; echo up; while :; do sleep 0.05; done";
    client.create_vm(&sh("slow", script)).await.unwrap();
    bed.said("slow", "up").await;
    let stopping = tokio::spawn(async move {
        let _ = client.stop_vm("slow", &StopRequest { grace_s: 30 }).await;
    });
    bed.wait_for("slow", "stopping", |vm| vm.state == VmState::Stopping)
        .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    bed.kill_agent();
    stopping.await.unwrap();
    bed.start().await;
    let vm = bed.client().wait_vm("slow", WaitUntil::Ended).await.unwrap();
    assert_eq!(vm.state, VmState::Exited { code: 6 });
    assert!(
        log_text(&bed.client(), "slow", &LogQuery::default())
            .await
            .ends_with("bye\n")
    );
    bed.assert_nothing_runs();
}

/// One with the policy `always` comes back with the agent, also when it was stopped; others do not.
pub async fn always_comes_back_with_the_agent(programs: &Programs) {
    let mut bed = Testbed::with_image(programs, &Settings::default()).await;
    let client = bed.client();
    let mut create = sh("always", "while :; do sleep 0.05; done");
    create.restart = RestartPolicy::Always;
    client.create_vm(&create).await.unwrap();
    create.name = Some("failure".into());
    create.restart = RestartPolicy::OnFailure { max_retries: None };
    client.create_vm(&create).await.unwrap();
    for name in ["always", "failure"] {
        bed.running(name).await;
        client.stop_vm(name, &StopRequest { grace_s: 0 }).await.unwrap();
    }
    assert!(bed.end_agent(Signal::SIGTERM).success());
    bed.start().await;
    bed.running("always").await;
    assert!(!client.vm("failure").await.unwrap().state.is_active());
}

/// A moment of a run, as dense early as late by its order of magnitude: records and processes come to be in the first
/// milliseconds, on a host that is a hundred times slower too. `part` is from 0 to 1.
fn moment(part: f64, longest: Duration) -> Duration {
    const SHORTEST: Duration = Duration::from_micros(100);
    SHORTEST.mul_f64((longest.as_secs_f64() / SHORTEST.as_secs_f64()).powf(part))
}

/// kill -9 of the agent at many random moments of `run`: afterwards no VM runs without a record, and no record claims a
/// VM that is not there.
pub async fn no_moment_of_a_run_is_a_bad_one_to_die(programs: &Programs, rounds: u32, longest: Duration) {
    let mut bed = Testbed::with_image(programs, &Settings::default()).await;
    let mut seed = 0x5ec0_71a0_u64 ^ u64::from(std::process::id());
    let mut caught = [0u32; 3];
    for round in 0..rounds {
        let client = bed.client();
        let create = VmCreate {
            rm: round % 2 == 0,
            ..sh(&format!("run-{round}"), "echo hello; exit 3")
        };
        let running = tokio::spawn(async move {
            // The connection breaks when the agent dies.
            let mut create = create;
            create.attach = true;
            let Ok(vm) = client.create_vm(&create).await else {
                return;
            };
            if client.attach(&vm.id).await.is_ok() {
                create.name = Some(format!("again-{round}"));
                create.attach = false;
                let _ = client.create_vm(&create).await;
            }
        });
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let part = (f64::from(round) + (seed >> 33) as f64 / f64::from(1u32 << 31)) / f64::from(rounds);
        tokio::time::sleep(moment(part, longest)).await;
        bed.kill_agent();
        running.abort();
        let orphans = bed.vmms().len();
        bed.start().await;
        bed.assert_records_are_true().await;
        caught[orphans.min(2)] += 1;
        for vm in bed.client().list_vms(true).await.unwrap() {
            // One for a single run may have removed itself meanwhile.
            if let Err(error) = bed.client().delete_vm(&vm.id, true).await {
                assert!(bed.client().vm(&vm.id).await.is_err(), "{error}");
            }
        }
        bed.assert_nothing_runs();
    }
    println!(
        "{rounds} moments: {} with no VMM, {} with one, {} with two",
        caught[0], caught[1], caught[2]
    );
    assert!(
        caught[0] > 0 && caught[1] + caught[2] > 0,
        "moments of one kind prove little: {caught:?}"
    );
    let ended = run(&bed.client(), sh("after", "exit 3"), None).await;
    assert_eq!(ended.exit, Some(ExitStatus::Exited(3)));
}

/// kill -9 of the jailer at many moments of its work: nothing of it is left, and the record says what happened.
/// `programs` has a jailer that dies as long after its start as the file `mortal` of the world says.
pub async fn no_moment_is_a_bad_one_for_a_jailer_to_die(programs: &Programs, rounds: u32) {
    let bed = Testbed::with_image(programs, &Settings::default()).await;
    let client = bed.client();
    let create = VmCreate {
        disk_mib: Some(16),
        ..sh("x", COUNTS)
    };
    // How long the work takes here, from the request to the VMM's start.
    let begun = Instant::now();
    client.create_vm(&create).await.unwrap();
    bed.running("x").await;
    let longest = begun.elapsed().mul_f64(1.5);
    let (mut died, mut came_through) = (0, 0);
    for round in 0..rounds {
        client.delete_vm("x", true).await.unwrap();
        bed.assert_nothing_runs();
        let time = moment(f64::from(round) / f64::from(rounds), longest);
        std::fs::write(bed.path("mortal"), time.as_micros().to_string()).unwrap();
        client.create_vm(&create).await.unwrap();
        let vm = bed
            .wait_for("x", "up or down", |vm| {
                vm.state == VmState::Running || !vm.state.is_active()
            })
            .await;
        match &vm.state {
            VmState::Failed { reason, .. } => {
                assert!(reason.contains("the jailer failed (signal: 9"), "{reason}");
                bed.assert_nothing_runs();
                died += 1;
            }
            VmState::Running => came_through += 1,
            other => panic!("{other:?}"),
        }
    }
    println!("{rounds} moments: {died} in the jailer's work, {came_through} after it");
    assert!(died > 5 && came_through > 5, "{died} {came_through}");
    client.delete_vm("x", true).await.unwrap();
    bed.assert_nothing_runs();
}

/// kill -9 of whatever has just become a VM's own process, many times as early as can be: the record says so, and nothing
/// is left.
pub async fn a_vmm_may_die_as_soon_as_it_is_one(programs: &Programs, rounds: u32) {
    let bed = Testbed::with_image(programs, &Settings::default()).await;
    let client = bed.client();
    for round in 0..rounds {
        client.create_vm(&sh("x", COUNTS)).await.unwrap();
        let begun = Instant::now();
        let vmm = loop {
            if let Some((_, pid)) = bed.vmms().first() {
                break *pid;
            }
            assert!(begun.elapsed() < PATIENCE, "{}", bed.agent_log());
        };
        std::thread::sleep(Duration::from_micros(u64::from(round) * 200));
        let _ = kill(Pid::from_raw(vmm as i32), Signal::SIGKILL);
        let vm = client.wait_vm("x", WaitUntil::Ended).await.unwrap();
        // A guest that was just being asked is missed before its VMM is.
        let expected = ["signal 9", "the jailer failed", "cannot be reached"];
        assert!(
            matches!(&vm.state, VmState::Failed { reason, .. } if expected.iter().any(|words| reason.contains(words))),
            "{vm:?}"
        );
        bed.assert_nothing_runs();
        client.delete_vm("x", true).await.unwrap();
    }
}
