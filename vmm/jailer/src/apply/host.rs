//! Steps on the host.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{self, CWD, Mode, OFlags};

use super::error::Problem;
use super::held::Held;
use super::{cgroups, files, folders, mounts};
use crate::plan::Step;
use crate::sys;

/// `f_type` of a namespace's file (linux/magic.h).
const NSFS_MAGIC: i64 = 0x6e73_6673;
/// The first descriptor that is no standard stream.
const FIRST: i32 = 3;

pub(super) fn apply(step: &Step, held: &mut Held) -> Result<(), Problem> {
    match step {
        Step::HoldSignals => sys::hold_signals(true).map_err(Problem::os("report this")),
        Step::SetUmask => {
            rustix::process::umask(Mode::RWXG | Mode::RWXO);
            Ok(())
        }
        Step::CloseDescriptors { keep } => close(keep.iter().copied()),
        Step::OpenFile {
            source,
            name,
            access,
            uid,
            gid,
        } => {
            let mount = files::open(source, *access, (*uid, *gid), &mut held.undo)?;
            held.files.insert(name.as_str().into(), mount);
            Ok(())
        }
        Step::OpenNetwork { path } => {
            held.network = Some(network(path)?);
            Ok(())
        }
        Step::OpenNull => {
            let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let null = fs::openat(CWD, "/dev/null", flags, Mode::empty());
            held.null = Some(null.map_err(Problem::os("the host has to have it"))?);
            Ok(())
        }
        Step::MakeFolder { path } => folders::make(path, held),
        Step::Claim { pid_file, .. } => folders::claim(pid_file, held),
        Step::MakeRoot { uid, gid, .. } => folders::make_root(*uid, *gid, held),
        Step::MakePlace { name, folder } => folders::make_place(name, *folder, held),
        Step::MakeDevices { nodes, uid, gid } => {
            held.devices = Some(mounts::devices(nodes, (*uid, *gid))?);
            Ok(())
        }
        Step::MakeCgroup(cgroup) => cgroups::make(cgroup, held),
        Step::SetCgroup { folder, file, value } => cgroups::set(folder, file, value, held),
        Step::RecordPid { path } => {
            let pid = rustix::process::getpid().as_raw_nonzero().get();
            folders::record_pid(pid, path, held)
        }
        _ => Err(Problem::new("this is no step on the host", "report this")),
    }
}

/// Closes all but the standard streams and `keep`, which is in order.
fn close(keep: impl Iterator<Item = i32>) -> Result<(), Problem> {
    let old = "Linux 5.14 or newer is needed";
    let mut next = FIRST;
    for fd in keep {
        if !sys::is_open(fd) {
            return Err(Problem::new(
                format_args!("descriptor {fd} is not open"),
                "hand it to the jailer open, or leave --keep-fd away",
            ));
        }
        sys::close_descriptors(next, fd - 1).map_err(Problem::os(old))?;
        next = fd.saturating_add(1);
    }
    sys::close_descriptors(next, i32::MAX).map_err(Problem::os(old))
}

fn network(path: &Path) -> Result<OwnedFd, Problem> {
    let remedy = "give the file of a network namespace, such as /run/netns/NAME";
    // Not to wait at a FIFO.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = fs::openat(CWD, path, flags, Mode::empty()).map_err(Problem::os(remedy))?;
    let kind = fs::fstatfs(&file).map_err(Problem::os(remedy))?.f_type;
    if kind != NSFS_MAGIC {
        return Err(Problem::new("it is no namespace", remedy));
    }
    Ok(file)
}
