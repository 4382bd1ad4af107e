//! A command's standard input: a pipe that exists before the command does, so that what the host sends early waits in it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::connection::HANG_UP;
use crate::lock;

/// Both ends of the pipe.
pub(crate) struct Stdin {
    writer: Mutex<Option<Arc<OwnedFd>>>,
    reader: Mutex<Option<OwnedFd>>,
}

/// How far [`Stdin::feed`] came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fed {
    /// All is in the pipe, or nobody reads it any more.
    Done,
    /// The host hung up while the pipe was full.
    HungUp,
}

impl Stdin {
    pub(crate) fn new() -> io::Result<Self> {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        // Only this end: the command's own reads must block as it expects.
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self {
            writer: Mutex::new(Some(Arc::new(writer))),
            reader: Mutex::new(Some(reader)),
        })
    }

    /// The end that the command reads.
    pub(crate) fn reader(&self) -> io::Result<OwnedFd> {
        match &*lock(&self.reader) {
            Some(reader) => reader.try_clone(),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// The command has its end: when it closes it, writing fails.
    pub(crate) fn handed_over(&self) {
        lock(&self.reader).take();
    }

    /// Ends the input. What was written before is still read.
    pub(crate) fn close(&self) {
        lock(&self.writer).take();
    }

    /// Writes it all; blocks while the pipe is full, as long as the host's connection stands.
    pub(crate) fn feed(&self, mut bytes: &[u8], host: BorrowedFd<'_>) -> Fed {
        let Some(writer) = lock(&self.writer).clone() else {
            return Fed::Done;
        };
        while !bytes.is_empty() {
            match nix::unistd::write(&writer, bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    let mut fds = [
                        PollFd::new(writer.as_fd(), PollFlags::POLLOUT),
                        PollFd::new(host, HANG_UP),
                    ];
                    let _ = poll(&mut fds, PollTimeout::NONE);
                    let [_, host] = &fds;
                    if host.any().unwrap_or(true) {
                        return Fed::HungUp;
                    }
                }
                // The command has closed its input; what else the host has for it is lost, as in any pipe.
                Err(_) => return Fed::Done,
            }
        }
        Fed::Done
    }
}
