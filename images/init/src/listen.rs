//! Where connections come from.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, bind, getpeername, listen, socket,
};

use crate::sys;

/// Accepts connections, one after the other.
pub trait Listener {
    /// Blocks until the host connects.
    fn accept(&self) -> io::Result<OwnedFd>;
}

impl Listener for UnixListener {
    fn accept(&self) -> io::Result<OwnedFd> {
        Self::accept(self).map(|(stream, _)| stream.into())
    }
}

/// A vsock port that only the host can reach.
#[derive(Debug)]
pub struct VsockListener {
    socket: OwnedFd,
}

impl VsockListener {
    /// Listens on a port of this guest, whatever its context id is.
    pub fn bind(port: u32) -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Vsock,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        bind(socket.as_raw_fd(), &VsockAddr::new(libc::VMADDR_CID_ANY, port))?;
        listen(&socket, Backlog::new(64)?)?;
        Ok(Self { socket })
    }
}

impl Listener for VsockListener {
    fn accept(&self) -> io::Result<OwnedFd> {
        loop {
            let connection = sys::accept(self.socket.as_fd())?;
            let peer: VsockAddr = getpeername(connection.as_raw_fd())?;
            // A process of this guest could connect too, where the kernel has a loopback transport.
            if peer.cid() == libc::VMADDR_CID_HOST {
                return Ok(connection);
            }
        }
    }
}
