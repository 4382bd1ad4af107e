//! A Pod's status, as a kubelet writes it.
//!
//! A pure function of the Pod, its microVM and the time. Times that are there already stay, so a status that says the same is
//! the same, and need not be written again.
//!
//! Source: "Pod Lifecycle" in Kubernetes' documentation, and the field descriptions of `PodStatus`.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use secovia_agent_api::{ContainerEnd, Vm, VmContainer, VmRun, VmState};

/// The condition of a Pod that is ended for the node's sake and not its own.
pub const DISRUPTION: &str = "DisruptionTarget";

/// Its reason, as a kubelet gives it.
pub const DISRUPTED_BY_NODE: &str = "TerminationByKubelet";

/// What a shell shows for a workload that was ended with SIGKILL; also for one whose end nobody saw.
pub(super) const KILLED: i32 = 137;

/// What a container runtime shows for a workload that never came to run.
const NOT_STARTED: i32 = 128;

/// Why there is no microVM for a Pod at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// In one word, as kubectl shows it: `ContainerCreating`, `ErrImagePull`.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// A Pod's end, for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Whether it did what it was to do.
    pub succeeded: bool,
    /// In one word, where it is not the workload's own status: `OutOfcpu`, `Evicted`.
    pub reason: Option<String>,
    /// For people.
    pub message: Option<String>,
}

impl End {
    /// It did what it was to do.
    pub fn success() -> Self {
        Self {
            succeeded: true,
            reason: None,
            message: None,
        }
    }

    /// Its workload failed.
    pub fn failure() -> Self {
        Self {
            succeeded: false,
            ..Self::success()
        }
    }

    /// The end that a status tells of, where it does.
    pub fn told(status: &PodStatus) -> Option<Self> {
        let succeeded = match status.phase.as_deref() {
            Some("Succeeded") => true,
            Some("Failed") => false,
            _ => return None,
        };
        Some(Self {
            succeeded,
            reason: status.reason.clone(),
            message: status.message.clone(),
        })
    }

    /// The node ended it, or never let it in.
    pub fn because(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            succeeded: false,
            reason: Some(reason.into()),
            message: Some(message.into()),
        }
    }
}

/// What a Pod's status is made of, beside the Pod.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// Its microVM.
    pub vm: Option<&'a Vm>,
    /// Why it has none.
    pub hold: Option<&'a Hold>,
    /// Its end, where that is decided.
    pub end: Option<&'a End>,
    /// It is ended because the owner takes the machine back.
    pub evicted: bool,
    /// The node's address.
    pub host_ip: IpAddr,
    /// Now, in milliseconds since 1970-01-01 UTC.
    pub now_ms: u64,
}

/// The status to report. What a kubelet does not write stays as it is.
pub fn status(pod: &Pod, standing: &Standing<'_>) -> PodStatus {
    let before = pod.status.clone().unwrap_or_default();
    let (inits, containers) = statuses(pod, &before, standing);
    let phase = match standing.end {
        Some(End { succeeded: true, .. }) => "Succeeded",
        Some(_) => "Failed",
        None if containers.iter().any(has_begun) => "Running",
        None => "Pending",
    };
    let start_time = before.start_time.clone().unwrap_or_else(|| time(standing.now_ms));
    let end = standing.end;
    let pod_ip = match standing.vm {
        Some(vm) => reached_at(vm, standing.host_ip).map(|ip| ip.to_string()),
        None => before.pod_ip.clone(),
    };
    PodStatus {
        phase: Some(phase.into()),
        conditions: Some(conditions(pod, &before, standing, &inits, &containers)),
        reason: end.and_then(|end| end.reason.clone()),
        message: end.and_then(|end| end.message.clone()),
        host_ip: Some(standing.host_ip.to_string()),
        host_ips: before.host_ips.clone().or_else(|| {
            let ip = standing.host_ip.to_string();
            Some(vec![HostIP { ip }])
        }),
        pod_ips: pod_ip.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip,
        start_time: Some(start_time),
        container_statuses: Some(containers),
        init_container_statuses: Some(inits).filter(|inits| !inits.is_empty()),
        ..before
    }
}

/// The Pod's address: one of the node's, at which its published ports are reached, as with a Pod in its host's network. Its
/// microVM's own is of this node's making, behind the node's packet filter, and may be another Pod's on another node: in a
/// Service's endpoints it would lead astray. So a Pod that publishes nothing has none, and is nobody's endpoint.
fn reached_at(vm: &Vm, host_ip: IpAddr) -> Option<IpAddr> {
    let ports = &vm.network.as_ref()?.publish;
    let addresses = ports.iter().map(|port| port.address.unwrap_or(host_ip));
    // The node's own, where it is among them.
    addresses.min_by_key(|ip| *ip != host_ip)
}

/// Whether `report` says what the Pod's status does not say yet. Looks only at what every version of Kubernetes keeps: a field
/// that the API server drops would be news for ever.
pub fn is_news(pod: &Pod, report: &PodStatus) -> bool {
    let known = pod.status.as_ref();
    known.is_none_or(|known| essence(known) != essence(report))
}

fn essence(status: &PodStatus) -> impl PartialEq + '_ {
    let kept = |container: &ContainerStatus| ContainerStatus {
        container_id: container.container_id.clone(),
        image_id: container.image_id.clone(),
        last_state: Some(container.last_state.clone().unwrap_or_default()),
        name: container.name.clone(),
        ready: container.ready,
        restart_count: container.restart_count,
        state: Some(container.state.clone().unwrap_or_default()),
        ..ContainerStatus::default()
    };
    let condition = |condition: &PodCondition| {
        let PodCondition {
            type_,
            status,
            reason,
            message,
            ..
        } = condition;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        (type_.clone(), status.clone(), text(reason), text(message))
    };
    let all = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses);
    let containers: Vec<ContainerStatus> = all.flatten().map(kept).collect();
    let conditions: Vec<_> = status.conditions.iter().flatten().map(condition).collect();
    let words = [
        &status.phase,
        &status.reason,
        &status.message,
        &status.host_ip,
        &status.pod_ip,
    ];
    (
        words.map(|word| word.clone().unwrap_or_default()),
        status.start_time.clone(),
        containers,
        conditions,
    )
}

/// Whether the Pod has come to its end for good, as its status says.
pub fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the status says that its container has run.
pub fn has_run(pod: &Pod) -> bool {
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    let mut states = statuses.flat_map(|status| [&status.state, &status.last_state]);
    states.any(|state| {
        let ran = |state: &ContainerState| state.running.is_some() || state.terminated.is_some();
        state.as_ref().is_some_and(ran)
    })
}

/// Whether the status says that it is ended for the node's sake.
pub fn is_disrupted(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let mut ours = conditions.filter(|condition| condition.reason.as_deref() == Some(DISRUPTED_BY_NODE));
    ours.any(|condition| condition.type_ == DISRUPTION && condition.status == "True")
}

/// A time as Kubernetes keeps it: whole seconds.
pub fn time(ms: u64) -> Time {
    let seconds = i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
    Time(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
}

fn has_begun(container: &ContainerStatus) -> bool {
    let is_waiting = container
        .state
        .as_ref()
        .is_none_or(|state| state.waiting.is_some());
    !is_waiting
        || container
            .last_state
            .as_ref()
            .is_some_and(|last| last.terminated.is_some())
}

/// The init containers' statuses and the others'.
fn statuses(
    pod: &Pod,
    before: &PodStatus,
    standing: &Standing<'_>,
) -> (Vec<ContainerStatus>, Vec<ContainerStatus>) {
    let Some(spec) = &pod.spec else {
        return (Vec::new(), Vec::new());
    };
    let all = |specs: &[Container], before: &Option<Vec<ContainerStatus>>| {
        let specs = specs.iter();
        let one = |spec: &Container| {
            let mut earlier = before.iter().flatten();
            let earlier = earlier.find(|status| status.name == spec.name);
            container(spec, earlier, standing)
        };
        specs.filter_map(one).collect()
    };
    let inits = spec.init_containers.as_deref().unwrap_or_default();
    (
        all(inits, &before.init_container_statuses),
        all(&spec.containers, &before.container_statuses),
    )
}

/// A container's status; none where the Pod never got that far.
fn container(
    spec: &Container,
    earlier: Option<&ContainerStatus>,
    standing: &Standing<'_>,
) -> Option<ContainerStatus> {
    let mut several = standing.vm.iter().flat_map(|vm| &vm.containers);
    if let (Some(vm), Some(one)) = (standing.vm, several.find(|one| one.name == spec.name)) {
        return Some(one_of_several(vm, one, spec.image.as_deref().unwrap_or_default()));
    }
    let Some(vm) = standing.vm else {
        return without_vm(
            &spec.name,
            spec.image.as_deref().unwrap_or_default(),
            earlier,
            standing,
        );
    };
    let state = state_of(vm, standing.end.is_some());
    let is_running = matches!(vm.state, VmState::Running);
    let last = match &vm.state {
        // The last run is the state itself.
        VmState::Exited { .. } | VmState::Failed { .. } => {
            earlier.and_then(|status| status.last_state.clone())
        }
        _ => vm.last_run.as_ref().map(|run| ended(vm, run)),
    };
    Some(ContainerStatus {
        container_id: Some(container_id(vm)),
        image: spec.image.clone().unwrap_or_default(),
        image_id: vm.image_digest.clone(),
        last_state: last,
        name: spec.name.clone(),
        ready: is_running && !vm.paused,
        restart_count: i32::try_from(vm.starts.saturating_sub(1)).unwrap_or(i32::MAX),
        started: Some(is_running),
        state: Some(state),
        ..ContainerStatus::default()
    })
}

/// What the guest says of one of its containers.
fn one_of_several(vm: &Vm, one: &VmContainer, image: &str) -> ContainerStatus {
    let id = format!("{}/{}", container_id(vm), one.name);
    let over = |end: &ContainerEnd| ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(id.clone()),
            exit_code: end.code,
            finished_at: Some(time(end.ended_at_ms)),
            message: end.reason.clone(),
            reason: Some(word(end.started_at_ms.is_some(), end.code).into()),
            started_at: end.started_at_ms.map(time),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    };
    let state = match &one.state {
        // Nothing of it will come any more.
        secovia_agent_api::ContainerState::Waiting if !vm.state.is_active() => terminated(vm),
        secovia_agent_api::ContainerState::Waiting => {
            let is_first = vm.containers.first().is_some_and(|first| first.name == one.name);
            let waits_for_others = vm.containers.iter().any(|other| other.init) && !is_first;
            let reason = if waits_for_others {
                "PodInitializing"
            } else {
                "ContainerCreating"
            };
            waiting(reason, None)
        }
        secovia_agent_api::ContainerState::Running { since_ms } => ContainerState {
            running: Some(ContainerStateRunning {
                started_at: Some(time(*since_ms)),
            }),
            ..ContainerState::default()
        },
        secovia_agent_api::ContainerState::BackOff => waiting(
            "CrashLoopBackOff",
            Some("it is started again after a while".into()),
        ),
        secovia_agent_api::ContainerState::Ended(end) => over(end),
    };
    ContainerStatus {
        container_id: Some(id.clone()),
        image: image.into(),
        image_id: one.image_digest.clone(),
        last_state: one.last.as_ref().map(over),
        name: one.name.clone(),
        ready: one.ready && !vm.paused,
        restart_count: i32::try_from(one.restarts).unwrap_or(i32::MAX),
        started: Some(one.started),
        state: Some(state),
        ..ContainerStatus::default()
    }
}

fn without_vm(
    name: &str,
    image: &str,
    earlier: Option<&ContainerStatus>,
    standing: &Standing<'_>,
) -> Option<ContainerStatus> {
    let plain = ContainerStatus {
        image: image.into(),
        name: name.into(),
        started: Some(false),
        ..ContainerStatus::default()
    };
    let earlier = earlier.cloned();
    if standing.end.is_some() {
        // What was never let in has no container; what ran and is gone ended in a way that nobody saw.
        let ran = earlier.filter(|status| status.container_id.is_some())?;
        let is_over = ran.state.as_ref().is_some_and(|state| state.terminated.is_some());
        let unseen = ContainerState {
            terminated: Some(ContainerStateTerminated {
                container_id: ran.container_id.clone(),
                exit_code: KILLED,
                reason: Some("ContainerStatusUnknown".into()),
                message: Some("its microVM is gone, and nobody saw how it ended".into()),
                ..ContainerStateTerminated::default()
            }),
            ..ContainerState::default()
        };
        return Some(ContainerStatus {
            ready: false,
            started: Some(false),
            state: if is_over { ran.state.clone() } else { Some(unseen) },
            ..ran
        });
    }
    let (reason, message) = match standing.hold {
        Some(hold) => (
            hold.reason.clone(),
            Some(hold.message.clone()).filter(|text| !text.is_empty()),
        ),
        None => ("ContainerCreating".into(), None),
    };
    let is_over = |state: &ContainerState| state.terminated.is_some();
    let last_state = earlier.as_ref().and_then(|status| {
        let state = status.state.clone().filter(is_over);
        state.or(status.last_state.clone())
    });
    Some(ContainerStatus {
        state: Some(waiting(&reason, message)),
        last_state,
        restart_count: earlier.map_or(0, |status| status.restart_count),
        ..plain
    })
}

fn state_of(vm: &Vm, is_over: bool) -> ContainerState {
    let running = || ContainerState {
        running: Some(ContainerStateRunning {
            started_at: vm.started_at_ms.map(time),
        }),
        ..ContainerState::default()
    };
    match &vm.state {
        VmState::Created | VmState::Starting => waiting("ContainerCreating", None),
        VmState::Running => running(),
        VmState::Stopping if vm.started_at_ms.is_some() => running(),
        VmState::Stopping => waiting("ContainerCreating", None),
        VmState::Exited { .. } | VmState::Failed { .. } => terminated(vm),
        VmState::BackOff { .. } if is_over => terminated(vm),
        VmState::BackOff { reason, .. } => waiting(
            "CrashLoopBackOff",
            Some(format!("it is started again after a while; {reason}")),
        ),
    }
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.into()),
            message,
        }),
        ..ContainerState::default()
    }
}

/// The run that a microVM at rest had last. One that was never started, or that an earlier agent wrote down, has none.
fn terminated(vm: &Vm) -> ContainerState {
    match (&vm.last_run, &vm.state) {
        (Some(run), _) => ended(vm, run),
        (None, VmState::Exited { code }) => at_rest(vm, Some(*code), None),
        (None, VmState::Failed { reason, code }) => at_rest(vm, *code, Some(reason.clone())),
        (None, _) => at_rest(vm, None, None),
    }
}

fn at_rest(vm: &Vm, code: Option<i32>, reason: Option<String>) -> ContainerState {
    let run = VmRun {
        started_at_ms: vm.started_at_ms,
        ended_at_ms: vm.ended_at_ms.unwrap_or(vm.created_at_ms),
        code,
        reason,
    };
    ended(vm, &run)
}

fn ended(vm: &Vm, run: &VmRun) -> ContainerState {
    let began = run.started_at_ms.is_some();
    let exit_code = run.code.unwrap_or(if began { KILLED } else { NOT_STARTED });
    let reason = word(began, exit_code);
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(container_id(vm)),
            exit_code,
            finished_at: Some(time(run.ended_at_ms)),
            message: run.reason.clone(),
            reason: Some(reason.into()),
            started_at: run.started_at_ms.map(time),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}

/// How a run ended, in one word.
fn word(began: bool, code: i32) -> &'static str {
    match code {
        _ if !began => "StartError",
        0 => "Completed",
        _ => "Error",
    }
}

fn container_id(vm: &Vm) -> String {
    format!("secovia://{}", vm.id)
}

/// The kubelet's conditions; the others' stay.
fn conditions(
    pod: &Pod,
    before: &PodStatus,
    standing: &Standing<'_>,
    inits: &[ContainerStatus],
    all: &[ContainerStatus],
) -> Vec<PodCondition> {
    let mut conditions = before.conditions.clone().unwrap_or_default();
    let unready_ones = |all: &[ContainerStatus]| {
        let names = all.iter().filter(|one| !one.ready);
        let names: Vec<&str> = names.map(|one| one.name.as_str()).collect();
        names.join(" ")
    };
    let ready = !all.is_empty() && all.iter().all(|one| one.ready) && standing.end.is_none();
    let name = unready_ones(all);
    // One whose containers run has got past them.
    let initialized = inits.iter().all(|one| one.ready) || all.iter().any(has_begun);
    let uninitialized = match initialized {
        true => (None, None),
        false => {
            let message = format!("containers with incomplete status: [{}]", unready_ones(inits));
            (Some("ContainersNotInitialized"), Some(message))
        }
    };
    let unready = || match standing.end {
        Some(End { succeeded: true, .. }) => (Some("PodCompleted"), None),
        Some(_) => (Some("PodFailed"), None),
        None => {
            let message = format!("containers with unready status: [{name}]");
            (Some("ContainersNotReady"), Some(message))
        }
    };
    let containers = if ready { (None, None) } else { unready() };
    let gates = pod
        .spec
        .iter()
        .flat_map(|spec| spec.readiness_gates.iter().flatten());
    let shut: Vec<&str> = gates
        .map(|gate| gate.condition_type.as_str())
        .filter(|kind| {
            !conditions
                .iter()
                .any(|other| other.type_ == *kind && other.status == "True")
        })
        .collect();
    let gated = if ready && !shut.is_empty() {
        let message = format!("corresponding conditions are not True: {}", shut.join(", "));
        (Some("ReadinessGatesNotReady"), Some(message))
    } else {
        containers.clone()
    };
    let is_open = shut.is_empty();
    let mut all = vec![
        ("PodScheduled", true, (None, None)),
        ("Initialized", initialized, uninitialized),
        ("ContainersReady", ready, containers),
        ("Ready", ready && is_open, gated),
    ];
    if standing.evicted {
        let message = "the node's owner takes the machine back".to_string();
        all.push((DISRUPTION, true, (Some(DISRUPTED_BY_NODE), Some(message))));
    }
    for (kind, holds, (reason, message)) in all {
        let status = if holds { "True" } else { "False" };
        let earlier = conditions.iter_mut().find(|other| other.type_ == kind);
        let since = earlier
            .as_ref()
            .filter(|other| other.status == status)
            .and_then(|other| other.last_transition_time.clone());
        let condition = PodCondition {
            last_transition_time: Some(since.unwrap_or_else(|| time(standing.now_ms))),
            message,
            reason: reason.map(String::from),
            status: status.into(),
            type_: kind.into(),
            ..PodCondition::default()
        };
        match earlier {
            // The scheduler's, where it wrote it.
            Some(_) if kind == "PodScheduled" => {}
            Some(other) => {
                *other = PodCondition {
                    observed_generation: other.observed_generation,
                    last_probe_time: other.last_probe_time.clone(),
                    ..condition
                }
            }
            None => conditions.push(condition),
        }
    }
    conditions
}

#[cfg(test)]
mod tests;
