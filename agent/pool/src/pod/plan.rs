//! What is to be done so that what is there becomes what is wanted: a pure function of both.
//!
//! Wanted is what the API server has bound to this node; there is what the agent lists, with the Pods' identities in its labels.
//! So it makes no difference how the two came apart: a fresh start, a lost connection and a crash are one case. A microVM that
//! is there is adopted because nothing is to be done about it; one whose Pod is gone is stopped; none is made while the Pod has
//! one; and a Pod that ended stays ended.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use secovia_agent_api::{RestartPolicy, Vm, VmState};

use super::identity::{Identity, grace_s};
use super::status::{End, Hold, Standing, has_ended, has_run, is_disrupted, is_news, status};
use super::translate::USUAL_GRACE_S;

/// Something to do. Each may be done twice without harm.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Make the Pod's microVM, and start it.
    Create,
    /// Start one that rests although its Pod wants it to run.
    Start {
        /// Its identifier.
        vm: String,
    },
    /// End one, and wait until it has ended.
    Stop {
        /// Its identifier.
        vm: String,
        /// Seconds between SIGTERM and SIGKILL.
        grace_s: u32,
    },
    /// Remove one that rests, with its disk and its log.
    Remove {
        /// Its identifier.
        vm: String,
    },
    /// Tell the API server.
    Report(Box<PodStatus>),
    /// Tell the API server that nothing is left here of a Pod that is being deleted.
    Forget,
}

/// What is being done for a Pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flight {
    /// Its microVM is being stopped.
    Stopping {
        /// With so many seconds.
        grace_s: u32,
    },
    /// Anything else.
    Other,
}

/// What is remembered of a Pod between two plans. To forget it costs time, and nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// What is being done.
    pub flight: Option<Flight>,
    /// Why the last try came to nothing.
    pub hold: Option<Hold>,
    /// The next try is not before this, by the scene's `tick_ms`: a wall clock that is set back holds nothing up.
    pub not_before_ms: u64,
    /// It was refused for good; that is to be reported.
    pub end: Option<End>,
}

/// What holds for all Pods.
#[derive(Debug, Clone, Copy)]
pub struct Scene {
    /// The node's address.
    pub host_ip: IpAddr,
    /// The owner takes the machine back.
    pub evicting: bool,
    /// Now, in milliseconds since 1970-01-01 UTC.
    pub now_ms: u64,
    /// Now, in milliseconds on a clock that nobody sets.
    pub tick_ms: u64,
}

/// What is to be done for one Pod: the first of the steps, then the next; none after one that failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Whose.
    pub pod: Identity,
    /// In order.
    pub steps: Vec<Step>,
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// For each Pod at most one, and at most one report that nothing waits for.
    pub tasks: Vec<Task>,
    /// Look again at this time (milliseconds since 1970-01-01 UTC), though nothing may have happened.
    pub wake_ms: Option<u64>,
}

/// What is to be done, now that these Pods are bound to the node and these microVMs are there.
pub fn plan(pods: &[Pod], vms: &[Vm], memories: &BTreeMap<String, Memory>, scene: &Scene) -> Plan {
    let mut plan = Plan::default();
    let mut theirs: BTreeMap<String, Vec<&Vm>> = BTreeMap::new();
    for vm in vms {
        if let Some(identity) = Identity::of_vm(vm) {
            theirs.entry(identity.uid).or_default().push(vm);
        }
    }
    let mut seen = BTreeSet::new();
    for pod in pods {
        let Some(identity) = Identity::of(pod).filter(|identity| seen.insert(identity.uid.clone())) else {
            continue;
        };
        let mut own = theirs.remove(&identity.uid).unwrap_or_default();
        // Whichever lives longest is the Pod's. That there are two is nothing that happens here; if it does, one goes.
        own.sort_by_key(|vm| (!vm.state.is_active(), vm.created_at_ms, vm.id.clone()));
        let memory = memories.get(&identity.uid).cloned().unwrap_or_default();
        let vm = own.first().copied();
        let desk = Desk {
            pod,
            vm,
            memory: &memory,
            scene,
        };
        let mut steps = Vec::new();
        for other in own.iter().skip(1) {
            steps.extend(gone(other, memory.flight));
        }
        let (report, work) = desk.decide(&mut plan.wake_ms);
        steps.extend(work);
        let task = |steps| Task {
            pod: identity.clone(),
            steps,
        };
        plan.tasks
            .extend(report.map(|report| task(vec![Step::Report(Box::new(report))])));
        plan.tasks.extend((!steps.is_empty()).then(|| task(steps)));
    }
    for (uid, vms) in theirs {
        let flight = memories.get(&uid).and_then(|memory| memory.flight);
        let steps: Vec<Step> = vms.iter().flat_map(|vm| gone(vm, flight)).collect();
        if let Some(pod) = vms
            .first()
            .and_then(|vm| Identity::of_vm(vm))
            .filter(|_| !steps.is_empty())
        {
            plan.tasks.push(Task { pod, steps });
        }
    }
    plan
}

/// For a microVM that no Pod wants.
fn gone(vm: &Vm, flight: Option<Flight>) -> Option<Step> {
    if flight.is_some() {
        return None;
    }
    let id = vm.id.clone();
    Some(if vm.state.is_active() {
        Step::Stop {
            vm: id,
            grace_s: grace_s(vm).unwrap_or(USUAL_GRACE_S),
        }
    } else {
        Step::Remove { vm: id }
    })
}

/// A Pod, and all that its next steps depend on.
struct Desk<'a> {
    pod: &'a Pod,
    vm: Option<&'a Vm>,
    memory: &'a Memory,
    scene: &'a Scene,
}

/// A report where there is something new, and steps.
type Decision = (Option<PodStatus>, Vec<Step>);

impl Desk<'_> {
    fn decide(&self, wake_ms: &mut Option<u64>) -> Decision {
        match (&self.pod.metadata.deletion_timestamp, has_ended(self.pod)) {
            (Some(_), ended) => self.deleted(ended),
            (None, true) => (None, self.ended()),
            (None, false) => self.wanted(wake_ms),
        }
    }

    /// Somebody deletes it: it is stopped with the grace that he gave, reported, removed, and forgotten.
    fn deleted(&self, has_ended: bool) -> Decision {
        let stop = self.stop(self.grace());
        if !stop.is_empty() || self.is_active() {
            let report = (!has_ended).then(|| self.news(None)).flatten();
            return (report, stop);
        }
        if self.memory.flight.is_some() {
            return (None, Vec::new());
        }
        let mut steps = Vec::new();
        if let Some(vm) = self.vm {
            let end = match vm.state {
                VmState::Exited { code: 0 } => End::success(),
                _ => End::failure(),
            };
            let report = if has_ended { None } else { self.news(Some(&end)) };
            steps.extend(report.map(|report| Step::Report(Box::new(report))));
            steps.push(Step::Remove { vm: vm.id.clone() });
        }
        steps.push(Step::Forget);
        (None, steps)
    }

    /// It has ended: what runs of it is stopped. What rests stays for its log, unless it holds ports of the host's: the
    /// scheduler counts them as free again, and sends the Pod's successor.
    fn ended(&self) -> Vec<Step> {
        let holds_ports = |vm: &&Vm| {
            vm.network
                .as_ref()
                .is_some_and(|network| !network.publish.is_empty())
        };
        match self.vm.filter(|vm| !vm.state.is_active()).filter(holds_ports) {
            Some(vm) if self.memory.flight.is_none() => vec![Step::Remove { vm: vm.id.clone() }],
            _ => self.stop(self.usual_grace()),
        }
    }

    fn wanted(&self, wake_ms: &mut Option<u64>) -> Decision {
        if let Some(end) = self.condemned(wake_ms) {
            // Whatever ended it, it is said only when nothing runs any more.
            let report = if self.is_active() {
                self.news(None)
            } else {
                self.news(Some(&end))
            };
            return (report, self.stop(self.grace()));
        }
        let Some(vm) = self.vm else {
            return self.missing(wake_ms);
        };
        let end = match &vm.state {
            VmState::Exited { code } => over(self.policy(), Some(*code)),
            VmState::Failed { code, .. } => over(self.policy(), *code),
            VmState::Created => None,
            VmState::Starting | VmState::Running | VmState::Stopping | VmState::BackOff { .. } => {
                return (self.news(None), Vec::new());
            }
        };
        let start = end.is_none() && self.may_try(wake_ms);
        let steps = start.then(|| Step::Start { vm: vm.id.clone() });
        (self.news(end.as_ref()), steps.into_iter().collect())
    }

    /// There is none: it is made, but for a Pod that had one and wants none twice.
    fn missing(&self, wake_ms: &mut Option<u64>) -> Decision {
        if self.memory.flight.is_none() && has_run(self.pod) && self.policy() == RestartPolicy::No {
            return (self.news(Some(&End::failure())), Vec::new());
        }
        let steps = if self.may_try(wake_ms) {
            vec![Step::Create]
        } else {
            Vec::new()
        };
        (self.news(None), steps)
    }

    /// Why it has to end, where it has to.
    fn condemned(&self, wake_ms: &mut Option<u64>) -> Option<End> {
        if self.is_evicted() {
            return Some(End::because("Evicted", "the node's owner takes the machine back"));
        }
        if let Some(end) = &self.memory.end {
            return Some(end.clone());
        }
        let deadline = self.pod.spec.as_ref()?.active_deadline_seconds?;
        let began = self.pod.status.as_ref()?.start_time.as_ref()?.0.as_millisecond();
        let until_ms = u64::try_from(began.saturating_add(deadline.saturating_mul(1_000))).unwrap_or(0);
        let rests = self.vm.filter(|vm| !vm.state.is_active());
        if rests
            .and_then(|vm| vm.ended_at_ms)
            .is_some_and(|ended_ms| ended_ms < until_ms)
        {
            return None;
        }
        if self.scene.now_ms < until_ms {
            wake(wake_ms, until_ms);
            return None;
        }
        let message = format!("it was active for longer than its activeDeadlineSeconds ({deadline})");
        Some(End::because("DeadlineExceeded", message))
    }

    fn may_try(&self, wake_ms: &mut Option<u64>) -> bool {
        let left_ms = self.memory.not_before_ms.saturating_sub(self.scene.tick_ms);
        let is_due = left_ms == 0;
        if !is_due {
            wake(wake_ms, self.scene.now_ms.saturating_add(left_ms));
        }
        is_due && self.memory.flight.is_none()
    }

    /// The stop of its microVM, unless it is being stopped as fast already.
    fn stop(&self, grace_s: u32) -> Vec<Step> {
        let Some(vm) = self.vm.filter(|vm| vm.state.is_active()) else {
            return Vec::new();
        };
        let is_faster = match self.memory.flight {
            None => true,
            Some(Flight::Stopping { grace_s: other }) => grace_s < other,
            Some(Flight::Other) => false,
        };
        let stop = Step::Stop {
            vm: vm.id.clone(),
            grace_s,
        };
        is_faster.then_some(stop).into_iter().collect()
    }

    /// It is ended for the owner's sake, unless it came to its own end before.
    fn is_evicted(&self) -> bool {
        let is_over = match self.vm.map(|vm| &vm.state) {
            Some(VmState::Exited { code }) => over(self.policy(), Some(*code)).is_some(),
            Some(VmState::Failed { code, .. }) => over(self.policy(), *code).is_some(),
            _ => false,
        };
        let is_wanted = self.pod.metadata.deletion_timestamp.is_none();
        is_disrupted(self.pod) || (self.scene.evicting && is_wanted && !is_over)
    }

    fn is_active(&self) -> bool {
        self.vm.is_some_and(|vm| vm.state.is_active())
    }

    /// What whoever deletes it says, else what its author said.
    fn grace(&self) -> u32 {
        let given = self.pod.metadata.deletion_grace_period_seconds;
        let given = given.filter(|_| self.pod.metadata.deletion_timestamp.is_some());
        given.map_or_else(|| self.usual_grace(), seconds)
    }

    fn usual_grace(&self) -> u32 {
        let spec = self.pod.spec.as_ref();
        let given = spec.and_then(|spec| spec.termination_grace_period_seconds);
        given.map_or(USUAL_GRACE_S, seconds)
    }

    fn policy(&self) -> RestartPolicy {
        let policy = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.restart_policy.as_deref());
        match policy {
            Some("Never") => RestartPolicy::No,
            Some("OnFailure") => RestartPolicy::OnFailure { max_retries: None },
            _ => RestartPolicy::Always,
        }
    }

    /// The status, where it is not what the API server has.
    fn news(&self, end: Option<&End>) -> Option<PodStatus> {
        let standing = Standing {
            vm: self.vm,
            hold: self.memory.hold.as_ref(),
            end,
            evicted: self.is_evicted(),
            host_ip: self.scene.host_ip,
            now_ms: self.scene.now_ms,
        };
        let report = status(self.pod, &standing);
        is_news(self.pod, &report).then_some(report)
    }
}

fn wake(wake_ms: &mut Option<u64>, at_ms: u64) {
    *wake_ms = Some(wake_ms.map_or(at_ms, |earlier| earlier.min(at_ms)));
}

fn seconds(given: i64) -> u32 {
    u32::try_from(given.max(0)).unwrap_or(u32::MAX)
}

/// The end of a workload that came to rest; none where it is to run again.
fn over(policy: RestartPolicy, code: Option<i32>) -> Option<End> {
    match (policy, code) {
        (RestartPolicy::Always, _) => None,
        (_, Some(0)) => Some(End::success()),
        (RestartPolicy::OnFailure { .. }, _) => None,
        (RestartPolicy::No, _) => Some(End::failure()),
    }
}

#[cfg(test)]
mod tests;
