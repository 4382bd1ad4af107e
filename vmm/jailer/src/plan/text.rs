//! A plan as a person reads it.

use std::fmt::{self, Display, Formatter};

use super::step::{Namespace, Plan, Stage, Step};
use crate::options::Access;

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut last = None;
        for (number, step) in self.steps.iter().enumerate() {
            let stage = step.stage();
            if last.replace(stage) != Some(stage) {
                writeln!(f, "{stage}:")?;
            }
            writeln!(f, "{:>4}. {step}", number + 1)?;
        }
        Ok(())
    }
}

impl Display for Stage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Process => "in this process",
            Self::Host => "on the host, undone where a step fails",
            Self::Jail => "in the jail's namespaces",
            Self::Vmm => "in the process that becomes the VMM",
        })
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::HoldSignals => f.write_str("hold signals back until the VMM runs"),
            Self::SetUmask => f.write_str("make files for their owner alone (umask 077)"),
            Self::CloseDescriptors { keep } => {
                f.write_str("close all descriptors but 0, 1, 2")?;
                keep.iter().try_for_each(|fd| write!(f, ", {fd}"))
            }
            Self::OpenFile {
                source,
                name,
                access,
                uid,
                gid,
            } => {
                let (source, name) = (source.display(), name.as_str());
                match access {
                    Access::Read => write!(f, "open {source}, to be read as /{name} by user {uid}"),
                    Access::Write => write!(
                        f,
                        "open {source}, to be written as /{name}, and hand it to user {uid}, group {gid}"
                    ),
                    Access::Execute => write!(f, "open {source}, to be run as /{name} by user {uid}"),
                }
            }
            Self::OpenNetwork { path } => write!(f, "open the network namespace {}", path.display()),
            Self::OpenNull => f.write_str("open /dev/null"),
            Self::MakeFolder { path } => write!(f, "make the folder {}, or take it", path.display()),
            Self::Claim { path, pid_file } => write!(
                f,
                "lock {}; no process that {pid_file} names runs in it",
                path.display()
            ),
            Self::MakeRoot { path, uid, gid } => write!(
                f,
                "make the jail's root {}, or take it: user {uid}, group {gid}, mode 0700",
                path.display()
            ),
            Self::MakePlace { name, folder: false } => write!(f, "make the empty file {name} in it"),
            Self::MakePlace { name, folder: true } => write!(f, "make the empty folder {name} in it"),
            Self::MakeDevices { nodes, uid, gid } => {
                f.write_str("make device nodes:")?;
                for node in nodes {
                    write!(f, " {} ({}, {})", node.device.path(), node.major, node.minor)?;
                }
                write!(f, ": user {uid}, group {gid}, mode 0600")
            }
            Self::MakeCgroup(cgroup) => {
                write!(f, "make the cgroup {}", cgroup.folder().display())?;
                if !cgroup.controllers.is_empty() {
                    f.write_str(" with")?;
                }
                cgroup
                    .controllers
                    .iter()
                    .try_for_each(|name| write!(f, " {name}"))
            }
            Self::SetCgroup { folder, file, value } => {
                write!(f, "write {value:?} to {}", folder.join(file).display())
            }
            Self::RecordPid { path } => write!(f, "write this process's ID to {}", path.display()),
            Self::NewNamespaces { kinds } => {
                f.write_str("enter new namespaces:")?;
                kinds.iter().try_for_each(|kind| write!(f, " {kind}"))
            }
            Self::JoinNetwork { path } => write!(f, "join the network namespace {}", path.display()),
            Self::PrivateMounts => f.write_str("cut all mounts off from the host's"),
            Self::MountRoot => f.write_str("mount the jail's root: nosuid, nodev, noexec"),
            Self::MountFile { name, access } => {
                let options = match access {
                    Access::Read => "read-only, nosuid, nodev, noexec",
                    Access::Write => "nosuid, nodev, noexec",
                    Access::Execute => "read-only, nosuid, nodev",
                };
                write!(f, "mount /{}: {options}", name.as_str())
            }
            Self::MountDevices { name } => write!(f, "mount /{name}: read-only, nosuid, noexec"),
            Self::EnterRoot => f.write_str("make the jail's root the root"),
            Self::SetHostName { name } => write!(f, "set the host name to {name}"),
            Self::Spawn { pid_file, cgroup } => {
                f.write_str("start process 1 of a new PID namespace, a child of this process's parent")?;
                if let Some(cgroup) = cgroup {
                    write!(f, ", in the cgroup {}", cgroup.display())?;
                }
                write!(
                    f,
                    "; write its ID to {}, then let it run the VMM",
                    pid_file.display()
                )
            }
            Self::DetachHost => f.write_str("detach the host's root with all that is mounted there"),
            Self::JoinCgroup { folder, .. } => write!(f, "join the cgroup {}", folder.display()),
            Self::NewCgroupNamespace => f.write_str("enter a new cgroup namespace"),
            Self::SetLimit { limit, value } => write!(f, "limit {} to {value}", limit.name()),
            Self::NewKeyring => f.write_str("join a new session keyring"),
            Self::DropBoundingSet => f.write_str("empty the capability bounding set"),
            Self::SetGroup { gid } => write!(f, "leave all groups, become group {gid}"),
            Self::SetUser { uid } => write!(f, "become user {uid}"),
            Self::DropCapabilities => f.write_str("drop all capabilities"),
            Self::NoNewPrivileges => f.write_str("set no_new_privs"),
            Self::Daemonize => f.write_str("start a session, standard streams from and to /dev/null"),
            Self::Exec { program, arguments } => {
                write!(f, "run {program} with an empty environment:")?;
                arguments
                    .iter()
                    .try_for_each(|argument| write!(f, " {}", argument.to_string_lossy()))
            }
        }
    }
}

impl Display for Namespace {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mount => "mount",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Network => "network",
        })
    }
}
