//! The machine's cgroup: made, set, joined.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{self, AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::error::Problem;
use super::held::{Held, need};
use super::undo::{Undo, UndoLog};
use crate::options::CgroupVersion;
use crate::plan::Cgroup;

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// What of a cgroup of version 1 is empty until it is written, without which no process can be in it.
const CPUSET: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// Makes the cgroup below its parents, which are made where they are missing.
pub(super) fn make(cgroup: &Cgroup, held: &mut Held) -> Result<(), Problem> {
    let mut at = fs::openat(CWD, &cgroup.mount, FOLDER, Mode::empty()).map_err(Problem::os(format_args!(
        "{} has to be mounted",
        cgroup.mount.display()
    )))?;
    let mut parts = cgroup.path.components().peekable();
    while let Some(Component::Normal(part)) = parts.next() {
        let name = part
            .to_str()
            .ok_or_else(|| Problem::new("its name is not Unicode", "give another"))?;
        if cgroup.version == CgroupVersion::V2 {
            enable(cgroup, &at)?;
        }
        let own = parts.peek().is_none();
        if own {
            remove_stale(&at, name)?;
        }
        let made = make_one(&at, name, own, &mut held.undo)?;
        let below =
            fs::openat(&at, name, FOLDER, Mode::empty()).map_err(Problem::os("it was removed; try again"))?;
        if made && cgroup.version == CgroupVersion::V1 && cgroup.controllers.contains("cpuset") {
            for file in CPUSET {
                let value =
                    read(&at, file).map_err(Problem::os(format_args!("{file} has to be readable")))?;
                write(&below, file, &value)
                    .map_err(Problem::os(format_args!("{file} of its parent is no good")))?;
            }
        }
        at = below;
    }
    held.cgroups.insert(cgroup.folder(), at);
    Ok(())
}

/// What is left of an earlier machine has its settings, and goes. It does not where somebody is in it.
fn remove_stale(parent: &OwnedFd, name: &str) -> Result<(), Problem> {
    match fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::BUSY | Errno::NOTEMPTY) => Err(Problem::new(
            "processes or cgroups are in it",
            "end them first, or give another --id",
        )),
        Err(error) => Err(Problem::os("what is left of it cannot be removed")(error)),
    }
}

fn make_one(parent: &OwnedFd, name: &str, own: bool, undo: &mut UndoLog) -> Result<bool, Problem> {
    match fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) => {
            undo.push(Undo::RemoveCgroup {
                folder: parent
                    .try_clone()
                    .map_err(Problem::os("close some descriptors"))?,
                name: name.into(),
            });
            Ok(true)
        }
        Err(Errno::EXIST) if !own => Ok(false),
        Err(error) => Err(Problem::os(
            "the parent may be at its limit of cgroups, or not the caller's",
        )(error)),
    }
}

/// Hands the controllers down from a cgroup to those below it.
fn enable(cgroup: &Cgroup, at: &OwnedFd) -> Result<(), Problem> {
    const FILE: &str = "cgroup.subtree_control";
    if cgroup.controllers.is_empty() {
        return Ok(());
    }
    let enabled = read(at, FILE).map_err(Problem::os(format_args!("{FILE} has to be readable")))?;
    for name in &cgroup.controllers {
        if enabled.split_whitespace().any(|known| known == name) {
            continue;
        }
        write(at, FILE, &format!("+{name}")).map_err(|error| {
            let remedy = match error.raw_os_error() {
                Some(libc::EBUSY) => {
                    "a parent has processes of its own: give a --parent-cgroup that has none"
                }
                Some(libc::ENOENT) => {
                    "the kernel or a parent does not hand that controller down: enable it there"
                }
                _ => "the controller has to be handed down by every parent",
            };
            Problem::os(format_args!("controller {name}: {remedy}"))(error)
        })?;
    }
    Ok(())
}

/// Writes one setting.
pub(super) fn set(folder: &Path, file: &str, value: &str, held: &Held) -> Result<(), Problem> {
    let cgroup = need(held.cgroups.get(folder))?;
    write(cgroup, file, value).map_err(|error| {
        let remedy = match error.raw_os_error() {
            Some(libc::ENOENT) => "this kernel's cgroups have no such file: see --cgroup-version",
            Some(libc::EINVAL | libc::ERANGE) => "give a value that the kernel takes for this file",
            _ => "the file cannot be set to this",
        };
        Problem::os(remedy)(error)
    })
}

/// Moves this process in.
pub(super) fn join(folder: &Path, home: &Path, held: &mut Held) -> Result<(), Problem> {
    let cgroup = need(held.cgroups.get(folder))?;
    write(cgroup, "cgroup.procs", "0").map_err(Problem::os("the cgroup takes no process"))?;
    held.undo.push(Undo::GoBack { home: home.into() });
    Ok(())
}

fn read(folder: &OwnedFd, file: &str) -> std::io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut text = String::new();
    std::fs::File::from(fs::openat(folder, file, flags, Mode::empty())?).read_to_string(&mut text)?;
    Ok(text)
}

/// In one write, as the kernel wants it.
fn write(folder: &OwnedFd, file: &str, value: &str) -> std::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = fs::openat(folder, file, flags, Mode::empty())?;
    rustix::io::write(&file, value.as_bytes())?;
    Ok(())
}
