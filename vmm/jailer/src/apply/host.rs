//! Steps on the host.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{self, CWD, Mode, OFlags};

use super::error::Problem;
use super::held::Held;
use super::{cgroups, files, folders, mounts};
use crate::plan::Step;

/// `f_type` of a namespace's file (linux/magic.h).
const NSFS_MAGIC: i64 = 0x6e73_6673;

pub(super) fn apply(step: &Step, held: &mut Held) -> Result<(), Problem> {
    match step {
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
