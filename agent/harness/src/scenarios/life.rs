//! One VM, from its creation to its removal.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use secovia_agent_api::{KillRequest, LogQuery, RestartPolicy, StopRequest, VmState, WaitUntil};
use secovia_guest_protocol::ExitStatus;

use crate::bed::entries;
use crate::{Programs, Settings, Testbed, exec, log_text, run, sh};

/// A foreground run hands over both streams and the status, and leaves nothing when it is to be removed.
pub async fn run_hands_over_output_and_status(programs: &Programs) {
    let bed = Testbed::with_image(programs, &Settings::default()).await;
    let client = bed.client();
    let mut create = sh("once", "echo out; echo err >&2; exit 7");
    let ended = run(&client, create.clone(), None).await;
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(ended.exit, Some(ExitStatus::Exited(7)));
    let vm = client.wait_vm("once", WaitUntil::Ended).await.unwrap();
    assert_eq!(vm.state, VmState::Exited { code: 7 });
    assert_eq!(vm.vmm_pid, None);
    let timing = vm.timing.unwrap();
    assert!(
        timing.guest_us > 0 && timing.workload_us >= timing.guest_us && timing.init_us > 0,
        "{timing:?}"
    );
    let log = log_text(&client, "once", &LogQuery::default()).await;
    assert_eq!(log.len(), "out\nerr\n".len(), "{log:?}");
    bed.assert_nothing_runs();
    assert_eq!(entries(&bed.path("state/vms")), [vm.id]);

    client.delete_vm("once", false).await.unwrap();
    create.rm = true;
    let ended = run(&client, create, None).await;
    assert_eq!(ended.exit, Some(ExitStatus::Exited(7)));
    let begun = Instant::now();
    while !client.list_vms(true).await.unwrap().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{}", bed.agent_log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bed.assert_nothing_runs();
    assert!(entries(&bed.path("state/vms")).is_empty());
}

/// Input reaches a workload that asked for it, and is at its end for one that did not.
pub async fn input_reaches_who_asked_for_it(programs: &Programs) {
    let bed = Testbed::with_image(programs, &Settings::default()).await;
    let client = bed.client();
    let ended = run(&client, sh("reads", "cat; echo done"), Some("a\nb\n")).await;
    assert_eq!(
        (ended.stdout.as_str(), ended.exit),
        ("a\nb\ndone\n", Some(ExitStatus::Exited(0)))
    );
    let ended = run(&client, sh("no-input", "cat; echo done"), None).await;
    assert_eq!(
        (ended.stdout.as_str(), ended.exit),
        ("done\n", Some(ExitStatus::Exited(0)))
    );
}

/// Processes beside a detached workload, a signal to it, and a stop that lets it end in its own way.
pub async fn exec_signal_and_stop(programs: &Programs) {
    let bed = Testbed::with_image(programs, &Settings::default()).await;
    let client = bed.client();
    let script = "trap 'echo usr1' USR1; trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.05; done";
    client.create_vm(&sh("long", script)).await.unwrap();
    let vm = bed.running("long").await;
    let ended = exec(&client, "long", &["sh", "-c", "echo in; exit 3"]).await;
    assert_eq!(
        (ended.stdout.as_str(), ended.exit),
        ("in\n", Some(ExitStatus::Exited(3)))
    );
    let ended = exec(&client, &vm.id, &["/does/not/exist"]).await;
    assert!(ended.error.is_some(), "{ended:?}");

    bed.said("long", "up").await;
    client
        .kill_vm("long", &KillRequest { signal: Some(10) })
        .await
        .unwrap();
    bed.said("long", "usr1").await;
    let stats = client.vm_stats("long").await.unwrap();
    assert!(
        stats.memory_bytes > 0 && stats.memory_limit_bytes == 128 << 20,
        "{stats:?}"
    );

    let stopped = client
        .stop_vm("long", &StopRequest { grace_s: 20 })
        .await
        .unwrap();
    assert_eq!(stopped.state, VmState::Exited { code: 5 });
    // The shell may say what became of its `sleep`.
    let log = log_text(&client, "long", &LogQuery::default()).await;
    let own: Vec<&str> = log
        .lines()
        .filter(|line| ["up", "usr1", "bye"].contains(line))
        .collect();
    assert_eq!(own, ["up", "usr1", "bye"], "{log}");
    bed.assert_nothing_runs();
    let error = client.vm_stats("long").await.unwrap_err().to_string();
    assert!(error.contains("exited"), "{error}");
    // A stop of what does not run changes nothing; it can be started again.
    assert_eq!(
        client
            .stop_vm("long", &StopRequest::default())
            .await
            .unwrap()
            .state,
        stopped.state
    );
    client.start_vm("long").await.unwrap();
    bed.running("long").await;
    let killed = client.kill_vm("long", &KillRequest::default()).await.unwrap();
    assert_eq!(killed.state, VmState::Exited { code: 137 });
    bed.assert_nothing_runs();
}

/// A workload that does not listen is ended when its grace is over.
pub async fn a_stop_ends_the_deaf(programs: &Programs) {
    let bed = Testbed::with_image(programs, &Settings::default()).await;
    let client = bed.client();
    client
        .create_vm(&sh("deaf", "trap '' TERM; echo up; while :; do sleep 0.05; done"))
        .await
        .unwrap();
    bed.said("deaf", "up").await;
    let begun = Instant::now();
    let stopped = client.stop_vm("deaf", &StopRequest { grace_s: 1 }).await.unwrap();
    assert_eq!(stopped.state, VmState::Exited { code: 137 });
    assert!(begun.elapsed() >= Duration::from_secs(1));
    bed.assert_nothing_runs();
}

/// A program that does not exist is told as a shell would.
pub async fn a_missing_program_is_told(programs: &Programs) {
    let bed = Testbed::with_image(programs, &Settings::default()).await;
    let client = bed.client();
    let mut create = sh("nothing", "");
    create.command = vec!["/no/such/program".into()];
    let ended = run(&client, create, None).await;
    assert_eq!(ended.exit, None);
    let vm = client.wait_vm("nothing", WaitUntil::Ended).await.unwrap();
    let VmState::Failed { reason, code } = vm.state else {
        panic!("{vm:?}");
    };
    assert_eq!(code, Some(127));
    assert!(reason.contains("/no/such/program"), "{reason}");
    bed.assert_nothing_runs();
}

/// The environment and the working directory are the image's and the request's, the request's first.
pub async fn environment_and_directory(programs: &Programs) {
    let bed = Testbed::with_image(programs, &Settings::default()).await;
    let client = bed.client();
    let mut create = sh("env", "echo \"$A|$B\"; pwd");
    create.env = [
        ("A".to_string(), "1 2".to_string()),
        ("B".to_string(), "=".to_string()),
    ]
    .into();
    create.working_dir = Some("/tmp".into());
    let ended = run(&client, create, None).await;
    assert_eq!(ended.stdout, "1 2|=\n/tmp\n");
}

/// kill -9 of one VMM: the record says so within a second, and the restart policy applies.
pub async fn a_killed_vmm_is_told_within_a_second(programs: &Programs) {
    let bed = Testbed::with_image(programs, &Settings::default()).await;
    let client = bed.client();
    let mut create = sh("mortal", "while :; do sleep 0.05; done");
    client.create_vm(&create).await.unwrap();
    create.name = Some("phoenix".into());
    create.restart = RestartPolicy::OnFailure { max_retries: Some(3) };
    client.create_vm(&create).await.unwrap();
    let mortal = bed.running("mortal").await;
    let phoenix = bed.running("phoenix").await;
    for vm in [&mortal, &phoenix] {
        kill(Pid::from_raw(vm.vmm_pid.unwrap() as i32), Signal::SIGKILL).unwrap();
    }
    let begun = Instant::now();
    let failed = bed
        .wait_for("mortal", "failed", |vm| vm.state != VmState::Running)
        .await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    let VmState::Failed { reason, .. } = failed.state else {
        panic!("{failed:?}");
    };
    assert!(reason.contains("signal 9"), "{reason}");
    let risen = bed
        .wait_for("phoenix", "running again", |vm| {
            vm.state == VmState::Running && vm.vmm_pid.is_some_and(|pid| Some(pid) != phoenix.vmm_pid)
        })
        .await;
    assert_eq!(risen.restarts, 1);
    bed.assert_records_are_true().await;
}

/// A workload that fails is started again as often as its policy says.
pub async fn a_failing_workload_is_restarted_and_given_up(programs: &Programs) {
    let bed = Testbed::with_image(programs, &Settings::default()).await;
    let client = bed.client();
    let mut create = sh("fails", "echo try; exit 4");
    create.restart = RestartPolicy::OnFailure { max_retries: Some(2) };
    client.create_vm(&create).await.unwrap();
    let vm = bed
        .wait_for("fails", "given up", |vm| {
            matches!(vm.state, VmState::Exited { .. } | VmState::Failed { .. })
        })
        .await;
    assert_eq!((vm.state, vm.restarts), (VmState::Exited { code: 4 }, 2));
    assert_eq!(
        log_text(&client, "fails", &LogQuery::default()).await,
        "try\ntry\ntry\n"
    );
    bed.assert_nothing_runs();
}

/// A log can be followed from before the start to the end.
pub async fn a_log_is_followed_to_the_end(programs: &Programs) {
    let bed = Testbed::with_image(programs, &Settings::default()).await;
    let client = bed.client();
    client
        .create_vm(&sh(
            "talks",
            "for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.05; done",
        ))
        .await
        .unwrap();
    let follow = LogQuery {
        follow: true,
        ..LogQuery::default()
    };
    let expected: String = (1..=8).map(|i| format!("line {i}\n")).collect();
    assert_eq!(log_text(&client, "talks", &follow).await, expected);
    let tail = LogQuery {
        tail: Some(2),
        ..LogQuery::default()
    };
    assert_eq!(log_text(&client, "talks", &tail).await, "line 7\nline 8\n");
}

/// Much output reaches log and session whole.
pub async fn much_output_arrives_whole(programs: &Programs) {
    let bed = Testbed::with_image(programs, &Settings::default()).await;
    let client = bed.client();
    let ended = run(
        &client,
        sh(
            "floods",
            "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done",
        ),
        None,
    )
    .await;
    let expected: String = (0..20_000).map(|i| format!("line {i}\n")).collect();
    assert!(
        ended.stdout == expected,
        "{} of {} bytes",
        ended.stdout.len(),
        expected.len()
    );
    // The session may have the end before the log does.
    client.wait_vm("floods", WaitUntil::Ended).await.unwrap();
    assert!(log_text(&client, "floods", &LogQuery::default()).await == expected);
}

/// What was written on a disk of its own is there again after a stop, and gone with the VM. Needs a real guest.
pub async fn a_disk_keeps_what_was_written(programs: &Programs) {
    let bed = Testbed::with_image(programs, &Settings::default()).await;
    let client = bed.client();
    let mut create = sh(
        "keeps",
        "cat /kept 2>/dev/null || echo nothing; echo something > /kept",
    );
    create.disk_mib = Some(64);
    client.create_vm(&create).await.unwrap();
    let vm = client.wait_vm("keeps", WaitUntil::Ended).await.unwrap();
    assert_eq!(vm.state, VmState::Exited { code: 0 }, "{}", bed.agent_log());
    client.start_vm("keeps").await.unwrap();
    client.wait_vm("keeps", WaitUntil::Ended).await.unwrap();
    assert_eq!(
        log_text(&client, "keeps", &LogQuery::default()).await,
        "nothing\nsomething\n"
    );
    client.delete_vm("keeps", false).await.unwrap();
    assert!(entries(&bed.path("state/vms")).is_empty());
}

/// A VM has a control group with the limits that it was created with, and a user of its own. Needs control groups of
/// version 2.
pub async fn a_vm_is_held_in_its_bounds(programs: &Programs) {
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        println!("SKIP: a_vm_is_held_in_its_bounds: no control groups of version 2");
        return;
    }
    let settings = Settings {
        more: "disk_read_bytes_per_s = 10000000\n",
        ..Settings::default()
    };
    let bed = Testbed::with_image(programs, &settings).await;
    let client = bed.client();
    client
        .create_vm(&sh("bound", "while :; do sleep 0.05; done"))
        .await
        .unwrap();
    let vm = bed.running("bound").await;
    let pid = vm.vmm_pid.unwrap();
    let proc = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    assert_eq!(proc("cgroup").trim(), format!("0::/secovia.slice/{}", vm.id));
    let group = Path::new("/sys/fs/cgroup/secovia.slice").join(&vm.id);
    let setting = |name: &str| fs::read_to_string(group.join(name)).unwrap();
    for (name, value) in [
        ("memory.max", ((128u64 + 64) << 20).to_string()),
        ("memory.oom.group", "1".into()),
        ("pids.max", "33".into()),
        ("cpu.weight", "100".into()),
    ] {
        assert_eq!(setting(name).trim(), value, "{name}");
    }
    // A test's directories may lie in memory, which is no disk.
    let io = setting("io.max");
    assert!(io.is_empty() || io.contains("rbps=10000000 wbps=max"), "{io}");
    // Some kernels put a thread of KVM's beside it, which has no words.
    let procs = setting("cgroup.procs");
    let others = procs.lines().filter(|line| *line != pid.to_string());
    let words = |line: &str| fs::read(format!("/proc/{line}/cmdline")).unwrap_or_default();
    assert!(procs.lines().any(|line| line == pid.to_string()), "{procs}");
    assert_eq!(
        others.map(words).collect::<Vec<_>>().concat(),
        b"",
        "it is alone in there"
    );
    let status = proc("status");
    let line = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap()
            .trim()
    };
    let uid = line("Uid:").split_whitespace().next().unwrap();
    assert!(bed.uids().contains(&uid.parse().unwrap()), "{uid}");
    assert_eq!(
        (line("CapEff:"), line("CapBnd:")),
        ("0000000000000000", "0000000000000000")
    );
    assert_eq!(line("NoNewPrivs:"), "1");
    if bed.is_real() {
        assert_eq!(line("Seccomp:"), "2", "under a filter of system calls");
    }
    let stats = client.vm_stats("bound").await.unwrap();
    assert!(stats.memory_bytes > 0 && stats.cpu_time_us > 0, "{stats:?}");
    client.delete_vm("bound", true).await.unwrap();
    bed.assert_nothing_runs();
}
