//! Several containers in one guest: what they are, and what they do. Plain values, no I/O.

use serde::{Deserialize, Serialize};

use crate::{ExitStatus, NetworkSetup, ProcessSpec};

/// The containers of a guest, and the world around them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodSpec {
    /// The guest's host name.
    pub hostname: String,
    /// Its network, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkSetup>,
    /// Directories that containers may share. Those of the kind [`VolumeKind::Files`] are filled before the start
    /// ([`crate::Request::Write`]).
    #[serde(default)]
    pub volumes: Vec<VolumeSpec>,
    /// Run one after the other, each to its success, before the others.
    #[serde(default)]
    pub init: Vec<ContainerSpec>,
    /// Run side by side; at least one.
    pub containers: Vec<ContainerSpec>,
    /// What happens when one ends.
    pub restart: PodRestart,
}

/// What happens when a container ends that nobody stopped. It is started again at once the first time, then after 10
/// seconds, then after twice as long each time, up to 300; and at once again when it has run for 10 minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PodRestart {
    /// It is started again; an init container only when it failed.
    Always,
    /// It is started again when it failed.
    OnFailure,
    /// It stays ended; where an init container fails, all have.
    Never,
}

/// A directory that containers may share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeSpec {
    /// Its name: 1 to 63 of a-z, 0-9 and `-`.
    pub name: String,
    /// Where it lies.
    pub kind: VolumeKind,
}

/// Where a volume lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum VolumeKind {
    /// Files from the host, in the guest's memory; nobody in the guest may write them.
    Files {},
    /// Empty at first, on the writable layer.
    Layer {},
    /// Empty at first, in the guest's memory.
    Memory {
        /// It takes no more than so many bytes; half of the guest's memory where none is given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
    },
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerSpec {
    /// Its name, unique in the guest: 1 to 63 of a-z, 0-9 and `-`.
    pub name: String,
    /// The disk that holds its image, such as `vda`.
    pub disk: String,
    /// What to run.
    pub process: ProcessSpec,
    /// Its standard input stays open for those who attach; otherwise it is at its end from the start.
    #[serde(default)]
    pub stdin: bool,
    /// Volumes in its file system.
    #[serde(default)]
    pub mounts: Vec<MountSpec>,
    /// How often it was started again before this guest was: the number of its first run here.
    #[serde(default)]
    pub restarts: u32,
    /// One that fails ends the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness: Option<ProbeSpec>,
    /// One that fails makes the container unready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<ProbeSpec>,
    /// The others wait until it succeeds; one that fails ends the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup: Option<ProbeSpec>,
    /// How long it may take to end when a probe ends it, in milliseconds.
    #[serde(default)]
    pub grace_ms: u64,
}

/// A volume in a container's file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountSpec {
    /// The volume's name.
    pub volume: String,
    /// Where it is seen: an absolute path.
    pub path: String,
    /// It cannot be written there.
    #[serde(default)]
    pub read_only: bool,
}

/// How a container is asked how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeSpec {
    /// What is asked.
    pub check: Check,
    /// How long after the container's start for the first time, in milliseconds.
    pub initial_delay_ms: u64,
    /// How often, in milliseconds; at least 1.
    pub period_ms: u64,
    /// How long an answer may take, in milliseconds; at least 1.
    pub timeout_ms: u64,
    /// So many good answers in a row make it well; at least 1.
    pub success: u32,
    /// So many bad ones in a row make it ill; at least 1.
    pub failure: u32,
}

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Check {
    /// Run in the container as the container is; its status is 0.
    Exec {
        /// Program and arguments.
        argv: Vec<String>,
    },
    /// A GET over HTTP/1.1 is answered with a status from 200 to 399.
    Http {
        /// Of which address (no name); the guest's own where none is given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host: Option<String>,
        /// Of which port.
        port: u16,
        /// Of which path, with its query.
        path: String,
        /// Headers beside the usual ones; `Host` wins over that of the address.
        #[serde(default)]
        headers: Vec<(String, String)>,
    },
    /// The port takes connections.
    Tcp {
        /// Of which address (no name); the guest's own where none is given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host: Option<String>,
        /// Which port.
        port: u16,
    },
}

/// A file of a volume; its bytes follow it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSpec {
    /// The volume's name.
    pub volume: String,
    /// Its path in the volume: names between slashes, none of them `.` or `..`.
    pub path: String,
    /// Its permissions, such as 0o644.
    pub mode: u32,
    /// Its group; 0 is root's.
    #[serde(default)]
    pub gid: u32,
}

/// What the containers of a guest do: those of `init` first, then the others, each in the order in which it was told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodReport {
    /// Each container.
    pub containers: Vec<ContainerReport>,
}

/// What a container does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerReport {
    /// Now.
    pub state: ContainerState,
    /// How its last run ended, where one did, and it is not what `state` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<ContainerEnd>,
    /// How often it was started again.
    pub restarts: u32,
    /// Whoever asks it gets an answer.
    pub ready: bool,
    /// It has come up.
    pub started: bool,
}

/// What a container does now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    /// Its turn has not come.
    Waiting {},
    /// It runs.
    Running {
        /// Since then, by the guest's clock, in milliseconds since 1970-01-01 UTC.
        since_ms: u64,
    },
    /// It ended, and is started again after a while.
    BackOff {},
    /// It ended for good.
    Ended(ContainerEnd),
}

/// How a run of a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerEnd {
    /// Its status, or what a shell gives where it could not be started.
    pub status: ExitStatus,
    /// Why, where it is not the container's own doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was started, in milliseconds since 1970-01-01 UTC; none where it could not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<u64>,
    /// When it ended.
    pub ended_ms: u64,
}
