//! The machine's folder and the jail's root on the host. What an earlier machine left in the root is not trusted: a
//! guest may have made it.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{self, AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::error::Problem;
use super::files::chown;
use super::held::{Held, need};
use super::mounts;
use super::paths::{self, Folder, called, is_ours};
use super::undo::Undo;
use crate::sys::MountAttributes;

/// A folder, opened to be read or locked.
const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
const WRITE_NEW: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// More than the digits of any process ID.
const PID_LENGTH: u64 = 20;
/// The name that a process ID's file has until it is whole.
const PID_DRAFT: &str = "vmm.pid.new";

/// Makes a folder, or takes it; from the one before where it is in that.
pub(super) fn make(path: &Path, held: &mut Held) -> Result<(), Problem> {
    let known = held.folder.take().filter(|(last, _)| path.parent() == Some(last));
    let folder = match (known, path.file_name()) {
        (Some((at, fd)), Some(name)) => {
            let control = (paths::Control::Own, at);
            Folder { fd, control }.step(name, path, Some(&mut held.undo))?
        }
        _ => Folder::top()?.walk(path, Some(&mut held.undo))?,
    };
    held.folder = Some((path.to_owned(), folder.trusted()?.fd));
    Ok(())
}

/// Locks the machine's folder until the VMM runs, and sees that none runs already.
pub(super) fn claim(pid_file: &str, held: &mut Held) -> Result<(), Problem> {
    let (_, folder) = need(held.folder.as_ref())?;
    let folder = fs::openat(folder, ".", FOLDER, Mode::empty())
        .map_err(Problem::os("the folder has to be readable"))?;
    match fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => (),
        Err(Errno::WOULDBLOCK) => {
            return Err(Problem::new(
                "another jailer is starting this machine",
                "wait for it, or give another --id",
            ));
        }
        Err(error) => return Err(Problem::os("the file system has to have locks")(error)),
    }
    let root = fs::statat(&folder, "root", AtFlags::SYMLINK_NOFOLLOW);
    if let (Ok(root), Some(pid)) = (root, read_pid(&folder, pid_file))
        && lives_in(pid, &root)
    {
        return Err(Problem::new(
            format_args!("process {pid} runs in this jail"),
            "end it first, or give another --id",
        ));
    }
    held.machine = Some(Arc::new(folder));
    Ok(())
}

/// Whether a process has this root. Its ID may be another process's by now.
fn lives_in(pid: u32, root: &Stat) -> bool {
    match fs::statat(CWD, format!("/proc/{pid}/root"), AtFlags::empty()) {
        Ok(there) => (there.st_dev, there.st_ino) == (root.st_dev, root.st_ino),
        // To look takes CAP_SYS_PTRACE, which not every caller has; then its user, who is the machine's own, tells.
        Err(Errno::ACCESS | Errno::PERM) => fs::statat(CWD, format!("/proc/{pid}"), AtFlags::empty())
            .is_ok_and(|process| process.st_uid == root.st_uid),
        Err(_) => false,
    }
}

fn read_pid(folder: &std::os::fd::OwnedFd, name: &str) -> Option<u32> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = fs::openat(folder, name, flags, Mode::empty()).ok()?;
    let mut text = String::new();
    File::from(file).take(PID_LENGTH).read_to_string(&mut text).ok()?;
    text.trim_end().parse().ok()
}

/// Makes the jail's root, or takes it, and takes a mount of it in hand.
pub(super) fn make_root(uid: u32, gid: u32, held: &mut Held) -> Result<(), Problem> {
    const NAME: &str = "root";
    let machine = need(held.machine.as_ref())?.clone();
    let made = match fs::mkdirat(&machine, NAME, Mode::RWXU) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(Problem::os("it cannot be made")(error)),
    };
    if made {
        held.undo.push(Undo::RemoveFolder {
            folder: machine.clone(),
            name: NAME.into(),
        });
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root =
        fs::openat(&machine, NAME, flags, Mode::empty()).map_err(Problem::os("it was removed; try again"))?;
    let stat = paths::stat(&root)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::Directory {
        return Err(Problem::new(format_args!("it is {}", called(kind)), "remove it"));
    }
    if stat.st_uid != uid && !is_ours(stat.st_uid) {
        let found = format!("it belongs to user {}", stat.st_uid);
        return Err(Problem::new(found, "remove it with all that is in it"));
    }
    if stat.st_mode & 0o7777 != 0o700 {
        fs::chmodat(&machine, NAME, Mode::RWXU, AtFlags::empty())
            .map_err(Problem::os("its mode has to be 0700"))?;
        if !made {
            held.undo.push(Undo::Chmod {
                folder: machine,
                name: NAME.into(),
                mode: Mode::from_raw_mode(stat.st_mode & 0o7777),
            });
        }
    }
    if (stat.st_uid, stat.st_gid) != (uid, gid) {
        chown(&root, (uid, gid)).map_err(Problem::os("the jailer hands it to the machine's user"))?;
        if !made {
            held.undo.push(Undo::GiveBack {
                file: root.try_clone().map_err(Problem::os("close some descriptors"))?,
                uid: stat.st_uid,
                gid: stat.st_gid,
            });
        }
    }
    held.root_mount = Some(mounts::alone(&root, MountAttributes::DATA)?);
    held.root = Some(Arc::new(root));
    Ok(())
}

/// Makes an empty file or folder in the jail's root, or takes one that is there; what it holds will be covered.
pub(super) fn make_place(name: &str, folder: bool, held: &mut Held) -> Result<(), Problem> {
    let root = need(held.root.as_ref())?;
    let made = if folder {
        fs::mkdirat(root, name, Mode::RWXU)
    } else {
        fs::openat(root, name, WRITE_NEW, Mode::empty()).map(drop)
    };
    match made {
        Ok(()) => {
            let (folder_fd, name) = (root.clone(), name.into());
            held.undo.push(if folder {
                Undo::RemoveFolder {
                    folder: folder_fd,
                    name,
                }
            } else {
                Undo::RemoveFile {
                    folder: folder_fd,
                    name,
                }
            });
            Ok(())
        }
        Err(Errno::EXIST) => {
            let kind = FileType::from_raw_mode(paths::stat_at(root, name)?.st_mode);
            let wanted = if folder {
                FileType::Directory
            } else {
                FileType::RegularFile
            };
            if kind == wanted {
                return Ok(());
            }
            let found = format!("{} is in its place", called(kind));
            Err(Problem::new(found, "remove it from the jail's root"))
        }
        Err(error) => Err(Problem::os("the file system may be full")(error)),
    }
}

/// Writes a process ID: whole or not at all, also for one who reads it at this moment. It need not outlive the host, so
/// that nothing waits for a disk.
pub(super) fn record_pid(pid: i32, path: &Path, held: &mut Held) -> Result<(), Problem> {
    let machine = need(held.machine.as_ref())?.clone();
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| Problem::new("it has no name", "report this"))?;
    let full = "the file system may be full";
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let draft = fs::openat(&machine, PID_DRAFT, flags, Mode::RUSR | Mode::WUSR).map_err(Problem::os(full))?;
    held.undo.push(Undo::RemoveFile {
        folder: machine.clone(),
        name: PID_DRAFT.into(),
    });
    let text = format!("{pid}\n");
    match rustix::io::write(&draft, text.as_bytes()) {
        Ok(length) if length == text.len() => (),
        Ok(_) => return Err(Problem::new("written in part", full)),
        Err(error) => return Err(Problem::os(full)(error)),
    }
    fs::renameat(&machine, PID_DRAFT, &machine, name).map_err(Problem::os(full))?;
    held.undo.push(Undo::RemoveFile {
        folder: machine,
        name: name.into(),
    });
    Ok(())
}
