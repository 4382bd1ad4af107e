//! microVMs: what is asked for, what is, what is used.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::container::{Container, VmContainer, Volume};
use crate::network::{NetworkMode, Publish, VmNetwork};
use crate::terminal::TerminalSize;

/// A microVM to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct VmCreate {
    /// Its name, also the guest's host name: 1 to 63 of a-z, 0-9 and `-`, no `-` at an end, not 16 hexadecimal digits
    /// (an identifier looks so). The agent makes one up where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The name of the image that it starts from. With `containers` that of the first of them.
    pub image: String,
    /// Several containers, in the place of the one workload that `entrypoint`, `command`, `env`, `user`, `working_dir`,
    /// `tty`, `stdin` and `attach` would tell of. They share the machine, its memory and its network; each has its own
    /// root directory, writable layer and process numbers, and its own log. `restart` is that of each container then, which
    /// the guest sees to, and that of the microVM.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<Container>,
    /// Containers that run before those, one after the other, each to its success.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub init_containers: Vec<Container>,
    /// Directories that the containers may share.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// The guest's host name: 1 to 63 of a-z, 0-9 and `-`, no `-` at an end; its name where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Program and first arguments, in the place of the image's entrypoint. With it the image's command is not used either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Program and arguments (arguments alone, where there is an entrypoint); the image's command where empty.
    #[serde(default)]
    pub command: Vec<String>,
    /// Joins the image's environment, and wins over it.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// `name`, `uid`, `name:group` or `uid:gid`; the image's where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The workload's working directory; the image's where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// vCPUs, 1 to 32.
    #[serde(default = "default_cpus")]
    pub cpus: u8,
    /// What its CPU time counts for where it is lent, and weighs where it is scarce, in thousandths of a CPU: 10 to
    /// `cpus` times 1000, which it is where none is given. It may use more as long as nobody else wants it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
    /// Guest memory in MiB, at least 64.
    #[serde(default = "default_memory_mib")]
    pub memory_mib: u64,
    /// Size of a disk for the writable layer, in MiB. Without one the layer lies in guest memory and is gone when the
    /// microVM stops; with one it is kept until the microVM is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_mib: Option<u64>,
    /// Its network; that of the node where none is given and the node has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkMode>,
    /// Ports of the host's that lead to the guest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<Publish>,
    /// What happens when the workload ends.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// Remove the microVM, with its disk and its log, when it has ended for good.
    #[serde(default)]
    pub rm: bool,
    /// What its maker wants to find with it again; the agent only keeps them. At most 64, of at most 4096 bytes in all.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Run the workload on a terminal of this size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<TerminalSize>,
    /// The workload's standard input stays open for attach sessions. Otherwise it is at its end from the start.
    #[serde(default)]
    pub stdin: bool,
    /// The workload starts only when the first attach session is there, so that it sees all output. A microVM that
    /// nobody attaches to within 60 seconds fails.
    #[serde(default)]
    pub attach: bool,
    /// Start it at once.
    #[serde(default = "default_start")]
    pub start: bool,
}

fn default_cpus() -> u8 {
    1
}

fn default_memory_mib() -> u64 {
    256
}

fn default_start() -> bool {
    true
}

impl VmCreate {
    /// A microVM of this image, all else as it is by default.
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            name: None,
            image: image.into(),
            containers: Vec::new(),
            init_containers: Vec::new(),
            volumes: Vec::new(),
            hostname: None,
            entrypoint: None,
            command: Vec::new(),
            env: BTreeMap::new(),
            user: None,
            working_dir: None,
            cpus: default_cpus(),
            cpu_millis: None,
            memory_mib: default_memory_mib(),
            disk_mib: None,
            network: None,
            publish: Vec::new(),
            restart: RestartPolicy::No,
            rm: false,
            labels: BTreeMap::new(),
            tty: None,
            stdin: false,
            attach: false,
            start: default_start(),
        }
    }
}

/// What happens when a workload ends that nobody stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "policy", rename_all = "snake_case", deny_unknown_fields)]
pub enum RestartPolicy {
    /// It stays ended.
    #[default]
    No,
    /// It is started again when its status is not 0 or the microVM failed.
    OnFailure {
        /// Give up after so many starts in a row; never where none is given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_retries: Option<u32>,
    },
    /// It is started again, and also when the agent starts.
    Always,
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::OnFailure { max_retries: None } => f.write_str("on-failure"),
            Self::OnFailure {
                max_retries: Some(max),
            } => write!(f, "on-failure:{max}"),
            Self::Always => f.write_str("always"),
        }
    }
}

/// A text that is no restart policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected no, on-failure, on-failure:N or always")]
pub struct ParseRestartPolicyError;

impl FromStr for RestartPolicy {
    type Err = ParseRestartPolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "no" => Ok(Self::No),
            "on-failure" => Ok(Self::OnFailure { max_retries: None }),
            "always" => Ok(Self::Always),
            _ => text
                .strip_prefix("on-failure:")
                .and_then(|max| max.parse().ok())
                .map(|max| Self::OnFailure {
                    max_retries: Some(max),
                })
                .ok_or(ParseRestartPolicyError),
        }
    }
}

/// A microVM as the agent knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Vm {
    /// 16 hexadecimal digits, never used twice.
    pub id: String,
    /// Unique among the microVMs that exist.
    pub name: String,
    /// What it does.
    pub state: VmState,
    /// The name of its image.
    pub image: String,
    /// The image's digest when the microVM was created; it stays with that.
    pub image_digest: String,
    /// Program and arguments, the image's command filled in.
    pub command: Vec<String>,
    /// The workload's environment, the image's filled in.
    pub env: BTreeMap<String, String>,
    /// Whom the workload runs as; root where none is given.
    pub user: Option<String>,
    /// Where the workload runs; the root directory where none is given.
    pub working_dir: Option<String>,
    /// Its containers, where it has several: init containers first. Without any it runs one workload.
    #[serde(default)]
    pub containers: Vec<VmContainer>,
    /// vCPUs.
    pub cpus: u8,
    /// What its CPU time counts for, in thousandths of a CPU.
    #[serde(default)]
    pub cpu_millis: u32,
    /// Guest memory in MiB.
    pub memory_mib: u64,
    /// The writable layer's disk in MiB, where it has one.
    pub disk_mib: Option<u64>,
    /// Its place in the network, where it has one.
    #[serde(default)]
    pub network: Option<VmNetwork>,
    /// What happens when the workload ends.
    pub restart: RestartPolicy,
    /// Whether it is removed when it has ended for good.
    pub rm: bool,
    /// What its maker noted.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether the workload runs on a terminal.
    pub tty: bool,
    /// Whether the workload's standard input stays open.
    pub stdin: bool,
    /// When it was created.
    pub created_at_ms: u64,
    /// When the workload was last started.
    pub started_at_ms: Option<u64>,
    /// When it last ended.
    pub ended_at_ms: Option<u64>,
    /// How often the restart policy started it again, without a long run between.
    pub restarts: u32,
    /// How often it was started in all, by whomever.
    #[serde(default)]
    pub starts: u32,
    /// How its last run ended, where one did.
    #[serde(default)]
    pub last_run: Option<VmRun>,
    /// The process of its VMM, while there is one.
    pub vmm_pid: Option<u32>,
    /// It stands still, because the owner needs what it has.
    #[serde(default)]
    pub paused: bool,
    /// How long the last start took.
    pub timing: Option<StartTiming>,
}

/// What a microVM does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum VmState {
    /// It was never started.
    Created,
    /// Its VMM is being started, its guest boots, or it waits for the first attach session.
    Starting,
    /// Its workload runs.
    Running,
    /// It is asked to end.
    Stopping,
    /// Its workload ended.
    Exited {
        /// The status as a shell shows it: 0 to 255, 128 and the signal's number for a workload that a signal ended.
        code: i32,
    },
    /// The microVM failed; the workload has no status.
    Failed {
        /// What failed.
        reason: String,
        /// Where the workload could not be started, the status that a shell gives: 127 for a program that does not
        /// exist, 126 for one that cannot be executed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<i32>,
    },
    /// It ended, and the restart policy will start it again.
    BackOff {
        /// When.
        until_ms: u64,
        /// How it ended, for people.
        reason: String,
    },
}

impl VmState {
    /// The state in one word, as in JSON.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Exited { .. } => "exited",
            Self::Failed { .. } => "failed",
            Self::BackOff { .. } => "back_off",
        }
    }

    /// Whether a VMM may be running, or will be without anybody asking again.
    pub fn is_active(&self) -> bool {
        match self {
            Self::Starting | Self::Running | Self::Stopping | Self::BackOff { .. } => true,
            Self::Created | Self::Exited { .. } | Self::Failed { .. } => false,
        }
    }
}

/// A run of a microVM that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VmRun {
    /// When its workload was started, where it came so far.
    pub started_at_ms: Option<u64>,
    /// When it ended.
    pub ended_at_ms: u64,
    /// The workload's status, or what a shell gives where it could not be started; none where the microVM failed.
    pub code: Option<i32>,
    /// What failed, where the workload did not end by itself.
    pub reason: Option<String>,
}

/// How long a start took, from the start of the VMM's process, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StartTiming {
    /// Until the guest's PID 1 answered.
    pub guest_us: u64,
    /// Until the workload was spawned; with `attach` this includes the wait for the session.
    pub workload_us: u64,
    /// The guest's own clock (since its kernel started) when PID 1 began.
    pub init_us: u64,
}

/// Which microVMs a list holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// Also those that are not active (see [`VmState::is_active`]).
    #[serde(default)]
    pub all: bool,
}

/// How a microVM is removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
pub struct DeleteQuery {
    /// End it first where it is active; refused otherwise.
    #[serde(default)]
    pub force: bool,
}

/// How a microVM is stopped. The restart policy does not apply afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StopRequest {
    /// Seconds that the workload has between SIGTERM and SIGKILL.
    #[serde(default = "default_grace_s")]
    pub grace_s: u32,
}

fn default_grace_s() -> u32 {
    10
}

impl Default for StopRequest {
    fn default() -> Self {
        Self {
            grace_s: default_grace_s(),
        }
    }
}

/// How a microVM is killed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct KillRequest {
    /// The signal (its Linux number) to send to the workload. Where none is given the whole microVM is ended at once,
    /// the answer comes when it is gone, and the restart policy does not apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
}

/// What to wait for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
pub struct WaitQuery {
    /// The state that ends the wait.
    #[serde(default)]
    pub until: WaitUntil,
}

/// The states that end a wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum WaitUntil {
    /// The microVM is not active any more: created, exited or failed. Where it is removed meanwhile, the answer has
    /// its last state.
    #[default]
    Ended,
    /// It has been started: anything but created and starting.
    Started,
}

/// What a microVM uses on the host now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VmStats {
    /// Whose.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When this was measured.
    pub at_ms: u64,
    /// CPU time of the VMM's process since it started, guest and VMM together.
    pub cpu_time_us: u64,
    /// The host's memory that the VMM's process holds, guest memory included, in bytes.
    pub memory_bytes: u64,
    /// Guest memory in bytes, touched or not.
    pub memory_limit_bytes: u64,
    /// Bytes that the VMM's process read from the host's disks since it started.
    pub read_bytes: u64,
    /// Bytes that it wrote to them.
    pub written_bytes: u64,
    /// Seconds since the workload was started.
    pub uptime_s: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_needs_only_an_image_and_refuses_what_it_does_not_know() {
        let create: VmCreate = serde_json::from_str(r#"{"image":"base"}"#).unwrap();
        assert_eq!(create, VmCreate::new("base"));
        let error = serde_json::from_str::<VmCreate>(r#"{"image":"base","cpu":2}"#)
            .unwrap_err()
            .to_string();
        assert!(error.contains("`cpu`"), "{error}");
    }

    #[test]
    fn states_are_tagged() {
        for (state, json) in [
            (VmState::Running, r#"{"status":"running"}"#),
            (VmState::Exited { code: 7 }, r#"{"status":"exited","code":7}"#),
            (
                VmState::BackOff {
                    until_ms: 1,
                    reason: "r".into(),
                },
                r#"{"status":"back_off","until_ms":1,"reason":"r"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&state).unwrap(), json);
            assert_eq!(serde_json::from_str::<VmState>(json).unwrap(), state);
            assert!(json.contains(state.word()));
        }
    }

    #[test]
    fn restart_policies_read_as_they_are_shown() {
        for (text, policy) in [
            ("no", RestartPolicy::No),
            ("on-failure", RestartPolicy::OnFailure { max_retries: None }),
            ("on-failure:3", RestartPolicy::OnFailure { max_retries: Some(3) }),
            ("always", RestartPolicy::Always),
        ] {
            assert_eq!(text.parse(), Ok(policy));
            assert_eq!(policy.to_string(), text);
            let json = serde_json::to_string(&policy).unwrap();
            assert_eq!(
                serde_json::from_str::<RestartPolicy>(&json).unwrap(),
                policy,
                "{json}"
            );
        }
        for text in ["", "on-failure:", "on-failure:-1", "Always"] {
            assert_eq!(
                text.parse::<RestartPolicy>(),
                Err(ParseRestartPolicyError),
                "{text}"
            );
        }
    }
}
