//! Opens the files that the VM will see, and says no to everything that is not plainly what was meant.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};

use super::error::Problem;
use super::mounts;
use super::paths::{self, Control, Folder, Owner, called, is_open, is_ours, octal};
use super::undo::{Undo, UndoLog};
use crate::options::Access;
use crate::sys::MountAttributes;

mod program;

/// Opens, checks, and takes a mount of the file alone in hand.
pub(super) fn open(
    source: &Path,
    access: Access,
    owner: Owner,
    undo: &mut UndoLog,
) -> Result<OwnedFd, Problem> {
    let parent = source.parent().unwrap_or(Path::new("/"));
    let folder = Folder::top()?.walk(parent, None)?;
    let name = source.file_name().unwrap_or_default();
    let (file, stat) = folder.entry(name, "give the path of a file that is there")?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::RegularFile {
        return Err(Problem::new(
            format_args!("it is {}", called(kind)),
            "give the path of a regular file itself",
        ));
    }
    one_link(&folder, &stat, access)?;
    let attributes = match access {
        Access::Read => {
            readable(&stat, owner)?;
            MountAttributes::READ_ONLY
        }
        Access::Write => {
            hand_over(&file, &stat, owner, undo)?;
            MountAttributes::DATA
        }
        Access::Execute => {
            runnable(&stat, owner)?;
            // Opened anew through the same folder, since a descriptor for a place cannot be read; and compared.
            let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let program = fs::openat(&folder.fd, name, read, Mode::empty())
                .map_err(Problem::os("the jailer has to be able to read it"))?;
            let again = paths::stat(&program)?;
            if (again.st_dev, again.st_ino) != (stat.st_dev, stat.st_ino) {
                return Err(Problem::new("it was replaced meanwhile", "try again"));
            }
            program::check(program.as_fd())?;
            MountAttributes::PROGRAM
        }
    };
    mounts::alone(&file, attributes)
}

/// A second link is another way to the same file: where others may make links, the file may be somebody else's.
fn one_link(folder: &Folder, stat: &Stat, access: Access) -> Result<(), Problem> {
    if stat.st_nlink == 1 {
        return Ok(());
    }
    let (control, at) = &folder.control;
    let why = if access == Access::Write {
        "to write it would write to them all".into()
    } else if *control == Control::Many || is_open(&paths::stat(&folder.fd)?) {
        "others may write to its folder, and could have linked it there".into()
    } else if let (Access::Read, Control::User(uid)) = (access, control)
        && *uid != stat.st_uid
    {
        format!(
            "{} belongs to user {uid}, who could have linked it there",
            at.display()
        )
    } else {
        return Ok(());
    };
    Err(Problem::new(
        format_args!("it has {} hard links: {why}", stat.st_nlink),
        "make a copy of it and give that",
    ))
}

/// Whether the mode has `bit` (4 read, 2 write, 1 run) for this user. What access lists add is not looked at.
fn may(stat: &Stat, (uid, gid): Owner, bit: u32) -> bool {
    let shift = if stat.st_uid == uid {
        6
    } else if stat.st_gid == gid {
        3
    } else {
        0
    };
    stat.st_mode >> shift & bit != 0
}

fn readable(stat: &Stat, owner: Owner) -> Result<(), Problem> {
    if may(stat, owner, 4) {
        return Ok(());
    }
    let mode = octal(stat.st_mode);
    let found = format!("mode {mode} does not let user {} read it", owner.0);
    Err(Problem::new(
        found,
        "make it readable for that user; its folder may stay closed",
    ))
}

fn runnable(stat: &Stat, owner: Owner) -> Result<(), Problem> {
    if is_open(stat) {
        return Err(Problem::new(
            format_args!("mode {} lets others write it", octal(stat.st_mode)),
            "take that right away (chmod go-w)",
        ));
    }
    if may(stat, owner, 1) {
        return Ok(());
    }
    let mode = octal(stat.st_mode);
    let found = format!("mode {mode} does not let user {} run it", owner.0);
    Err(Problem::new(found, "make it a program for all (chmod a+rx)"))
}

/// Sees that the VM's user owns what it is to write.
fn hand_over(file: &OwnedFd, stat: &Stat, owner: Owner, undo: &mut UndoLog) -> Result<(), Problem> {
    let (uid, gid) = owner;
    if stat.st_uid == uid {
        if may(stat, owner, 4) && may(stat, owner, 2) {
            return Ok(());
        }
        let mode = octal(stat.st_mode);
        let found = format!("mode {mode} does not let its owner read and write it");
        return Err(Problem::new(found, "give it mode 0600"));
    }
    if !is_ours(stat.st_uid) {
        return Err(Problem::new(
            format_args!("it belongs to user {}", stat.st_uid),
            format_args!(
                "it has to belong to user {uid}, or to root to be handed over; another machine may have it"
            ),
        ));
    }
    if stat.st_mode & 0o600 != 0o600 {
        let found = format!(
            "mode {} does not let its owner read and write it",
            octal(stat.st_mode)
        );
        return Err(Problem::new(found, "give it mode 0600"));
    }
    chown(file, (uid, gid)).map_err(Problem::os("the jailer hands the file to the machine's user"))?;
    let copy = file.try_clone().map_err(Problem::os("close some descriptors"))?;
    undo.push(Undo::GiveBack {
        file: copy,
        uid: stat.st_uid,
        gid: stat.st_gid,
    });
    Ok(())
}

/// Gives an open file to a user and a group.
pub(super) fn chown(file: &OwnedFd, (uid, gid): Owner) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    fs::chownat(file, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
}
