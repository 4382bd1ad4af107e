//! What is done, in which order: a plain value, made from what was asked for and what the host is, before anything is
//! touched.
//!
//! The order is the safety. Everything that takes a path of the host happens first, in the host's namespaces, where it can
//! be undone; then the jail is entered, after which no path of the host exists; then limits, then rights are given up,
//! the user last of those that need rights; then the program. [`Stage`] says which part a step belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;

use serde::Serialize;

use crate::facts::{Facts, Hierarchy};
use crate::options::{Access, CgroupVersion, DEVICE_FOLDER, Device, Limit, Name, Options};

mod text;

#[cfg(test)]
mod tests;

/// The limits of a machine that was given none: as many descriptors as Firecracker's jailer leaves, and no core dump,
/// which would hold the guest's memory.
const DEFAULT_LIMITS: [(Limit, u64); 2] = [(Limit::NoFile, 2048), (Limit::Core, 0)];
/// The jail's root in the machine's folder.
const ROOT: &str = "root";
/// Where the VMM's process ID is found, in the machine's folder.
const PID_FILE: &str = "vmm.pid";

/// Where and as whom a step is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// On the host; what it makes is unmade where a later step fails.
    Host,
    /// In the new namespaces; gone with the process that is in them.
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
    /// Make the jail's root the root, and let go of all else.
    EnterRoot,
    /// Call the host by the machine's name.
    SetHostName {
        /// The name.
        name: String,
    },
    /// Start the process that becomes the VMM, as process 1 of a PID namespace and a child of this process's parent; write
    /// down its ID before it goes on.
    Spawn {
        /// The file in the machine's folder.
        pid_file: PathBuf,
        /// The cgroup that it starts in, where that can be said here.
        cgroup: Option<PathBuf>,
    },
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
            Self::HoldSignals
            | Self::SetUmask
            | Self::CloseDescriptors { .. }
            | Self::OpenFile { .. }
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
            | Self::Spawn { .. } => Stage::Jail,
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

/// Why there is no plan: the host has not what was asked for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A device is not there.
    #[error("/dev/{0}: not on this host; load the kernel module that provides it, or do without")]
    NoDevice(&'static str),
    /// There are no cgroups of this version.
    #[error(
        "--cgroup-version 2: no cgroup2 file system is mounted; mount one on /sys/fs/cgroup, or give --cgroup-version 1"
    )]
    NoUnified,
    /// A controller has no hierarchy.
    #[error(
        "--cgroup {0}: no hierarchy of version 1 has its controller; mount one, or give --cgroup-version 2 where the host has that"
    )]
    NoController(String),
    /// In version 1 a controller's files say which hierarchies are meant.
    #[error(
        "--parent-cgroup: with cgroups of version 1 it means nothing without --cgroup; give both or none"
    )]
    NothingToSet,
}

/// Plans the start of a VMM.
pub fn plan(options: &Options, facts: &Facts) -> Result<Plan, PlanError> {
    let (uid, gid) = (options.uid, options.gid);
    let cgroups = cgroups(options, facts)?;
    let jails = options.chroot_base.join(options.exec_name.as_str());
    let folder = jails.join(options.id.as_str());
    let root = folder.join(ROOT);
    let pid_file = folder.join(PID_FILE);
    let files = || {
        let program = (&options.exec_file, &options.exec_name, Access::Execute);
        let grants = options.files.iter();
        std::iter::once(program).chain(grants.map(|file| (&file.source, &file.name, file.access)))
    };

    let keep = options.keep_fds.clone();
    let mut steps = vec![Step::HoldSignals, Step::SetUmask, Step::CloseDescriptors { keep }];
    steps.extend(files().map(|(source, name, access)| Step::OpenFile {
        source: source.clone(),
        name: name.clone(),
        access,
        uid,
        gid,
    }));
    steps.extend(options.netns.clone().map(|path| Step::OpenNetwork { path }));
    steps.extend(options.daemonize.then_some(Step::OpenNull));
    steps.extend([&options.chroot_base, &jails, &folder].map(|path| Step::MakeFolder { path: path.clone() }));
    steps.push(Step::Claim {
        path: folder,
        pid_file: PID_FILE,
    });
    steps.push(Step::MakeRoot { path: root, uid, gid });
    steps.extend(files().map(|(_, name, _)| Step::MakePlace {
        name: name.as_str().into(),
        folder: false,
    }));
    steps.push(Step::MakePlace {
        name: DEVICE_FOLDER.into(),
        folder: true,
    });
    let nodes = nodes(options, facts)?;
    steps.push(Step::MakeDevices { nodes, uid, gid });
    steps.extend(cgroups.make);
    if !options.new_pid_ns {
        let path = pid_file.clone();
        steps.push(Step::RecordPid { path });
    }

    let mut kinds = BTreeSet::from([Namespace::Mount, Namespace::Ipc, Namespace::Uts]);
    if options.netns.is_none() {
        kinds.insert(Namespace::Network);
    }
    steps.push(Step::NewNamespaces { kinds });
    steps.extend(options.netns.clone().map(|path| Step::JoinNetwork { path }));
    steps.extend([Step::PrivateMounts, Step::MountRoot]);
    steps.extend(files().map(|(_, name, access)| Step::MountFile {
        name: name.clone(),
        access,
    }));
    steps.push(Step::MountDevices { name: DEVICE_FOLDER });
    steps.push(Step::EnterRoot);
    steps.push(Step::SetHostName {
        name: options.id.as_str().into(),
    });
    let mut join = cgroups.join;
    if options.new_pid_ns {
        let cgroup = cgroups.unified.then(|| join.pop()).flatten();
        let cgroup = cgroup.map(|(folder, _)| folder);
        steps.push(Step::Spawn { pid_file, cgroup });
    }

    steps.extend(
        join.into_iter()
            .map(|(folder, home)| Step::JoinCgroup { folder, home }),
    );
    steps.push(Step::NewCgroupNamespace);
    steps.extend(limits(options).map(|(limit, value)| Step::SetLimit { limit, value }));
    steps.extend([
        Step::NewKeyring,
        Step::DropBoundingSet,
        Step::SetGroup { gid },
        Step::SetUser { uid },
        Step::DropCapabilities,
        Step::NoNewPrivileges,
    ]);
    steps.extend(options.daemonize.then_some(Step::Daemonize));
    steps.push(Step::Exec {
        program: format!("/{}", options.exec_name.as_str()),
        arguments: arguments(options),
    });
    Ok(Plan { steps })
}

/// The VMM's arguments: its name first, as Firecracker's jailer gives it, unless they say it themselves.
fn arguments(options: &Options) -> Vec<OsString> {
    let named = options
        .vmm_args
        .iter()
        .any(|argument| argument == "--id" || argument.as_encoded_bytes().starts_with(b"--id="));
    let name = ["--id", options.id.as_str()].map(OsString::from);
    let name = name.into_iter().filter(|_| !named);
    name.chain(options.vmm_args.iter().cloned()).collect()
}

/// What was asked for, and the rest by default.
fn limits(options: &Options) -> impl Iterator<Item = (Limit, u64)> {
    let mut limits = BTreeMap::from(DEFAULT_LIMITS);
    limits.extend(options.limits.iter().copied());
    limits.into_iter()
}

fn nodes(options: &Options, facts: &Facts) -> Result<Vec<Node>, PlanError> {
    let node = |device: &Device| {
        let (major, minor) = *facts
            .devices
            .get(device)
            .ok_or(PlanError::NoDevice(device.path()))?;
        Ok(Node {
            device: *device,
            major,
            minor,
        })
    };
    options.devices.iter().map(node).collect()
}

/// The steps for cgroups.
#[derive(Default)]
struct CgroupSteps {
    /// Making and setting them.
    make: Vec<Step>,
    /// The folders to join, each with where this process is now.
    join: Vec<(PathBuf, PathBuf)>,
    /// Whether there is one hierarchy, into which a process can be born.
    unified: bool,
}

fn cgroups(options: &Options, facts: &Facts) -> Result<CgroupSteps, PlanError> {
    if options.cgroups.is_empty() && options.parent_cgroup.is_none() {
        return Ok(CgroupSteps::default());
    }
    let default = if facts.controllers.is_empty() {
        CgroupVersion::V2
    } else {
        CgroupVersion::V1
    };
    let version = options.cgroup_version.unwrap_or(default);
    let parent = options
        .parent_cgroup
        .clone()
        .unwrap_or_else(|| options.exec_name.as_str().into());
    let mut made = Made {
        version,
        path: parent.join(options.id.as_str()),
        cgroups: Vec::new(),
    };
    let mut set = Vec::new();
    if version == CgroupVersion::V2 {
        made.folder(facts.unified.as_ref().ok_or(PlanError::NoUnified)?, None);
    }
    for setting in &options.cgroups {
        let hierarchy = match version {
            CgroupVersion::V2 => facts.unified.as_ref(),
            CgroupVersion::V1 => setting
                .controller
                .as_ref()
                .and_then(|controller| facts.controllers.get(controller)),
        };
        let hierarchy = hierarchy.ok_or_else(|| PlanError::NoController(setting.file.clone()))?;
        set.push(Step::SetCgroup {
            folder: made.folder(hierarchy, setting.controller.as_ref()),
            file: setting.file.clone(),
            value: setting.value.clone(),
        });
    }
    if made.cgroups.is_empty() {
        return Err(PlanError::NothingToSet);
    }
    let join = made
        .cgroups
        .iter()
        .map(|(hierarchy, cgroup)| (cgroup.folder(), hierarchy.home.clone()));
    let join = join.collect();
    let mut make: Vec<Step> = made
        .cgroups
        .into_iter()
        .map(|(_, cgroup)| Step::MakeCgroup(cgroup))
        .collect();
    make.extend(set);
    Ok(CgroupSteps {
        make,
        join,
        unified: version == CgroupVersion::V2,
    })
}

/// The machine's cgroups: one for each hierarchy, in the order in which they are first named.
struct Made<'a> {
    version: CgroupVersion,
    path: PathBuf,
    cgroups: Vec<(&'a Hierarchy, Cgroup)>,
}

impl<'a> Made<'a> {
    /// The folder of the cgroup in this hierarchy, which gets this controller.
    fn folder(&mut self, hierarchy: &'a Hierarchy, controller: Option<&String>) -> PathBuf {
        let known = self.cgroups.iter().position(|(known, _)| *known == hierarchy);
        let index = known.unwrap_or_else(|| {
            let cgroup = Cgroup {
                version: self.version,
                mount: hierarchy.mount.clone(),
                path: self.path.clone(),
                controllers: BTreeSet::new(),
            };
            self.cgroups.push((hierarchy, cgroup));
            self.cgroups.len() - 1
        });
        let (_, cgroup) = &mut self.cgroups[index];
        cgroup.controllers.extend(controller.cloned());
        cgroup.folder()
    }
}
