//! The host's end: a tap interface.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::net::if_::if_nametoindex;

use super::config::{NetConfig, NetError};
use super::link::Link;
use super::packet::HEADER_LEN;
use crate::sys;

/// A tap interface that this process is attached to, until it is dropped.
#[derive(Debug)]
pub(super) struct Tap(File);

impl Tap {
    /// Attaches to the interface `name`, which must be there: the kernel would make a new one, which leads nowhere.
    pub(super) fn open(name: &str) -> Result<Self, NetError> {
        let tap = || name.to_owned();
        if if_nametoindex(name).is_err() {
            return Err(NetError::Missing { tap: tap() });
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(NetConfig::DRIVER)
            .map_err(|source| NetError::Driver { tap: tap(), source })?;
        sys::attach_tap(&file, name).map_err(|source| match source.raw_os_error() {
            Some(libc::EBUSY) => NetError::InUse { tap: tap() },
            Some(libc::EPERM | libc::EACCES) => NetError::Denied { tap: tap(), source },
            _ => NetError::Kind { tap: tap(), source },
        })?;
        let set_up = |operation| {
            move |source| NetError::SetUp {
                tap: tap(),
                operation,
                source,
            }
        };
        sys::set_tap_header(&file, HEADER_LEN as u8).map_err(set_up("set the length of the header"))?;
        // Until a driver says what it takes.
        sys::set_tap_offloads(&file, 0).map_err(set_up("switch offloads off"))?;
        Ok(Self(file))
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Link for Tap {
    fn set_offloads(&self, offloads: u32) -> io::Result<()> {
        sys::set_tap_offloads(&self.0, offloads)
    }
}
