//! Where a VM stands, as it is written down.

use secovia_agent_api::RestartPolicy;
use serde::{Deserialize, Serialize};

/// Where a VM stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum State {
    /// It was never started.
    Created,
    /// Its VMM is being started, or its guest boots.
    Starting,
    /// Its workload runs.
    Running,
    /// It is on its way to rest: the guest powers off, or the VMM is being ended.
    Stopping {
        /// Who wanted that.
        cause: Cause,
        /// How the workload ended, once that is known.
        outcome: Option<Outcome>,
        /// When the VMM is ended by force (Unix time in milliseconds).
        deadline_ms: u64,
    },
    /// Its workload ended with this status, its VMM is gone.
    Exited {
        /// 0 to 255, as a shell would show it.
        code: i32,
    },
    /// Its VMM is gone without a status of the workload.
    Failed(Failure),
    /// It ended and is started again at a set time.
    BackOff {
        /// When (Unix time in milliseconds).
        until_ms: u64,
        /// How it ended.
        last: Outcome,
    },
}

/// Who wanted a VM to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The workload ended by itself; the restart policy applies.
    Workload,
    /// Someone asked for it; the restart policy is silent.
    Request,
    /// The owner needs the machine: a restart policy begins it anew when there is room again.
    Reclaim,
}

/// How a run of a VM ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// The workload's status, 0 to 255.
    Exited(i32),
    /// No status: the VMM or the start failed.
    Failed(Failure),
}

/// Why a run has no status of its workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// For people.
    pub reason: String,
    /// What a shell would show, where the workload's program could not be started (127, 126).
    pub code: Option<i32>,
}

impl Failure {
    /// A failure that no shell has a status for.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            code: None,
        }
    }
}

impl Outcome {
    pub(super) fn is_success(&self) -> bool {
        *self == Self::Exited(0)
    }

    pub(super) fn at_rest(self) -> State {
        match self {
            Self::Exited(code) => State::Exited { code },
            Self::Failed(failure) => State::Failed(failure),
        }
    }
}

/// Everything that decides what comes next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Life {
    /// Where the VM stands.
    pub state: State,
    /// What happens after a run.
    pub policy: RestartPolicy,
    /// The record goes when the VM comes to rest.
    pub auto_remove: bool,
    /// Restarts in a row without a stable run between them.
    pub restarts: u32,
    /// When the present or the last run's workload began (Unix time in milliseconds).
    pub started_ms: Option<u64>,
    /// When the last run ended.
    pub ended_ms: Option<u64>,
    /// Starts in all.
    #[serde(default)]
    pub starts: u32,
    /// The last run that is over. It stays while the next one goes on.
    #[serde(default)]
    pub last_run: Option<Run>,
}

/// A run that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// When its workload began, where it did (Unix time in milliseconds).
    pub started_ms: Option<u64>,
    /// When its VMM was gone.
    pub ended_ms: u64,
    /// How it ended.
    pub outcome: Outcome,
}

impl Life {
    /// A VM that was never started.
    pub fn new(policy: RestartPolicy, auto_remove: bool) -> Self {
        Self {
            state: State::Created,
            policy,
            auto_remove,
            restarts: 0,
            started_ms: None,
            ended_ms: None,
            starts: 0,
            last_run: None,
        }
    }

    /// Whether a VMM runs for it, or is being started.
    pub fn is_live(&self) -> bool {
        match self.state {
            State::Starting | State::Running | State::Stopping { .. } => true,
            State::Created | State::Exited { .. } | State::Failed(_) | State::BackOff { .. } => false,
        }
    }
}
