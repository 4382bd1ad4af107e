//! Several containers in one VM.

use secovia_agent_api::{
    Container, ContainerState, LogBytes, LogQuery, Mount, RestartPolicy, Vm, VmCreate, VmState, Volume,
    VolumeContent, VolumeFile, WaitUntil,
};
use secovia_guest_protocol::ExitStatus;

use crate::{Programs, Settings, Testbed, exec_in, log_text};

fn container(name: &str, script: &str) -> Container {
    Container {
        name: name.into(),
        image: "base".into(),
        command: vec!["sh".into(), "-c".into(), script.into()],
        mounts: vec![Mount {
            volume: "conf".into(),
            path: "/volumes/conf".into(),
            read_only: true,
        }],
        ..Container::default()
    }
}

fn create(name: &str, restart: RestartPolicy, init: &[Container], containers: &[Container]) -> VmCreate {
    let file = VolumeFile {
        path: "a/key".into(),
        mode: 0o444,
        gid: 0,
        content: LogBytes::Text("hush".into()),
    };
    VmCreate {
        name: Some(name.into()),
        containers: containers.to_vec(),
        init_containers: init.to_vec(),
        volumes: vec![Volume {
            name: "conf".into(),
            content: VolumeContent::Files { files: vec![file] },
        }],
        restart,
        memory_mib: 128,
        ..VmCreate::new("base")
    }
}

async fn log_of(bed: &Testbed, vm: &str, container: &str) -> String {
    let query = LogQuery {
        container: Some(container.into()),
        ..LogQuery::default()
    };
    log_text(&bed.client(), vm, &query).await
}

async fn said(bed: &Testbed, vm: &str, container: &str, text: &str) {
    let begun = std::time::Instant::now();
    while !log_of(bed, vm, container).await.contains(text) {
        assert!(begun.elapsed() < crate::PATIENCE, "{}", bed.agent_log());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn runs(vm: &Vm, index: usize) -> bool {
    matches!(vm.containers[index].state, ContainerState::Running { .. })
}

/// Containers run in their order, each with its own log; a killed agent finds them again and loses nothing of either.
pub async fn containers_have_their_own_logs(programs: &Programs) {
    let mut bed = Testbed::with_image(programs, &Settings::default()).await;
    let init = [container("init", "echo init; cat /volumes/conf/a/key")];
    let talk = "n=0; while true; do n=$((n+1)); echo line $n; sleep 0.2; done";
    let others = [
        container("main", &format!("echo main; {talk}")),
        container("side", "echo side >&2; while true; do sleep 1; done"),
    ];
    let asked = create("pod", RestartPolicy::Always, &init, &others);
    bed.client().create_vm(&asked).await.unwrap();
    let vm = bed
        .wait_for("pod", "in its stride", |vm| runs(vm, 1) && runs(vm, 2))
        .await;
    let facts = vm
        .containers
        .iter()
        .map(|one| (one.name.as_str(), one.init, one.ready));
    let facts: Vec<_> = facts.collect();
    assert_eq!(
        facts,
        [("init", true, true), ("main", false, true), ("side", false, true)]
    );
    said(&bed, "pod", "init", "hush").await;
    assert_eq!(log_of(&bed, "pod", "init").await, "init\nhush");
    said(&bed, "pod", "side", "side\n").await;
    said(&bed, "pod", "main", "line 2\n").await;
    let ended = exec_in(&bed.client(), "pod", "side", &["sh", "-c", "echo in; exit 4"]).await;
    assert_eq!(
        (ended.stdout.as_str(), ended.exit),
        ("in\n", Some(ExitStatus::Exited(4)))
    );
    let nobody = exec_in(&bed.client(), "pod", "none", &["true"]).await;
    assert!(nobody.error.is_some());
    let query = LogQuery {
        container: Some("none".into()),
        ..LogQuery::default()
    };
    assert!(bed.client().vm_logs("pod", &query).await.is_err());

    bed.kill_agent();
    bed.start().await;
    bed.wait_for("pod", "found again", |vm| runs(vm, 1) && runs(vm, 2))
        .await;
    said(&bed, "pod", "main", "line 8\n").await;
    // Without a name it is the first that is no init container.
    let text = log_text(&bed.client(), "pod", &LogQuery::default()).await;
    let expected: String = (1..=8).map(|n| format!("line {n}\n")).collect();
    assert!(text.starts_with(&format!("main\n{expected}")), "{text}");
    assert_eq!(log_of(&bed, "pod", "init").await, "init\nhush");
    bed.client().delete_vm("pod", true).await.unwrap();
    bed.assert_nothing_runs();
}

/// A container that fails is started again beside the others, in the same VM; each run is in its log, and counted.
pub async fn a_container_is_started_again_without_its_vm(programs: &Programs) {
    let bed = Testbed::with_image(programs, &Settings::default()).await;
    let others = [
        container("main", "echo main; while true; do sleep 1; done"),
        container("fails", "echo run; exit 3"),
    ];
    let asked = create(
        "pod",
        RestartPolicy::OnFailure { max_retries: None },
        &[],
        &others,
    );
    bed.client().create_vm(&asked).await.unwrap();
    let again = |vm: &Vm| vm.containers[1].restarts == 1 && vm.containers[1].state == ContainerState::BackOff;
    let vm = bed.wait_for("pod", "started again", again).await;
    let last = vm.containers[1].last.as_ref().unwrap();
    assert_eq!((last.code, vm.starts, vm.containers[0].restarts), (3, 1, 0));
    said(&bed, "pod", "fails", "run\nrun\n").await;
    // What was counted goes on with the VM's next run.
    bed.client().stop_vm("pod", &Default::default()).await.unwrap();
    let vm = bed.client().vm("pod").await.unwrap();
    assert!(
        matches!(vm.containers[0].state, ContainerState::Ended(_)),
        "{vm:?}"
    );
    bed.client().start_vm("pod").await.unwrap();
    let vm = bed.wait_for("pod", "running anew", |vm| runs(vm, 0)).await;
    assert_eq!(vm.containers[0].restarts, 1);
    bed.client().delete_vm("pod", true).await.unwrap();
    bed.assert_nothing_runs();
}

/// When all containers have ended for good, so has the VM, with the first status that is not 0.
pub async fn a_vm_ends_with_its_containers(programs: &Programs) {
    let bed = Testbed::with_image(programs, &Settings::default()).await;
    let others = [
        container("good", "echo good"),
        container("bad", "echo bad; exit 5"),
    ];
    let asked = create("pod", RestartPolicy::No, &[], &others);
    bed.client().create_vm(&asked).await.unwrap();
    let vm = bed.client().wait_vm("pod", WaitUntil::Ended).await.unwrap();
    assert_eq!(vm.state, VmState::Exited { code: 5 }, "{}", bed.agent_log());
    let code = |one: &secovia_agent_api::VmContainer| match &one.state {
        ContainerState::Ended(end) => Some(end.code),
        _ => None,
    };
    let codes: Vec<_> = vm.containers.iter().map(code).collect();
    assert_eq!(codes, [Some(0), Some(5)]);
    assert_eq!(log_of(&bed, "pod", "good").await, "good\n");
    assert_eq!(log_of(&bed, "pod", "bad").await, "bad\n");
    bed.client().delete_vm("pod", false).await.unwrap();
    bed.assert_nothing_runs();
}
