//! Whoever asks the agent for something: a user of the host.

use std::fs::File;
use std::io;
use std::path::Path;
use std::thread;

use nix::unistd::{Gid, Uid, geteuid, setfsgid, setfsuid};
use rustix::thread::set_thread_groups;

/// A user of the host, as the kernel noted him when he connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// His user.
    pub uid: u32,
    /// His group.
    pub gid: u32,
    /// The groups that he belongs to beside that one.
    pub groups: Vec<u32>,
}

impl Caller {
    /// One who may do everything.
    pub fn root() -> Self {
        Self {
            uid: 0,
            gid: 0,
            groups: Vec::new(),
        }
    }

    /// Whether he is of this group.
    pub fn is_of(&self, group: u32) -> bool {
        self.gid == group || self.groups.contains(&group)
    }

    /// Opens a file to read it, with his rights and not with the agent's: else whoever may speak to the agent could have
    /// it read any file of the host for him. A symbolic link in the last place is not followed, and what is no regular
    /// file is refused.
    pub fn open(&self, path: &Path) -> io::Result<File> {
        if self.uid == 0 || self.uid == geteuid().as_raw() {
            return open_regular(path);
        }
        // Rights to files belong to a thread, and this one ends with the call.
        thread::scope(|scope| {
            let opened = scope.spawn(|| self.become_him().and_then(|()| open_regular(path)));
            opened
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the thread that opens it failed")))
        })
    }

    /// The calling thread's rights to files are his from now on.
    fn become_him(&self) -> io::Result<()> {
        let groups: Vec<_> = self
            .groups
            .iter()
            .map(|&id| rustix::process::Gid::from_raw(id))
            .collect();
        set_thread_groups(&groups)?;
        // These two tell no failure, but who one was before: asked again, they say who one is.
        let (gid, uid) = (Gid::from_raw(self.gid), Uid::from_raw(self.uid));
        setfsgid(gid);
        setfsuid(uid);
        if setfsgid(gid) == gid && setfsuid(uid) == uid {
            Ok(())
        } else {
            Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("the agent cannot take the rights of user {uid}"),
            ))
        }
    }
}

/// Opens a regular file, and nothing that merely points to one.
pub fn open_regular(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "is not a regular file",
        ))
    }
}

#[cfg(test)]
mod tests;
