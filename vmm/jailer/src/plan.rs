//! What is done, in which order: a plain value, made from what was asked for and what the host is, before anything is
//! touched.
//!
//! The order is the safety. Everything that takes a path of the host happens first, in the host's namespaces, where it can
//! be undone; then the jail is entered, after which no path of the host exists; then limits, then rights are given up,
//! the user last of those that need rights; then the program. [`Stage`] says which part a step belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use crate::facts::Facts;
use crate::options::{Access, DEVICE_FOLDER, Device, Limit, Options};

mod cgroups;
mod error;
mod step;
mod text;

pub use error::PlanError;
pub use step::{Cgroup, Namespace, Node, Plan, Stage, Step};

#[cfg(test)]
mod tests;

/// The limits of a machine that was given none: as many descriptors as Firecracker's jailer leaves, and no core dump,
/// which would hold the guest's memory.
const DEFAULT_LIMITS: [(Limit, u64); 2] = [(Limit::NoFile, 2048), (Limit::Core, 0)];
/// The jail's root in the machine's folder.
const ROOT: &str = "root";
/// Where the VMM's process ID is found, in the machine's folder.
const PID_FILE: &str = "vmm.pid";

/// Plans the start of a VMM.
pub fn plan(options: &Options, facts: &Facts) -> Result<Plan, PlanError> {
    let (uid, gid) = (options.uid, options.gid);
    let cgroups = cgroups::cgroups(options, facts)?;
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
    steps.push(Step::DetachHost);

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
