//! The API's socket in the file system.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{Mode, fchmod};

/// Where the socket of this process is, and what it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiConfig {
    /// The socket's path.
    pub path: PathBuf,
    /// The longest body that is read, in bytes.
    pub max_payload: usize,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Something is in its place.
    #[error("--api-sock: {0} exists already; remove it or choose another path")]
    Exists(PathBuf),
    /// It cannot be made.
    #[error(
        "--api-sock: {path}: {operation}: {source}; give a path of at most 107 bytes in a folder of this user's"
    )]
    Make {
        /// Where.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// A listening socket that its owner alone may use; its file goes when this value is dropped.
#[derive(Debug)]
pub struct ApiSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file, so that only our own is ever removed.
    identity: Option<(u64, u64)>,
}

impl ApiSocket {
    /// Makes the socket. A path that exists is never taken over.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |operation| {
            let path = path.to_owned();
            move |error: nix::Error| SocketError::Make {
                path,
                operation,
                source: error.into(),
            }
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let made = socket(AddressFamily::Unix, SockType::Stream, flags, None);
        let made = made.map_err(failed("make a socket"))?;
        // Before it has a name, so that at no time anybody else can connect: the file takes the mode of the socket.
        fchmod(&made, Mode::S_IRUSR | Mode::S_IWUSR).map_err(failed("keep others out"))?;
        let address = UnixAddr::new(path).map_err(failed("name it"))?;
        bind(made.as_raw_fd(), &address).map_err(|error| match error {
            nix::Error::EADDRINUSE => SocketError::Exists(path.into()),
            error => failed("bind")(error),
        })?;
        let socket = Self {
            listener: made.into(),
            path: path.into(),
            identity: identity(path),
        };
        listen(&socket.listener, Backlog::new(16).unwrap_or(Backlog::MAXCONN)).map_err(failed("listen"))?;
        Ok(socket)
    }

    /// A second descriptor of it, for the thread that serves it.
    pub(super) fn listener(&self) -> io::Result<Listener> {
        self.listener.try_clone().map(Listener)
    }
}

impl Drop for ApiSocket {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // Nobody is left to tell of an error.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Where clients come in.
#[derive(Debug)]
pub(super) struct Listener(UnixListener);

impl Listener {
    /// The next client, if there is one; nothing that is done with it makes its thread wait.
    pub(super) fn accept(&self) -> Option<UnixStream> {
        let (client, _) = self.0.accept().ok()?;
        client.set_nonblocking(true).ok()?;
        Some(client)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}
