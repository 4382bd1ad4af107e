//! What an agent that starts has to do so that records and host agree again: a plain plan from what is written and
//! what is seen. No VM may run without a record, and no record may claim a VM that is not there.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use secovia_agent_api::RestartPolicy;

use crate::lifecycle::{Life, State};
use crate::process::Found;
use crate::records::VmId;

/// What is on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// VMMs that run; the one that a VM's pid file names comes first.
    pub vmms: Vec<Found>,
    /// VMs with runtime files or a jail.
    pub runtimes: Vec<VmId>,
    /// VMs with lasting files.
    pub states: Vec<VmId>,
    /// VMs with a control group.
    pub cgroups: Vec<VmId>,
}

/// One thing to do. Each can be done again without harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// End a VMM that no record stands for, and wait until it is gone.
    End(Found),
    /// Remove runtime files that no VMM uses.
    ClearRuntime(VmId),
    /// Remove lasting files that no record stands for.
    ClearState(VmId),
    /// Remove a control group that no VMM is in.
    ClearCgroup(VmId),
    /// The record has its VMM: go on with it.
    Adopt(VmId, Found),
    /// The record claims a VMM that is not there: its run has ended.
    Lost(VmId),
    /// The record is at rest, or waits: keep it so.
    Keep(VmId),
    /// The record is at rest, and its policy starts it with the agent.
    Start(VmId),
    /// The record should be gone with the run that has ended.
    Remove(VmId),
}

/// What of a record the plan needs: whose it is, whom it runs as, where it stands.
#[derive(Debug, Clone, Copy)]
pub struct Recorded<'a> {
    /// Whose.
    pub id: VmId,
    /// As whom; no other record has this user.
    pub uid: u32,
    /// Where it stands.
    pub life: &'a Life,
}

/// The steps, in the order in which they are to be done.
pub fn plan(records: &[Recorded<'_>], observed: &Observed) -> Vec<Step> {
    let known: BTreeSet<VmId> = records.iter().map(|record| record.id).collect();
    let (mut adopted, mut adopted_ids) = (BTreeSet::new(), BTreeSet::new());
    let mut verdicts = Vec::new();
    for Recorded { id, uid, life } in records {
        let vmm = observed.vmms.iter().find(|vmm| vmm.uid == *uid);
        verdicts.push(match (&life.state, vmm) {
            (State::Starting | State::Running | State::Stopping { .. }, Some(vmm)) => {
                adopted.insert(*vmm);
                adopted_ids.insert(*id);
                Step::Adopt(*id, *vmm)
            }
            (State::Starting | State::Running | State::Stopping { .. }, None) => Step::Lost(*id),
            (State::Exited { .. } | State::Failed(_), _) if life.auto_remove => Step::Remove(*id),
            (State::Exited { .. } | State::Failed(_), _) if life.policy == RestartPolicy::Always => {
                Step::Start(*id)
            }
            (State::Created | State::BackOff { .. } | State::Exited { .. } | State::Failed(_), _) => {
                Step::Keep(*id)
            }
        });
    }
    let unadopted = |id: &&VmId| !adopted_ids.contains(id);
    let strays: BTreeSet<Found> = observed
        .vmms
        .iter()
        .filter(|vmm| !adopted.contains(vmm))
        .copied()
        .collect();
    let mut steps: Vec<Step> = strays.into_iter().map(Step::End).collect();
    steps.extend(
        observed
            .runtimes
            .iter()
            .filter(unadopted)
            .copied()
            .map(Step::ClearRuntime),
    );
    steps.extend(
        observed
            .cgroups
            .iter()
            .filter(unadopted)
            .copied()
            .map(Step::ClearCgroup),
    );
    steps.extend(
        observed
            .states
            .iter()
            .filter(|id| !known.contains(id))
            .copied()
            .map(Step::ClearState),
    );
    steps.extend(verdicts);
    steps
}
