//! Steps in the process that becomes the VMM: where it is limited, and gives its rights up.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Resource, Rlimit};
use rustix::stdio;
use rustix::thread::{self, CapabilitySet, CapabilitySets, Gid, Uid};

use super::cgroups;
use super::error::{Problem, StepError};
use super::held::{Held, need};
use crate::options::Limit;
use crate::plan::Step;
use crate::sys;

/// One more than the highest capability that there can be.
const CAPABILITIES: u32 = 64;

/// Does the steps, the last of which replaces this program. That one waits for leave, where `wait` says whether it was
/// given. Comes back where one fails.
pub(super) fn become_it(steps: &[&Step], held: &mut Held, wait: impl FnOnce() -> bool) -> StepError {
    let mut errors = None;
    let mut wait = Some(wait);
    for step in steps {
        if matches!(step, Step::Exec { .. })
            && let Some(wait) = wait.take()
            && !wait()
        {
            return StepError::told("the jailer has ended".into());
        }
        if let Err(problem) = apply(step, held, &mut errors) {
            // What is said of it should be read.
            if let Some(errors) = &errors {
                let _ = stdio::dup2_stderr(errors);
            }
            return StepError::new(step, &problem);
        }
    }
    StepError::told("the plan has no program to run; report this".into())
}

/// One step; `errors` gets a copy of the standard error stream before that is cut off.
fn apply(step: &Step, held: &mut Held, errors: &mut Option<OwnedFd>) -> Result<(), Problem> {
    let needs_root = "the jailer has to be root with all capabilities";
    match step {
        Step::JoinCgroup { folder, home } => cgroups::join(folder, home, held),
        Step::NewCgroupNamespace => sys::unshare(libc::CLONE_NEWCGROUP)
            .map_err(Problem::os("the kernel has to have cgroup namespaces")),
        Step::SetLimit { limit, value } => set_limit(*limit, *value),
        Step::NewKeyring => {
            sys::new_keyring().map_err(Problem::os("the kernel has to have room for a keyring"))
        }
        Step::DropBoundingSet => {
            for bit in 0..CAPABILITIES {
                let capability = CapabilitySet::from_bits_retain(1 << bit);
                match thread::remove_capability_from_bounding_set(capability) {
                    Ok(()) => (),
                    // The kernel has no more.
                    Err(Errno::INVAL) => break,
                    Err(error) => return Err(Problem::os(needs_root)(error)),
                }
            }
            Ok(())
        }
        Step::SetGroup { gid } => {
            let gid = Gid::from_raw(*gid);
            thread::set_thread_groups(&[]).map_err(Problem::os(needs_root))?;
            thread::set_thread_res_gid(gid, gid, gid).map_err(Problem::os(needs_root))
        }
        Step::SetUser { uid } => {
            let uid = Uid::from_raw(*uid);
            thread::set_thread_res_uid(uid, uid, uid).map_err(Problem::os(needs_root))
        }
        Step::DropCapabilities => {
            let none = CapabilitySet::empty();
            let sets = CapabilitySets {
                effective: none,
                permitted: none,
                inheritable: none,
            };
            thread::set_capabilities(None, sets).map_err(Problem::os("report this"))?;
            thread::clear_ambient_capability_set().map_err(Problem::os("Linux 5.14 or newer is needed"))
        }
        Step::NoNewPrivileges => {
            thread::set_no_new_privs(true).map_err(Problem::os("Linux 5.14 or newer is needed"))
        }
        Step::Daemonize => daemonize(need(held.null.as_ref())?, errors),
        Step::Exec { program, arguments } => {
            // A signal that was held back ends this process now, as it would end the VMM a moment later.
            sys::hold_signals(false).map_err(Problem::os("report this"))?;
            // Gives SIGPIPE its default back, which this program ignores.
            let error = Command::new(program).args(arguments).env_clear().exec();
            Err(Problem::os("give a static program with arguments that fit")(
                error,
            ))
        }
        _ => Err(Problem::new("this is no step of the VMM", "report this")),
    }
}

fn set_limit(limit: Limit, value: u64) -> Result<(), Problem> {
    let resource = match limit {
        Limit::Fsize => Resource::Fsize,
        Limit::NoFile => Resource::Nofile,
        Limit::Core => Resource::Core,
        Limit::Memlock => Resource::Memlock,
        Limit::Nproc => Resource::Nproc,
        Limit::As => Resource::As,
    };
    let both = Rlimit {
        current: Some(value),
        maximum: Some(value),
    };
    rustix::process::setrlimit(resource, both).map_err(Problem::os(
        "give a value that is not above the caller's own limit",
    ))
}

/// Leaves session and terminal.
fn daemonize(null: &OwnedFd, errors: &mut Option<OwnedFd>) -> Result<(), Problem> {
    new_session()?;
    let closed = "the standard streams have to be open";
    *errors = Some(fcntl_dupfd_cloexec(stdio::stderr().as_fd(), 3).map_err(Problem::os(closed))?);
    stdio::dup2_stdin(null).map_err(Problem::os(closed))?;
    stdio::dup2_stdout(null).map_err(Problem::os(closed))?;
    stdio::dup2_stderr(null).map_err(Problem::os(closed))
}

/// The leader of a process group, as which a shell starts every job, can start no session. It joins its parent's group
/// first; one that leads its session already has what it needs.
fn new_session() -> Result<(), Problem> {
    use rustix::process::{getpgid, getpid, getppid, getsid, setpgid, setsid};
    let own = getpid();
    if setsid().is_ok() || getsid(None) == Ok(own) {
        return Ok(());
    }
    let group = getpgid(getppid()).map_err(Problem::os("start it with setsid(1)"))?;
    setpgid(Some(own), Some(group)).map_err(Problem::os("start it with setsid(1)"))?;
    setsid().map(drop).map_err(Problem::os("start it with setsid(1)"))
}
