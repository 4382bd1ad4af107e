//! One VM's record.

use std::collections::BTreeMap;

use secovia_agent_api::{StartTiming, TerminalSize, Vm, VmContainer, VmRun, VmState};
use serde::{Deserialize, Serialize};

use super::VmId;
use super::pod::PodSpec;
use crate::lifecycle::{Life, Outcome, Run, State};
use crate::network::Port;

/// Everything that is known of a VM, as it lies in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Whose record.
    pub id: VmId,
    /// Unique among the records.
    pub name: String,
    /// What it is made of; it does not change.
    pub spec: Spec,
    /// The host's user, and group, that it runs as: no other record has it.
    pub uid: u32,
    /// Its place in the network, where it has one: no other record has these addresses.
    #[serde(default)]
    pub network: Option<Port>,
    /// What its containers do, where it has several; as the guest said it last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<VmContainer>,
    /// Its first start waits for an attach session.
    pub hold: bool,
    /// Where it stands.
    pub life: Life,
    /// Unix time in milliseconds.
    pub created_ms: u64,
    /// How long the last start took.
    pub timing: Option<StartTiming>,
}

/// What a VM is made of, the image's defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The image's name.
    pub image: String,
    /// The image's digest when the VM was created; it runs nothing else.
    pub image_digest: String,
    /// The guest's host name, where it is not the VM's name.
    #[serde(default)]
    pub hostname: Option<String>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// The workload's environment. May hold secrets: never logged.
    pub env: BTreeMap<String, String>,
    /// Whom it runs as.
    pub user: Option<String>,
    /// Where it runs.
    pub working_dir: Option<String>,
    /// vCPUs.
    pub cpus: u8,
    /// What its CPU time counts for, in thousandths of a CPU; that of its vCPUs where none was given.
    #[serde(default)]
    pub cpu_millis: Option<u32>,
    /// Guest memory.
    pub memory_mib: u64,
    /// The writable layer's disk, where it has one.
    pub disk_mib: Option<u64>,
    /// The terminal that the workload runs on, where it has one.
    pub tty: Option<TerminalSize>,
    /// Whether the workload's input stays open.
    pub stdin: bool,
    /// Several containers, in the place of the one workload that the fields above tell of (they tell of the first then).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodSpec>,
    /// What its maker noted. Nothing here depends on them.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl Spec {
    /// What its CPU time counts for, in thousandths of a CPU.
    pub fn cpu_millis(&self) -> u32 {
        self.cpu_millis.unwrap_or(u32::from(self.cpus) * 1_000)
    }
}

impl Record {
    /// What the API shows. `vmm_pid` is what the supervisor sees, not what was written down.
    pub fn show(&self, vmm_pid: Option<u32>) -> Vm {
        let Spec {
            image,
            image_digest,
            hostname: _,
            command,
            env,
            user,
            working_dir,
            cpus,
            cpu_millis: _,
            memory_mib,
            disk_mib,
            tty,
            stdin,
            pod: _,
            labels,
        } = self.spec.clone();
        Vm {
            id: self.id.to_string(),
            name: self.name.clone(),
            state: show_state(&self.life.state),
            image,
            image_digest,
            command,
            env,
            user,
            working_dir,
            containers: self.containers.clone(),
            cpus,
            cpu_millis: self.spec.cpu_millis(),
            memory_mib,
            disk_mib,
            network: self.network.as_ref().map(Port::show),
            restart: self.life.policy,
            rm: self.life.auto_remove,
            labels,
            tty: tty.is_some(),
            stdin,
            created_at_ms: self.created_ms,
            started_at_ms: self.life.started_ms,
            ended_at_ms: self.life.ended_ms,
            restarts: self.life.restarts,
            starts: self.life.starts,
            last_run: self.life.last_run.as_ref().map(show_run),
            vmm_pid,
            paused: false,
            timing: self.timing,
        }
    }

    /// Where it stands, in one word.
    pub fn state_word(&self) -> &'static str {
        show_state(&self.life.state).word()
    }
}

fn show_run(run: &Run) -> VmRun {
    let (code, reason) = match &run.outcome {
        Outcome::Exited(code) => (Some(*code), None),
        Outcome::Failed(failure) => (failure.code, Some(failure.reason.clone())),
    };
    VmRun {
        started_at_ms: run.started_ms,
        ended_at_ms: run.ended_ms,
        code,
        reason,
    }
}

fn show_state(state: &State) -> VmState {
    match state {
        State::Created => VmState::Created,
        State::Starting => VmState::Starting,
        State::Running => VmState::Running,
        State::Stopping { .. } => VmState::Stopping,
        State::Exited { code } => VmState::Exited { code: *code },
        State::Failed(failure) => VmState::Failed {
            reason: failure.reason.clone(),
            code: failure.code,
        },
        State::BackOff { until_ms, last } => VmState::BackOff {
            until_ms: *until_ms,
            reason: match last {
                Outcome::Exited(code) => format!("the workload ended with status {code}"),
                Outcome::Failed(failure) => failure.reason.clone(),
            },
        },
    }
}
