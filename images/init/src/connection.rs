//! One connection from the host: frames in, frames out.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt};
use nix::sys::time::TimeVal;
use secovia_guest_protocol::{CodecError, Decoder, Frame, encode};

use crate::lock;

/// The other end has shut its sending half. The library does not know this flag: where it comes back, `PollFd::any`
/// says `None`.
pub(crate) const HANG_UP: PollFlags = PollFlags::from_bits_retain(libc::POLLRDHUP);

/// How long a refusal waits for the frame that is just being sent.
pub(crate) const LAST_WORD: Duration = Duration::from_millis(200);

/// A connected stream socket, of whatever family.
pub(crate) struct Connection {
    socket: File,
    /// Somebody is writing a frame; others wait, so that frames do not mix.
    writing: Mutex<bool>,
    idle: Condvar,
}

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("reading from the host: {0}")]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl Connection {
    /// Takes a connected stream socket.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self {
            socket: File::from(socket),
            writing: Mutex::new(false),
            idle: Condvar::new(),
        }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// How long a read may wait from now on; for ever with `None`.
    pub(crate) fn limit_reads(&self, time: Option<Duration>) {
        let seconds = time.map_or(0, |time| time.as_secs());
        let limit = TimeVal::new(i64::try_from(seconds).unwrap_or(i64::MAX), 0);
        let _ = setsockopt(&self.socket, sockopt::ReceiveTimeout, &limit);
    }

    /// Sends one frame; blocks until the host takes it.
    pub(crate) fn send(&self, frame: &Frame) -> io::Result<()> {
        let writing = lock(&self.writing);
        let writing = self.idle.wait_while(writing, |writing| *writing);
        self.write(writing.unwrap_or_else(PoisonError::into_inner), frame)
    }

    /// Sends one last frame, unless another is just being sent and stays so for longer than `time`: it may for ever.
    pub(crate) fn send_within(&self, time: Duration, frame: &Frame) {
        let writing = lock(&self.writing);
        let waited = self.idle.wait_timeout_while(writing, time, |writing| *writing);
        let writing = waited.unwrap_or_else(PoisonError::into_inner).0;
        if !*writing {
            let _ = self.write(writing, frame);
        }
    }

    fn write(&self, mut writing: MutexGuard<'_, bool>, frame: &Frame) -> io::Result<()> {
        let bytes = encode(frame).map_err(io::Error::other)?;
        *writing = true;
        drop(writing);
        let result = (&self.socket).write_all(&bytes);
        *lock(&self.writing) = false;
        self.idle.notify_one();
        result
    }

    /// Ends the connection in both directions: whoever reads or writes it returns.
    pub(crate) fn hang_up(&self) {
        use std::os::fd::AsRawFd;
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
    }

    /// Waits until the host has hung up, so that it has all that was sent; not longer than `time`.
    pub(crate) fn linger(&self, time: Duration) {
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::ZERO);
        let _ = poll(&mut [PollFd::new(self.socket.as_fd(), HANG_UP)], timeout);
    }
}

/// The reading half of a connection.
pub(crate) struct Incoming<'a> {
    connection: &'a Connection,
    decoder: Decoder,
    buffer: Vec<u8>,
}

impl<'a> Incoming<'a> {
    pub(crate) fn new(connection: &'a Connection) -> Self {
        Self {
            connection,
            decoder: Decoder::default(),
            buffer: vec![0; 16 * 1024],
        }
    }

    /// The next frame; `None` where the host hung up.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, ReadError> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(Some(frame));
            }
            match (&self.connection.socket).read(&mut self.buffer) {
                Ok(0) => return Ok(None),
                Ok(count) => self.decoder.push(self.buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
