//! What was made on the host, and how it goes away again.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{self, AtFlags, Gid, Mode, Uid};
use rustix::io::Errno;

/// How often, and how long apart, a cgroup is tried whose last thread is just ending.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(5);

/// One thing.
pub(super) enum Undo {
    /// A file was made.
    RemoveFile { folder: Arc<OwnedFd>, name: String },
    /// A folder was made.
    RemoveFolder { folder: Arc<OwnedFd>, name: String },
    /// A cgroup was made.
    RemoveCgroup { folder: OwnedFd, name: String },
    /// A file was handed to somebody.
    GiveBack { file: OwnedFd, uid: u32, gid: u32 },
    /// A folder's mode was changed.
    Chmod {
        folder: Arc<OwnedFd>,
        name: String,
        mode: Mode,
    },
    /// This process was moved out of this cgroup.
    GoBack { home: PathBuf },
}

/// In the order in which it was done.
#[derive(Default)]
pub(super) struct UndoLog(Vec<Undo>);

impl UndoLog {
    pub(super) fn push(&mut self, undo: Undo) {
        self.0.push(undo);
    }

    /// Undoes all, last first; what could not be undone, in words.
    pub(super) fn run(&mut self) -> Vec<String> {
        let mut left = Vec::new();
        while let Some(undo) = self.0.pop() {
            if let Err((what, error)) = one(undo) {
                left.push(format!("{what} is left behind: {error}"));
            }
        }
        left
    }
}

fn one(undo: Undo) -> Result<(), (String, std::io::Error)> {
    match undo {
        Undo::RemoveFile { folder, name } => removed(fs::unlinkat(&folder, &*name, AtFlags::empty()), name),
        Undo::RemoveFolder { folder, name } => {
            match fs::unlinkat(&folder, &*name, AtFlags::REMOVEDIR) {
                // Another machine came to live beside this one meanwhile.
                Err(Errno::NOTEMPTY) => Ok(()),
                result => removed(result, name),
            }
        }
        Undo::RemoveCgroup { folder, name } => removed(remove_cgroup(&folder, &name), name),
        Undo::GiveBack { file, uid, gid } => {
            let (owner, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
            fs::chownat(file.as_fd(), "", Some(owner), Some(group), AtFlags::EMPTY_PATH)
                .map_err(|error| (format!("a file of user {uid}"), error.into()))
        }
        Undo::Chmod { folder, name, mode } => fs::chmodat(&folder, &*name, mode, AtFlags::empty())
            .map_err(|error| (format!("the mode of {name}"), error.into())),
        Undo::GoBack { home } => std::fs::write(home.join("cgroup.procs"), "0").map_err(|error| {
            (
                format!("this process, not in {} any more,", home.display()),
                error,
            )
        }),
    }
}

fn removed(result: Result<(), Errno>, name: String) -> Result<(), (String, std::io::Error)> {
    match result {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err((name, error.into())),
    }
}

/// Removes a cgroup. A thread that has ended may count for a moment more.
pub(super) fn remove_cgroup(folder: &OwnedFd, name: &str) -> Result<(), Errno> {
    for _ in 1..TRIES {
        match fs::unlinkat(folder, name, AtFlags::REMOVEDIR) {
            Err(Errno::BUSY) => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
    fs::unlinkat(folder, name, AtFlags::REMOVEDIR)
}
