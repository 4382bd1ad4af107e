//! Steps in the jail's namespaces: the thread that leaves the host.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::MutexGuard;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::error::{Problem, StepError};
use super::held::{Held, need};
use super::{folders, mounts, vmm};
use crate::plan::{Namespace, Step};
use crate::sys;

/// Does the steps of the jail, then those of the VMM: here, so that this process becomes the VMM, or in a new process.
/// Comes back only where one fails, or where the new process runs. `wait` ends when the host's steps do.
pub(super) fn enter<'a>(
    jail: &[&Step],
    last: &[&Step],
    wait: impl FnOnce() -> MutexGuard<'a, Held>,
) -> Result<(), StepError> {
    let away = jail
        .iter()
        .position(|step| !matches!(step, Step::NewNamespaces { .. }));
    let (away, jail) = jail.split_at(away.unwrap_or(jail.len()));
    let mut nothing = Held::default();
    let left = all(away, &mut nothing);
    let mut held = wait();
    left?;
    if !held.complete {
        return Err(StepError::told(
            "the host's steps are not done; report this".into(),
        ));
    }
    let spawns = jail.iter().position(|step| matches!(step, Step::Spawn { .. }));
    let (first, rest) = jail.split_at(spawns.unwrap_or(jail.len()));
    all(first, &mut held)?;
    match rest.split_first() {
        Some((spawning, rest)) => spawn(spawning, rest, last, &mut held),
        None => Err(vmm::become_it(last, &mut held, || true)),
    }
}

fn all(steps: &[&Step], held: &mut Held) -> Result<(), StepError> {
    for step in steps {
        apply(step, held).map_err(|problem| StepError::new(step, &problem))?;
    }
    Ok(())
}

fn apply(step: &Step, held: &mut Held) -> Result<(), Problem> {
    match step {
        Step::NewNamespaces { kinds } => sys::unshare(bits(kinds)).map_err(Problem::os(
            "the kernel has to have these namespaces, and room for more",
        )),
        Step::JoinNetwork { .. } => {
            let network = need(held.network.as_ref())?;
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(Problem::os("give the file of a network namespace"))
        }
        Step::PrivateMounts => mounts::make_private(),
        Step::MountRoot => mounts::attach_root(need(held.root_mount.as_ref())?),
        Step::MountFile { name, .. } => {
            let file = need(held.files.get(name.as_str()))?;
            mounts::attach(file, need(held.root_mount.as_ref())?, name.as_str())
        }
        Step::MountDevices { name } => {
            let devices = need(held.devices.as_ref())?;
            mounts::attach(devices, need(held.root_mount.as_ref())?, name)
        }
        Step::EnterRoot => mounts::enter(need(held.root_mount.as_ref())?),
        Step::SetHostName { name } => {
            let remedy = "give another --id";
            rustix::system::sethostname(name.as_bytes()).map_err(Problem::os(remedy))?;
            rustix::system::setdomainname(b"").map_err(Problem::os(remedy))
        }
        Step::DetachHost => mounts::detach_host(),
        _ => Err(Problem::new("this is no step of the jail", "report this")),
    }
}

fn bits(kinds: &BTreeSet<Namespace>) -> libc::c_int {
    kinds.iter().fold(0, |bits, kind| {
        bits | match kind {
            Namespace::Mount => libc::CLONE_NEWNS,
            Namespace::Ipc => libc::CLONE_NEWIPC,
            Namespace::Uts => libc::CLONE_NEWUTS,
            Namespace::Network => libc::CLONE_NEWNET,
        }
    })
}

/// Starts the process that becomes the VMM, does the rest of the jail's steps while that prepares itself, and waits until
/// it is the VMM.
fn spawn(step: &Step, rest: &[&Step], last: &[&Step], held: &mut Held) -> Result<(), StepError> {
    let problem = |problem: Problem| StepError::new(step, &problem);
    let Step::Spawn { pid_file, cgroup } = step else {
        return Err(problem(Problem::new("it starts no process", "report this")));
    };
    let many = "close some descriptors";
    let (go, let_go) = pipe().map_err(Problem::os(many)).map_err(problem)?;
    let (told, tell) = pipe().map_err(Problem::os(many)).map_err(problem)?;
    let cgroup = cgroup.as_ref().map(|folder| need(held.cgroups.get(folder)));
    let cgroup = cgroup.transpose().map_err(problem)?;
    let cgroup = cgroup.map(OwnedFd::try_clone).transpose();
    let cgroup = cgroup.map_err(Problem::os(many)).map_err(problem)?;
    let (mut ours, mut theirs) = (Some((let_go, told)), Some((go, tell)));
    // The main thread waits for this one and is nowhere near the allocator.
    let child = sys::spawn_sibling(cgroup.as_ref().map(AsFd::as_fd), || {
        // The copies of this process's ends: were they open there, the child would wait for itself where this process is
        // killed.
        drop(ours.take());
        if let Some((go, tell)) = theirs.take() {
            child(go, tell, last, held);
        }
    });
    let pid = child
        .map_err(Problem::os(
            "the kernel has to have PID namespaces and cgroups as asked for, and room for a process",
        ))
        .map_err(problem)?;
    drop(theirs);
    let (mut let_go, mut told) =
        ours.ok_or_else(|| problem(Problem::new("its pipes are gone", "report this")))?;
    // Where this fails the other end closes, and the child ends.
    folders::record_pid(pid, pid_file, held).map_err(problem)?;
    all(rest, held)?;
    let goes = let_go.write_all(&[1]);
    // Ends when the program runs, since the other end does not outlive that.
    let mut text = String::new();
    match (told.read_to_string(&mut text), goes) {
        (Ok(0), Ok(())) => Ok(()),
        (Ok(0), Err(_)) => Err(StepError::told(format!(
            "{step}: the process ended at once; see the host's kernel log"
        ))),
        _ => {
            let mut error = StepError::told(text);
            error.add(&format!(
                "process {pid} has ended, and waits for its parent, which is the jailer's"
            ));
            Err(error)
        }
    }
}

fn pipe() -> rustix::io::Result<(File, File)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((read.into(), write.into()))
}

/// The new process: becomes the VMM once its ID is written down and its jail is closed.
fn child(mut go: File, mut tell: File, last: &[&Step], held: &mut Held) {
    let error = vmm::become_it(last, held, || go.read_exact(&mut [0]).is_ok());
    // Where nobody listens any more nobody is left to tell.
    let _ = tell.write_all(error.to_string().as_bytes());
}
