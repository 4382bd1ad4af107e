//! The Unix socket that the host's clients connect to, and the way to the host's own services.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use super::VsockError;

/// The listening socket; its file exists as long as this value.
#[derive(Debug)]
pub(super) struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket's file, so that only our own is ever removed.
    identity: Option<(u64, u64)>,
}

impl Listener {
    /// Creates the socket. A path that exists is never taken over.
    pub(super) fn bind(path: &Path) -> Result<Self, VsockError> {
        let failed = |source| VsockError::Bind {
            path: path.to_owned(),
            source,
        };
        let socket = UnixListener::bind(path).map_err(|source| {
            // "Address in use" says little to somebody who gave a path.
            if source.kind() == io::ErrorKind::AddrInUse {
                VsockError::Exists {
                    path: path.to_owned(),
                }
            } else {
                failed(source)
            }
        })?;
        let listener = Self {
            identity: identity(path),
            path: path.to_owned(),
            socket,
        };
        listener.socket.set_nonblocking(true).map_err(failed)?;
        Ok(listener)
    }

    /// The next client; an error of kind `WouldBlock` if there is none.
    pub(super) fn accept(&self) -> io::Result<UnixStream> {
        let (stream, _) = self.socket.accept()?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    /// Connects to the service that serves `port` for this guest, at the socket `PATH_port`. Never waits: a
    /// service whose backlog is full refuses.
    pub(super) fn connect(&self, port: u32) -> io::Result<UnixStream> {
        let mut path = OsString::from(&self.path);
        path.push(format!("_{port}"));
        let address = UnixAddr::new(Path::new(&path))?;
        let socket = socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        connect(socket.as_raw_fd(), &address)?;
        Ok(UnixStream::from(socket))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // Nobody is left to tell of an error.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}
