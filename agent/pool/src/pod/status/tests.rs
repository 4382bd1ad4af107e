use super::*;
use crate::pod::tests::{pod, vm};

fn standing<'a>(vm: Option<&'a Vm>) -> Standing<'a> {
    Standing {
        vm,
        hold: None,
        end: None,
        evicted: false,
        host_ip: "192.0.2.7".parse().unwrap(),
        now_ms: 60_999,
    }
}

fn only(status: &PodStatus) -> &ContainerStatus {
    &status.container_statuses.as_ref().unwrap()[0]
}

fn state(status: &PodStatus) -> ContainerState {
    only(status).state.clone().unwrap()
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> &'a PodCondition {
    let mut all = status.conditions.iter().flatten();
    all.find(|condition| condition.type_ == kind).unwrap()
}

#[test]
fn a_pod_that_runs_is_running_and_ready() {
    let vm = vm(1, 1, VmState::Running);
    let status = status(&pod(1, "Always"), &standing(Some(&vm)));
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(status.host_ip.as_deref(), Some("192.0.2.7"));
    assert_eq!(status.start_time, Some(time(60_000)), "whole seconds");
    assert_eq!(state(&status).running.unwrap().started_at, Some(time(5_000)));
    assert_eq!(
        only(&status).container_id.as_deref(),
        Some("secovia://0000000000000001")
    );
    assert_eq!((only(&status).ready, only(&status).restart_count), (true, 0));
    for kind in ["PodScheduled", "Initialized", "ContainersReady", "Ready"] {
        assert_eq!(condition(&status, kind).status, "True", "{kind}");
    }
}

#[test]
fn a_pods_address_is_one_that_leads_to_it() {
    for (published, address) in [
        (&[][..], None),
        (&["80:80"], Some("192.0.2.7")),
        (&["198.51.100.1:80:80"], Some("198.51.100.1")),
        (&["198.51.100.1:80:80", "192.0.2.7:81:81"], Some("192.0.2.7")),
        (&["[2001:db8::7]:80:80", "53:53/udp"], Some("192.0.2.7")),
    ] {
        let mut vm = vm(1, 1, VmState::Running);
        let ports = published.iter().map(|port| port.parse().unwrap());
        vm.network.as_mut().unwrap().publish = ports.collect();
        let pod = pod(1, "Always");
        let now = status(&pod, &standing(Some(&vm)));
        assert_eq!(now.pod_ip.as_deref(), address, "{published:?}");
        let all = now.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
        assert_eq!(all.collect::<Vec<_>>(), Vec::from_iter(address));
        // It is told also when the microVM is gone.
        let later = Pod {
            status: Some(now),
            ..pod
        };
        assert_eq!(status(&later, &standing(None)).pod_ip.as_deref(), address);
    }
    let mut vm = vm(1, 1, VmState::Running);
    vm.network = None;
    assert_eq!(status(&pod(1, "Always"), &standing(Some(&vm))).pod_ip, None);
}

#[test]
fn every_state_of_a_microvm_has_its_word() {
    let run = |code, reason: Option<&str>| VmRun {
        started_at_ms: Some(5_000),
        ended_at_ms: 9_000,
        code,
        reason: reason.map(String::from),
    };
    let failed = |code| VmState::Failed {
        reason: "no such program".into(),
        code,
    };
    let back_off = VmState::BackOff {
        until_ms: 99_000,
        reason: "the workload ended with status 3".into(),
    };
    for (state_of_vm, last, phase, waiting, terminated) in [
        (
            VmState::Starting,
            None,
            "Pending",
            Some("ContainerCreating"),
            None,
        ),
        (
            VmState::Starting,
            Some(run(Some(3), None)),
            "Running",
            Some("ContainerCreating"),
            None,
        ),
        (VmState::Running, None, "Running", None, None),
        (VmState::Stopping, None, "Running", None, None),
        (
            back_off,
            Some(run(Some(3), None)),
            "Running",
            Some("CrashLoopBackOff"),
            None,
        ),
        (
            VmState::Exited { code: 0 },
            Some(run(Some(0), None)),
            "Running",
            None,
            Some((0, "Completed")),
        ),
        (
            VmState::Exited { code: 7 },
            Some(run(Some(7), None)),
            "Running",
            None,
            Some((7, "Error")),
        ),
        (
            failed(None),
            Some(run(None, Some("the VMM ended"))),
            "Running",
            None,
            Some((137, "Error")),
        ),
        (
            failed(Some(127)),
            None,
            "Running",
            None,
            Some((127, "StartError")),
        ),
    ] {
        let mut vm = vm(1, 1, state_of_vm.clone());
        vm.last_run = last.clone();
        if terminated == Some((127, "StartError")) {
            vm.started_at_ms = None;
        }
        let status = status(&pod(1, "Always"), &standing(Some(&vm)));
        let found = state(&status);
        assert_eq!(status.phase.as_deref(), Some(phase), "{state_of_vm:?}");
        assert_eq!(
            found.waiting.and_then(|w| w.reason).as_deref(),
            waiting,
            "{state_of_vm:?}"
        );
        let ended = found.terminated.map(|t| (t.exit_code, t.reason.unwrap()));
        assert_eq!(
            ended,
            terminated.map(|(code, word)| (code, word.to_string())),
            "{state_of_vm:?}"
        );
        assert_eq!(only(&status).ready, state_of_vm == VmState::Running);
        let at_rest = matches!(state_of_vm, VmState::Exited { .. } | VmState::Failed { .. });
        let last_code = only(&status)
            .last_state
            .as_ref()
            .and_then(|l| l.terminated.as_ref())
            .map(|t| t.exit_code);
        assert_eq!(
            last_code,
            last.filter(|_| !at_rest).and_then(|run| run.code),
            "{state_of_vm:?}"
        );
    }
}

#[test]
fn what_is_refused_has_a_reason_and_no_container() {
    let end = End::because("OutOfmemory", "too little memory");
    let status = status(
        &pod(1, "Always"),
        &Standing {
            end: Some(&end),
            ..standing(None)
        },
    );
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(status.reason.as_deref(), Some("OutOfmemory"));
    assert_eq!(status.message.as_deref(), Some("too little memory"));
    assert_eq!(status.container_statuses, Some(vec![]));
    assert_eq!(condition(&status, "Ready").reason.as_deref(), Some("PodFailed"));
}

#[test]
fn what_waits_says_for_what() {
    let hold = Hold {
        reason: "ImagePullBackOff".into(),
        message: "no registry".into(),
    };
    let status = status(
        &pod(1, "Always"),
        &Standing {
            hold: Some(&hold),
            ..standing(None)
        },
    );
    let waiting = state(&status).waiting.unwrap();
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(waiting.reason.as_deref(), Some("ImagePullBackOff"));
    assert_eq!(waiting.message.as_deref(), Some("no registry"));
}

#[test]
fn a_report_that_was_taken_is_no_news_and_its_times_stay() {
    let mut pod = pod(1, "Always");
    let vm = vm(1, 1, VmState::Running);
    let first = status(&pod, &standing(Some(&vm)));
    assert!(is_news(&pod, &first));
    // What an API server of another version makes of it.
    let mut kept = serde_json::to_value(&first).unwrap();
    kept.as_object_mut().unwrap().remove("hostIPs");
    kept.as_object_mut().unwrap().remove("podIPs");
    kept["qosClass"] = "BestEffort".into();
    kept["containerStatuses"][0]["lastState"] = serde_json::json!({});
    pod.status = serde_json::from_value(kept).unwrap();
    let later = Standing {
        now_ms: 3_600_000,
        ..standing(Some(&vm))
    };
    let second = status(&pod, &later);
    assert!(!is_news(&pod, &second));
    assert_eq!(
        condition(&second, "Ready").last_transition_time,
        Some(time(60_000))
    );
    assert_eq!(second.qos_class.as_deref(), Some("BestEffort"));
    // Paused for the owner: not ready, since now.
    let mut paused = vm.clone();
    paused.paused = true;
    let third = status(
        &pod,
        &Standing {
            vm: Some(&paused),
            ..later
        },
    );
    assert!(is_news(&pod, &third));
    assert_eq!(condition(&third, "Ready").status, "False");
    assert_eq!(
        condition(&third, "Ready").last_transition_time,
        Some(time(3_600_000))
    );
    assert_eq!(third.start_time, first.start_time);
}

#[test]
fn an_eviction_is_marked_as_a_disruption() {
    let mut pod = pod(1, "Always");
    let vm = vm(1, 1, VmState::Running);
    let report = status(
        &pod,
        &Standing {
            evicted: true,
            ..standing(Some(&vm))
        },
    );
    assert_eq!(
        condition(&report, DISRUPTION).reason.as_deref(),
        Some(DISRUPTED_BY_NODE)
    );
    assert!(!is_disrupted(&pod));
    pod.status = Some(report);
    assert!(is_disrupted(&pod));
}

#[test]
fn readiness_gates_are_waited_for() {
    let mut pod = pod(1, "Always");
    let gate = serde_json::from_value(serde_json::json!([{"conditionType": "town/ok"}])).unwrap();
    pod.spec.as_mut().unwrap().readiness_gates = gate;
    let vm = vm(1, 1, VmState::Running);
    let shut = status(&pod, &standing(Some(&vm)));
    assert_eq!(condition(&shut, "ContainersReady").status, "True");
    assert_eq!(
        condition(&shut, "Ready").reason.as_deref(),
        Some("ReadinessGatesNotReady")
    );
    pod.status =
        serde_json::from_value(serde_json::json!({"conditions": [{"type": "town/ok", "status": "True"}]}))
            .unwrap();
    let open = status(&pod, &standing(Some(&vm)));
    assert_eq!(condition(&open, "Ready").status, "True");
    assert_eq!(
        condition(&open, "town/ok").status,
        "True",
        "others' conditions stay"
    );
}

#[test]
fn what_ran_and_is_gone_ended_unseen() {
    let mut pod = pod(1, "Never");
    pod.status = Some(status(&pod, &standing(Some(&vm(1, 1, VmState::Running)))));
    let end = End::failure();
    let report = status(
        &pod,
        &Standing {
            end: Some(&end),
            ..standing(None)
        },
    );
    let terminated = state(&report).terminated.unwrap();
    assert_eq!(terminated.reason.as_deref(), Some("ContainerStatusUnknown"));
    assert_eq!(
        (terminated.exit_code, report.phase.as_deref()),
        (137, Some("Failed"))
    );
}

#[test]
fn several_containers_are_told_each_by_its_own() {
    let end = |code| ContainerEnd {
        code,
        reason: None,
        started_at_ms: Some(1_000),
        ended_at_ms: 2_000,
    };
    let one = |name: &str, init, state, ready| VmContainer {
        name: name.into(),
        init,
        image: "base".into(),
        image_digest: "sha256:00".into(),
        state,
        last: None,
        restarts: 0,
        ready,
        started: ready,
    };
    use secovia_agent_api::ContainerState::{BackOff, Ended, Running, Waiting};
    let mut of_several = pod(1, "Always");
    let spec = of_several.spec.as_mut().unwrap();
    let named = |name: &str| Container {
        name: name.into(),
        ..spec.containers[0].clone()
    };
    (spec.init_containers, spec.containers) = (Some(vec![named("init")]), vec![named("a"), named("b")]);
    let mut vm = vm(1, 1, VmState::Running);
    let all = |init, a, b| vec![one("init", true, init, false), a, b];
    let waiting = |name| one(name, false, Waiting, false);
    let word = |status: &ContainerStatus| {
        let state = status.state.clone().unwrap();
        state.waiting.map(|waiting| waiting.reason.unwrap())
    };

    // The init container runs.
    vm.containers = all(Running { since_ms: 1_000 }, waiting("a"), waiting("b"));
    let first = status(&of_several, &standing(Some(&vm)));
    assert_eq!(first.phase.as_deref(), Some("Pending"));
    assert_eq!(condition(&first, "Initialized").status, "False");
    assert_eq!(word(only(&first)).as_deref(), Some("PodInitializing"));
    let init = &first.init_container_statuses.as_ref().unwrap()[0];
    assert!(init.state.as_ref().unwrap().running.is_some());

    // It is over; one of the others fails again and again.
    let running = one("a", false, Running { since_ms: 3_000 }, true);
    let mut failing = one("b", false, BackOff, false);
    (failing.last, failing.restarts) = (Some(end(3)), 2);
    vm.containers = all(Ended(end(0)), running.clone(), failing);
    vm.containers[0].ready = true;
    let second = status(&of_several, &standing(Some(&vm)));
    assert_eq!(second.phase.as_deref(), Some("Running"));
    assert_eq!(condition(&second, "Initialized").status, "True");
    let ready = condition(&second, "Ready");
    assert_eq!(ready.status, "False");
    assert_eq!(
        ready.message.as_deref(),
        Some("containers with unready status: [b]")
    );
    let b = &second.container_statuses.as_ref().unwrap()[1];
    assert_eq!(
        (word(b).as_deref(), b.restart_count),
        (Some("CrashLoopBackOff"), 2)
    );
    let last = b.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (3, Some("Error")));
    assert_eq!(b.container_id.as_deref(), Some("secovia://0000000000000001/b"));

    // All is well, and a report of that is news once.
    vm.containers[2] = VmContainer {
        name: "b".into(),
        ..running
    };
    let third = status(&of_several, &standing(Some(&vm)));
    assert_eq!(condition(&third, "Ready").status, "True");
    let mut told = of_several.clone();
    told.status = Some(second);
    assert!(is_news(&told, &third));
    told.status = Some(third.clone());
    assert!(!is_news(&told, &third));
}
