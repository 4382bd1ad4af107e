//! Walks paths of the host, one component at a time, without following a symbolic link.

use std::ffi::OsStr;
use std::fmt::Write;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::error::Problem;
use super::undo::{Undo, UndoLog};

/// Any entry, opened for its place only: a FIFO does not wait, a device is not touched.
const PLACE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Mode bits that let others than the owner write.
const OTHERS_WRITE: u32 = 0o022;
/// In a folder that others may write: they can remove only what is theirs.
const STICKY: u32 = 0o1000;

/// A user, a group.
pub(super) type Owner = (u32, u32);

/// Who else has a say in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Control {
    /// Nobody.
    Own,
    /// One other user, who owns it.
    User(u32),
    /// Many: they may write to it.
    Many,
}

/// A folder that was walked to.
pub(super) struct Folder {
    /// The folder.
    pub(super) fd: Arc<OwnedFd>,
    /// The most that anybody else has to say on the way, and where.
    pub(super) control: (Control, PathBuf),
}

impl Folder {
    /// `/`.
    pub(super) fn top() -> Result<Self, Problem> {
        let fd = fs::openat(CWD, "/", PLACE | OFlags::DIRECTORY, Mode::empty())
            .map_err(Problem::os("the host has to have a root folder"))?;
        Ok(Self {
            fd: fd.into(),
            control: (Control::Own, "/".into()),
        })
    }

    /// Walks to the folder `path`. With a log, missing folders are made, and noted there.
    pub(super) fn walk(mut self, path: &Path, mut make: Option<&mut UndoLog>) -> Result<Self, Problem> {
        let mut at = PathBuf::from("/");
        for part in path.components() {
            let Component::Normal(part) = part else { continue };
            at.push(part);
            self = self.step(part, &at, make.as_deref_mut())?;
        }
        Ok(self)
    }

    /// Goes to one folder in this one; `at` is its path.
    pub(super) fn step(self, part: &OsStr, at: &Path, make: Option<&mut UndoLog>) -> Result<Self, Problem> {
        let fd = match (fs::openat(&self.fd, part, PLACE, Mode::empty()), make) {
            (Err(Errno::NOENT), Some(log)) => {
                match fs::mkdirat(&self.fd, part, Mode::RWXU) {
                    Ok(()) => log.push(Undo::RemoveFolder {
                        folder: self.fd.clone(),
                        name: part.to_string_lossy().into_owned(),
                    }),
                    // Another jailer made it meanwhile; what it is, is looked at like what was there before.
                    Err(Errno::EXIST) => (),
                    Err(error) => {
                        return Err(Problem::os(format_args!("{} cannot be made", at.display()))(
                            error,
                        ));
                    }
                }
                fs::openat(&self.fd, part, PLACE, Mode::empty())
            }
            (result, _) => result,
        };
        let fd = fd.map_err(Problem::os(format_args!("{}: make it first", at.display())))?;
        let stat = stat(&fd)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory {
            return Err(Problem::new(
                format_args!("{} is {}, not a folder", at.display(), called(kind)),
                "give the path of the folder itself",
            ));
        }
        let control = control(&stat);
        let control = if control > self.control.0 {
            (control, at.to_owned())
        } else {
            self.control
        };
        Ok(Self {
            fd: fd.into(),
            control,
        })
    }

    /// Opens one entry for its place.
    pub(super) fn entry(&self, name: &OsStr, remedy: &str) -> Result<(OwnedFd, Stat), Problem> {
        let fd = fs::openat(&self.fd, name, PLACE, Mode::empty()).map_err(Problem::os(remedy))?;
        let stat = stat(&fd)?;
        Ok((fd, stat))
    }

    /// Refuses a folder in which somebody else has a say, since they could put another in its place.
    pub(super) fn trusted(self) -> Result<Self, Problem> {
        let (control, at) = &self.control;
        let who = match control {
            Control::Own => return Ok(self),
            Control::User(uid) => format!("{} belongs to user {uid}", at.display()),
            Control::Many => format!("{} can be written by others than its owner", at.display()),
        };
        Err(Problem::new(
            who,
            "give a folder that only root can change, and whose parents only root can change",
        ))
    }
}

fn control(stat: &Stat) -> Control {
    if stat.st_mode & OTHERS_WRITE != 0 && stat.st_mode & STICKY == 0 {
        Control::Many
    } else if is_ours(stat.st_uid) {
        Control::Own
    } else {
        Control::User(stat.st_uid)
    }
}

/// Whether others may put files into a folder, be it that they can take only their own away.
pub(super) fn is_open(stat: &Stat) -> bool {
    stat.st_mode & OTHERS_WRITE != 0
}

/// Root, or who runs the jailer.
pub(super) fn is_ours(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// What is known of an open file.
pub(super) fn stat(fd: &OwnedFd) -> Result<Stat, Problem> {
    fs::fstat(fd).map_err(Problem::os("the file system has to answer"))
}

/// What is known of a name, which is not followed.
pub(super) fn stat_at(folder: &OwnedFd, name: &str) -> Result<Stat, Problem> {
    fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(Problem::os("the file system has to answer"))
}

/// A kind of file, in words.
pub(super) fn called(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a file",
        FileType::Directory => "a folder",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "of an unknown kind",
    }
}

/// A mode as chmod(1) has it.
pub(super) fn octal(mode: u32) -> String {
    let mut text = String::new();
    let _ = write!(text, "{:04o}", mode & 0o7777);
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    /// Machines that start together on a new host all want the folder that they share.
    #[test]
    fn a_folder_that_another_makes_meanwhile_is_taken() {
        let host = tempfile::tempdir().unwrap();
        for round in 0..200 {
            let shared = host.path().join(format!("{round}/jails"));
            let together = Barrier::new(4);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let mut made = UndoLog::default();
                        together.wait();
                        let top = Folder::top().unwrap_or_else(|problem| panic!("{problem:?}"));
                        let result = top.walk(&shared, Some(&mut made));
                        assert!(result.is_ok(), "{:?}", result.err());
                    });
                }
            });
        }
    }
}
