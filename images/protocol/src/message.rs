//! The messages: plain values, no I/O.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::{FileSpec, PodReport, PodSpec};

/// One message in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Host to guest, first on a connection.
    Request(Request),
    /// Guest to host: the request was carried out.
    Reply(Reply),
    /// Guest to host: the request was refused or the session failed; nothing follows.
    Error(GuestError),
    /// Host to guest: bytes for the process's standard input.
    Stdin(Vec<u8>),
    /// Host to guest: end of standard input.
    StdinEof,
    /// Guest to host: bytes of the process's standard output (of the terminal, where there is one).
    Stdout(Vec<u8>),
    /// Guest to host: bytes of the process's standard error.
    Stderr(Vec<u8>),
    /// Guest to host: this many bytes of output were dropped here, because nobody was attached to take them.
    Gap(u64),
    /// Host to guest: the terminal's new size.
    Resize(WindowSize),
    /// Host to guest: send this signal (its Linux number) to the session's process group.
    Signal(i32),
    /// Guest to host: the process ended; nothing follows.
    Exit(ExitStatus),
    /// Guest to host: what the containers do.
    Pod(PodReport),
}

/// What the host asks for when it opens a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Who are you, and what state is the workload in? Answered by [`Reply::Info`].
    Info {},
    /// Start the workload; once in a guest's life. Answered by [`Reply::Done`] when it was spawned.
    Start(WorkloadSpec),
    /// Follow the workload's output from byte `from` of all that it ever wrote (both streams counted together), and
    /// its exit. May be sent before `Start`; it waits. Answered by [`Reply::Done`], then frames. Whoever is attached
    /// is never skipped: the workload waits for the slowest reader; what nobody is there to read is kept up to a
    /// bound, then dropped from its start.
    Attach {
        /// Offset in bytes; what is gone already is told by [`Frame::Gap`].
        from: u64,
        /// This session's `Stdin` frames go to the workload.
        stdin: bool,
    },
    /// Run one more process beside the workload, in its file system. Answered by [`Reply::Done`], then frames. A host
    /// that hangs up ends the process (SIGHUP, then SIGKILL).
    Exec(ProcessSpec),
    /// Write a file of a volume before the containers start. Answered by [`Reply::Done`]; then the host sends the file's
    /// bytes as [`Frame::Stdin`] and [`Frame::StdinEof`], which is answered by [`Reply::Done`] when the file is whole.
    Write(FileSpec),
    /// Start containers, in the place of a workload; once in a guest's life, and only in one that was booted for it.
    /// Answered by [`Reply::Done`] when their supervisor runs. All requests that name no container mean the first of
    /// `containers` then, and [`Request::Signal`] all of them.
    StartPod(PodSpec),
    /// Follow what the containers do. Answered by [`Reply::Done`], then [`Frame::Pod`] at once and after each change, and
    /// [`Frame::Exit`] when all have ended for good: with status 0, or the first bad one.
    Watch {},
    /// [`Request::Attach`] to one run of a container. Runs are counted by the container's restarts. A run that is to come
    /// is waited for; in the place of one that is gone comes the first that is there. Answered by [`Reply::Run`], then
    /// frames.
    AttachTo {
        /// The container's name.
        container: String,
        /// The run's number; the present or last one where none is given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<u32>,
        /// Offset in bytes in the run `run`.
        from: u64,
        /// This session's `Stdin` frames go to the container.
        stdin: bool,
    },
    /// [`Request::Exec`] in a container that runs.
    ExecIn {
        /// The container's name.
        container: String,
        /// What to run.
        process: ProcessSpec,
    },
    /// Send a signal (its Linux number) to the workload's process group.
    Signal {
        /// For example 15, SIGTERM.
        signal: i32,
    },
    /// End the workload (SIGTERM, after the grace SIGKILL), flush and unmount, power the machine off. Answered by
    /// [`Reply::Done`] at once.
    Shutdown {
        /// How long the workload may take, in milliseconds.
        grace_ms: u64,
    },
}

/// The main process of a guest and the world around it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadSpec {
    /// The guest's host name.
    pub hostname: String,
    /// Its network, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkSetup>,
    /// What to run.
    pub process: ProcessSpec,
}

/// How a guest's interface is set up. The addresses are the guest's alone; all that is not itself lies behind the gateways,
/// which are the host's end of the link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSetup {
    /// The interface's name, such as `eth0`.
    pub interface: String,
    /// The guest's address.
    pub ipv4: Ipv4Addr,
    /// The host's.
    pub gateway4: Ipv4Addr,
    /// The guest's address of IPv6.
    pub ipv6: Ipv6Addr,
    /// The host's, on the link.
    pub gateway6: Ipv6Addr,
    /// Whom names are asked of.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
}

/// One process to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessSpec {
    /// Program and arguments; a program without a slash is searched in the environment's PATH.
    pub argv: Vec<String>,
    /// The whole environment; PID 1 adds a default PATH, HOME and (with a terminal) TERM where they are missing.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory; the root directory where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// `name`, `uid`, `name:group` or `uid:gid`, looked up in the image; root where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Run it on a terminal of this size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<WindowSize>,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub cols: u16,
}

/// A request that was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// It is done, or the stream begins.
    Done {},
    /// The answer to [`Request::Info`].
    Info(GuestInfo),
    /// The answer to [`Request::AttachTo`]: the stream is that of the run with this number.
    Run(u32),
}

/// What a guest says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestInfo {
    /// The version of PID 1.
    pub version: String,
    /// The kernel's release, as `uname -r`.
    pub kernel: String,
    /// What the workload does.
    pub workload: WorkloadState,
    /// How many bytes of output the workload has written in all.
    pub output: u64,
    /// Nanoseconds from the kernel's start to PID 1's first instruction (CLOCK_BOOTTIME).
    pub init_at_ns: u64,
}

/// The life of a guest's workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkloadState {
    /// PID 1 waits for [`Request::Start`].
    Waiting,
    /// It runs.
    Running,
    /// It ended; PID 1 keeps status and output until [`Request::Shutdown`].
    Ended(ExitStatus),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// It returned this status, 0 to 255.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
}

impl ExitStatus {
    /// The status a shell would show: the signal's number plus 128 for a process that a signal ended.
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => signal.saturating_add(128),
        }
    }
}

/// A request that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct GuestError {
    /// For programs.
    pub code: GuestErrorCode,
    /// For people: what failed, on what.
    pub message: String,
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestErrorCode {
    /// The frame or the request is not one that this guest knows.
    BadRequest,
    /// `Start` came a second time.
    AlreadyStarted,
    /// The request needs a running workload.
    NotRunning,
    /// The program does not exist in the image (a shell's status 127).
    NotFound,
    /// The program may not be executed (a shell's status 126).
    NotExecutable,
    /// The user or group does not exist in the image.
    NoSuchUser,
    /// There is no such container.
    NoSuchContainer,
    /// The guest's system refused; the message says what.
    Failed,
}
