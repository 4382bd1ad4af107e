//! Notices when somebody else changes the host's packet filter: a reload of the owner's rules may begin with `flush ruleset`.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

/// The kernel's group for changes of nf_tables (linux/netfilter/nfnetlink.h: NFNLGRP_NFTABLES is 7), as a bit.
const NFTABLES: u32 = 1 << (7 - 1);

/// The kernel's word on each change, in one network namespace.
#[derive(Debug)]
pub(super) struct Changes(OwnedFd);

impl Changes {
    /// Those of the namespace that this thread is in.
    pub(super) fn open() -> io::Result<Self> {
        let netfilter = SockProtocol::NetlinkNetFilter;
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            netfilter,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, NFTABLES))?;
        Ok(Self(socket))
    }

    /// Waits for the next change.
    pub(super) fn wait(&self) -> io::Result<()> {
        match recv(self.0.as_raw_fd(), &mut [0; 8192], MsgFlags::empty()) {
            // Some were lost: there were changes.
            Ok(_) | Err(Errno::ENOBUFS) => {}
            Err(errno) => return Err(errno.into()),
        }
        // What came along with it.
        while recv(self.0.as_raw_fd(), &mut [0; 8192], MsgFlags::MSG_DONTWAIT).is_ok() {}
        Ok(())
    }
}
