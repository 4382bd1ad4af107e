//! The socket that the API is served on.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};

use super::group::group_id;

/// The wait after a connection could not be taken: descriptors may be scarce.
const AGAIN: Duration = Duration::from_millis(100);

/// How long a child may take between fork and exec, on a machine that is not out of order.
const FORK_TIME: Duration = Duration::from_secs(1);

/// A socket that is listened on. Dropped, it is removed.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Tells our socket from one that another agent has put in its place.
    inode: u64,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// An agent answers there.
    #[error("socket {0} is served by another agent; end that one or set another `runtime_dir`")]
    InUse(PathBuf),
    /// Something else has the name.
    #[error("{0} exists and is no socket; move it away or set another `runtime_dir`")]
    NoSocket(PathBuf),
    /// The socket cannot be made.
    #[error("{operation} socket {path}: {source}")]
    File {
        /// What was to be done.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Socket {
    /// Listens on `path`, in place of a socket that an agent left there. Members of `group` may connect, where the
    /// host has that group; else only the agent's user and root.
    pub fn bind(path: &Path, group: &str) -> Result<Self, SocketError> {
        let failed = |operation| {
            let path = path.to_path_buf();
            move |source| SocketError::File {
                operation,
                path,
                source,
            }
        };
        clear(path)?;
        let listener = UnixListener::bind(path).map_err(failed("bind"))?;
        let mode = match group_id(group) {
            Some(gid) => {
                chown(path, None, Some(gid)).map_err(failed("set the group of"))?;
                0o660
            }
            None => {
                log::debug!("the host has no group `{group}`: only root may use the API");
                0o600
            }
        };
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("set the mode of"))?;
        let inode = fs::metadata(path).map_err(failed("look at"))?.ino();
        Ok(Self {
            listener,
            path: path.to_path_buf(),
            inode,
        })
    }
}

/// Makes room for a socket.
fn clear(path: &Path) -> Result<(), SocketError> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NoSocket(path.to_path_buf()));
    }
    // A killed agent's last child listens too until it becomes a VMM; that takes a moment at most.
    let begun = Instant::now();
    while net::UnixStream::connect(path).is_ok() {
        if begun.elapsed() > FORK_TIME {
            return Err(SocketError::InUse(path.to_path_buf()));
        }
        thread::sleep(Duration::from_millis(10));
    }
    fs::remove_file(path).map_err(|source| SocketError::File {
        operation: "remove",
        path: path.to_path_buf(),
        source,
    })
}

impl Drop for Socket {
    fn drop(&mut self) {
        if fs::metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl axum::serve::Listener for Socket {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    log::warn!("accept on {}: {error}", self.path.display());
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}
