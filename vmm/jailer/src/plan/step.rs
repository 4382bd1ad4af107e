//! The steps that a plan is made of.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use serde::Serialize;

use crate::options::{Access, CgroupVersion, Device, Limit, Name};

/// Where and as whom a step is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// In this process, before anything else runs in it.
    Process,
    /// On the host; what it makes is unmade where a later step fails.
    Host,
    /// In the new namespaces, which are made while the host's steps are done, since that takes long; gone with the process that is in them.
    Jail,
    /// In the process that becomes the VMM.
    Vmm,
}

/// A namespace that the VMM has for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Namespace {
    /// Mounts.
    Mount,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host and domain name.
    Uts,
    /// Network interfaces, ports, routes, rules.
    Network,
}

/// A device node of the jail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Which device.
    pub device: Device,
    /// Its driver's number.
    pub major: u32,
    /// Its own number.
    pub minor: u32,
}

/// A cgroup of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cgroup {
    /// Which kind it is.
    pub version: CgroupVersion,
    /// Where its hierarchy is mounted.
    pub mount: PathBuf,
    /// Where it is in the hierarchy.
    pub path: PathBuf,
    /// The controllers that it has to have.
    pub controllers: BTreeSet<String>,
}

impl Cgroup {
    /// Its folder.
    pub fn folder(&self) -> PathBuf {
        self.mount.join(&self.path)
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// Hold signals back until the VMM runs, so that none leaves half a jail behind.
    HoldSignals,
    /// Make files for their owner alone, here and in the VMM (umask 077).
    SetUmask,
    /// Close every descriptor but the standard streams and these.
    CloseDescriptors {
        /// What stays open.
        keep: BTreeSet<i32>,
    },
    /// Open a file without following a symbolic link, check it, and take a mount of it alone in hand.
    OpenFile {
        /// Where it is on the host.
        source: PathBuf,
        /// What it will be called.
        name: Name,
        /// What the VM may do with it.
        access: Access,
        /// The VM's user: can read it, and owns it where it is written.
        uid: u32,
        /// The VM's group.
        gid: u32,
    },
    /// Open a network namespace.
    OpenNetwork {
        /// Its file.
        path: PathBuf,
    },
    /// Open `/dev/null` for the standard streams.
    OpenNull,
    /// Make a folder of root's where there is none; no symbolic link, nobody else's.
    MakeFolder {
        /// Where.
        path: PathBuf,
    },
    /// Lock the machine's folder, the last that was made, and see that no VMM of this jail runs.
    Claim {
        /// The folder.
        path: PathBuf,
        /// Where the VMM's process ID is, if there was one.
        pid_file: &'static str,
    },
    /// Make the jail's root in the machine's folder, and take a mount of it alone in hand.
    MakeRoot {
        /// Where.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// Make an empty file or folder in the jail's root, to mount something on.
    MakePlace {
        /// What it is called.
        name: String,
        /// Whether it is a folder.
        folder: bool,
    },
    /// Make device nodes in a file system of their own.
    MakeDevices {
        /// Which.
        nodes: Vec<Node>,
        /// Their owner.
        uid: u32,
        /// Their group.
        gid: u32,
    },
    /// Make the machine's cgroup.
    MakeCgroup(Cgroup),
    /// Write a file of the machine's cgroup.
    SetCgroup {
        /// The cgroup's folder.
        folder: PathBuf,
        /// The file.
        file: String,
        /// What is written.
        value: String,
    },
    /// Write down this process's ID, which is the VMM's.
    RecordPid {
        /// The file in the machine's folder.
        path: PathBuf,
    },
    /// Leave the host's namespaces.
    NewNamespaces {
        /// For new ones of these kinds.
        kinds: BTreeSet<Namespace>,
    },
    /// Enter the network namespace that was opened.
    JoinNetwork {
        /// Its file.
        path: PathBuf,
    },
    /// Cut the copies of the host's mounts off from the host's.
    PrivateMounts,
    /// Mount the jail's root.
    MountRoot,
    /// Mount a file that was opened, on its place.
    MountFile {
        /// What it is called.
        name: Name,
        /// What the VM may do with it.
        access: Access,
    },
    /// Mount the devices.
    MountDevices {
        /// The folder in the jail's root.
        name: &'static str,
    },
    /// Make the jail's root the root.
    EnterRoot,
    /// Call the host by the machine's name.
    SetHostName {
        /// The name.
        name: String,
    },
    /// Start the process that becomes the VMM, as process 1 of a PID namespace and a child of this process's parent; write
    /// down its ID and do the jail's last steps before it runs the VMM.
    Spawn {
        /// The file in the machine's folder.
        pid_file: PathBuf,
        /// The cgroup that it starts in, where that can be said here.
        cgroup: Option<PathBuf>,
    },
    /// Let go of everything that is mounted on the host. Waits for all who read the kernel's tables of mounts, so that it comes
    /// last: the process that becomes the VMM gives its rights up meanwhile.
    DetachHost,
    /// Enter the machine's cgroup.
    JoinCgroup {
        /// Its folder.
        folder: PathBuf,
        /// Where this process is now; it goes back where a later step fails.
        home: PathBuf,
    },
    /// See the machine's cgroup as the root of all cgroups.
    NewCgroupNamespace,
    /// Limit a resource of the process.
    SetLimit {
        /// Which.
        limit: Limit,
        /// Soft and hard.
        value: u64,
    },
    /// Leave the caller's keys.
    NewKeyring,
    /// Take every capability out of what can be had again.
    DropBoundingSet,
    /// Leave every group, and be in the VM's.
    SetGroup {
        /// The VM's group.
        gid: u32,
    },
    /// Be the VM's user.
    SetUser {
        /// The VM's user.
        uid: u32,
    },
    /// Give up every capability.
    DropCapabilities,
    /// Never get more rights by running a program.
    NoNewPrivileges,
    /// Leave the session and the terminal.
    Daemonize,
    /// Run the VMM with no environment.
    Exec {
        /// The program in the jail.
        program: String,
        /// Its arguments.
        #[serde(serialize_with = "lossy")]
        arguments: Vec<OsString>,
    },
}

/// Arguments need not be Unicode; a printed plan is for reading.
fn lossy<S: serde::Serializer>(arguments: &[OsString], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(arguments.iter().map(|argument| argument.to_string_lossy()))
}

impl Step {
    /// Where it is done.
    pub fn stage(&self) -> Stage {
        match self {
            Self::HoldSignals | Self::SetUmask | Self::CloseDescriptors { .. } => Stage::Process,
            Self::OpenFile { .. }
            | Self::OpenNetwork { .. }
            | Self::OpenNull
            | Self::MakeFolder { .. }
            | Self::Claim { .. }
            | Self::MakeRoot { .. }
            | Self::MakePlace { .. }
            | Self::MakeDevices { .. }
            | Self::MakeCgroup(_)
            | Self::SetCgroup { .. }
            | Self::RecordPid { .. } => Stage::Host,
            Self::NewNamespaces { .. }
            | Self::JoinNetwork { .. }
            | Self::PrivateMounts
            | Self::MountRoot
            | Self::MountFile { .. }
            | Self::MountDevices { .. }
            | Self::EnterRoot
            | Self::SetHostName { .. }
            | Self::Spawn { .. }
            | Self::DetachHost => Stage::Jail,
            Self::JoinCgroup { .. }
            | Self::NewCgroupNamespace
            | Self::SetLimit { .. }
            | Self::NewKeyring
            | Self::DropBoundingSet
            | Self::SetGroup { .. }
            | Self::SetUser { .. }
            | Self::DropCapabilities
            | Self::NoNewPrivileges
            | Self::Daemonize
            | Self::Exec { .. } => Stage::Vmm,
        }
    }
}

/// All steps, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Sorted by [`Stage`].
    pub steps: Vec<Step>,
}
