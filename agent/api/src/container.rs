//! Several containers in one microVM: what is asked for, and what they do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::logs::LogBytes;
use crate::terminal::TerminalSize;

/// A container to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// Its name, unique in the microVM: 1 to 63 of a-z, 0-9 and `-`, no `-` at an end.
    pub name: String,
    /// The name of its image.
    pub image: String,
    /// Program and first arguments, in the place of the image's entrypoint. With it the image's command is not used either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Program and arguments (arguments alone, where there is an entrypoint); the image's command where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Joins the image's environment, and wins over it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// `name`, `uid`, `name:group` or `uid:gid`; the image's where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where it runs; the image's where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Run it on a terminal of this size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<TerminalSize>,
    /// Its standard input stays open for attach sessions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stdin: bool,
    /// Volumes in its file system.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// One that fails ends the container, and its restart policy applies. Not for an init container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness: Option<Probe>,
    /// One that fails makes the container unready. Not for an init container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Probe>,
    /// The others wait until it succeeds; one that fails ends the container. Not for an init container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup: Option<Probe>,
    /// Seconds between SIGTERM and SIGKILL where a probe ends the container.
    #[serde(default)]
    pub grace_s: u32,
}

/// A volume in a container's file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// The volume's name.
    pub volume: String,
    /// Where it is seen: an absolute path.
    pub path: String,
    /// It cannot be written there. One of files never can.
    #[serde(default)]
    pub read_only: bool,
}

/// A directory that containers may share. It is as old as the microVM's run: a restart of the microVM begins with new ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Its name, unique in the microVM: 1 to 63 of a-z, 0-9 and `-`, no `-` at an end.
    pub name: String,
    /// What it holds, and where.
    pub content: VolumeContent,
}

/// What a volume holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum VolumeContent {
    /// Nothing at first; it lies on the writable layer.
    Empty {},
    /// Nothing at first; it lies in the guest's memory.
    Memory {
        /// It takes no more than so many bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size_bytes: Option<u64>,
    },
    /// Files, in the guest's memory and nowhere else in the guest. May be secrets: they are shown to nobody.
    Files {
        /// Each file.
        files: Vec<VolumeFile>,
    },
}

/// A file of a volume.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct VolumeFile {
    /// Its path in the volume: names between slashes, none of them `.` or `..`.
    pub path: String,
    /// Its permissions: 0 to 0o777.
    pub mode: u32,
    /// Its group; 0 is root's.
    #[serde(default)]
    pub gid: u32,
    /// Its bytes.
    pub content: LogBytes,
}

impl std::fmt::Debug for VolumeFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({:o})", self.path, self.mode)
    }
}

/// How a container is asked how it is, from inside of the microVM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// What is asked.
    pub check: Check,
    /// Seconds from the container's start to the first time.
    #[serde(default)]
    pub initial_delay_s: u32,
    /// Seconds from one time to the next; at least 1.
    pub period_s: u32,
    /// Seconds that an answer may take; at least 1.
    pub timeout_s: u32,
    /// So many good answers in a row make it well; at least 1.
    pub success: u32,
    /// So many bad ones in a row make it ill; at least 1.
    pub failure: u32,
}

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Check {
    /// A program in the container ends with status 0.
    Exec {
        /// Program and arguments.
        command: Vec<String>,
    },
    /// A GET over HTTP is answered with a status from 200 to 399.
    Http {
        /// Of which address (no name); the microVM's own where none is given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host: Option<String>,
        /// Of which port.
        port: u16,
        /// Of which path, with its query.
        path: String,
        /// Name and value of headers beside the usual ones.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        headers: Vec<(String, String)>,
    },
    /// The port takes connections.
    Tcp {
        /// Of which address (no name); the microVM's own where none is given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host: Option<String>,
        /// Which port.
        port: u16,
    },
}

/// A container of a microVM, as the agent knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VmContainer {
    /// Its name.
    pub name: String,
    /// It runs to its success before those that are none such begin.
    pub init: bool,
    /// The name of its image.
    pub image: String,
    /// The image's digest when the microVM was created; it stays with that.
    pub image_digest: String,
    /// What it does.
    pub state: ContainerState,
    /// How its last run ended, where one did, and it is not what `state` says.
    pub last: Option<ContainerEnd>,
    /// How often it was started again.
    pub restarts: u32,
    /// Its probe says that it is ready, or it has none and runs; for an init container: it succeeded.
    pub ready: bool,
    /// It has come up.
    pub started: bool,
}

/// What a container does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum ContainerState {
    /// Its turn has not come.
    Waiting,
    /// It runs.
    Running {
        /// Since then, in milliseconds since 1970-01-01 UTC, by the guest's clock.
        since_ms: u64,
    },
    /// It ended, and is started again after a while.
    BackOff,
    /// It ended for good.
    Ended(ContainerEnd),
}

/// How a run of a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ContainerEnd {
    /// The status as a shell shows it, 0 to 255.
    pub code: i32,
    /// Why, where it is not the container's own doing.
    pub reason: Option<String>,
    /// When it was started, in milliseconds since 1970-01-01 UTC, by the guest's clock; none where it could not be.
    pub started_at_ms: Option<u64>,
    /// When it ended.
    pub ended_at_ms: u64,
}
