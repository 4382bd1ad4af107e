//! What was seen of the host.

use std::path::PathBuf;

use secovia_agent_api::Health;

/// All that the checks judge.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// The caller is root: what is refused is refused to everybody.
    pub root: bool,
    /// The agent's configuration file.
    pub config: Config,
    /// `/dev/kvm`, opened for reading and writing.
    pub kvm: Access,
    /// The processor's flag for virtualization, `vmx` or `svm`.
    pub cpu_flag: Option<&'static str>,
    /// How the probe guest ran.
    pub probe: Probe,
    /// The controllers of the cgroup v2 tree; `None` where there is none.
    pub cgroup_controllers: Option<Vec<String>>,
    /// `/dev/net/tun`, opened for reading and writing.
    pub tun: Access,
    /// The programs that the agent calls, and which of them are there.
    pub tools: Vec<Tool>,
    /// The VMM, the jailer, the guest's kernel and its initial RAM disk.
    pub files: [NamedFile; 4],
    /// Where the agent keeps what outlives a reboot.
    pub state_dir: Dir,
    /// The agent's socket.
    pub socket: Socket,
    /// The host's memory in bytes: all, and what could be had now.
    pub memory: Option<(u64, u64)>,
    /// Kernel same-page merging runs.
    pub ksm: Option<bool>,
    /// Two threads share a core.
    pub smt: Option<bool>,
    /// The agent keeps microVMs off each other's cores.
    pub core_scheduling: bool,
    /// Known weaknesses of processors, by name.
    pub weaknesses: Vec<Weakness>,
    /// Whom microVMs run as.
    pub users: UserRange,
    /// Whether this host routes, where microVMs are to have a network.
    pub forwarding: Option<Forwarding>,
}

/// Whether a host passes on what is not for itself; nothing where the kernel does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forwarding {
    /// IPv4.
    pub v4: Option<bool>,
    /// IPv6.
    pub v6: Option<bool>,
}

/// A known weakness of processors, and how this host stands to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Weakness {
    /// As the kernel calls it.
    pub name: String,
    /// In the kernel's words: `Not affected`, `Mitigation: ...`, `Vulnerable...`.
    pub state: String,
}

/// A range of user ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UserRange {
    /// The first.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// Who else has some of them.
    pub taken: Vec<String>,
}

/// A configuration file.
#[derive(Debug, Clone)]
pub(super) enum Config {
    /// It was read.
    Read(PathBuf),
    /// There is none; the usual paths are taken.
    Absent(PathBuf),
    /// It cannot be read or is no TOML.
    Bad(PathBuf, String),
}

/// Whether a file could be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Access {
    /// Yes.
    Opened,
    /// It does not exist.
    Missing,
    /// Not by this user.
    Denied,
    /// Not, for this reason.
    Failed(String),
}

/// How the probe guest ran.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Probe {
    /// The VMM is not there.
    NoVmm,
    /// It could not be run, or failed; this is what it said.
    Failed(String),
    /// It ran.
    Ran {
        /// The guest ran on the processor itself.
        hardware_speed: bool,
        /// What was measured, for people.
        figures: String,
    },
}

/// A program that the agent calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tool {
    /// Its name.
    pub name: &'static str,
    /// What for.
    pub purpose: &'static str,
    /// The Debian package that has it.
    pub package: &'static str,
    /// It is in the PATH of the system.
    pub found: bool,
}

/// A file that the configuration names.
#[derive(Debug, Clone)]
pub(super) struct NamedFile {
    /// The key in the configuration.
    pub key: &'static str,
    /// Where it should be.
    pub path: PathBuf,
    /// Whether it is.
    pub state: FileState,
}

/// Whether a file is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FileState {
    /// A regular file, executable where it must be.
    Good,
    /// A program that not all may execute.
    NotExecutable,
    /// Data that not all may read.
    NotReadable,
    /// A program's path that is a symbolic link.
    ALink,
    /// Something, but no regular file.
    NotAFile,
    /// Why it cannot be looked at.
    Unreadable(String),
}

/// A directory.
#[derive(Debug, Clone)]
pub(super) struct Dir {
    /// Where.
    pub path: PathBuf,
    /// Its permission bits; `None` where it does not exist yet.
    pub mode: Option<u32>,
    /// Bytes that may still be written to its file system.
    pub free: Option<u64>,
}

/// The agent's socket.
#[derive(Debug, Clone)]
pub(super) struct Socket {
    /// Where.
    pub path: PathBuf,
    /// Its permission bits; `None` where it does not exist.
    pub mode: Option<u32>,
    /// What the agent answered: version and health, or why not.
    pub answer: Result<(String, Health), NoAnswer>,
}

/// Why the agent did not answer.
#[derive(Debug, Clone)]
pub(super) struct NoAnswer {
    /// What went wrong, with its remedy.
    pub message: String,
    /// This user may not use the socket.
    pub denied: bool,
}
