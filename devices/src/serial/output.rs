//! Writing to something that may have a slow reader.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use crate::sys;

/// The most that a pipe which polls as writable takes without blocking (POSIX: PIPE_BUF).
const CHUNK: usize = 4096;

/// Waits a bounded time for its output to take bytes; then fails with `WouldBlock`, and keeps failing at once until
/// the output is writable again.
///
/// The output's flags stay as they are: O_NONBLOCK would be set for everybody who shares the open file, the user's
/// shell for one. Instead it is polled before each write. A regular file never makes its writer wait and is not
/// polled.
#[derive(Debug)]
pub struct PatientWriter<W> {
    inner: W,
    patience: Duration,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A regular file.
    NeverBlocks,
    /// The reader keeps up.
    Flowing,
    /// The reader did not read in time.
    Stalled,
}

impl<W: Write + AsFd> PatientWriter<W> {
    /// Wraps `inner`; a write waits for `patience` at most.
    pub fn new(inner: W, patience: Duration) -> Self {
        let state = if sys::is_regular_file(inner.as_fd()) {
            State::NeverBlocks
        } else {
            State::Flowing
        };
        Self {
            inner,
            patience,
            state,
        }
    }

    fn wait(&mut self) -> io::Result<()> {
        let patience = match self.state {
            State::NeverBlocks => return Ok(()),
            State::Flowing => self.patience,
            State::Stalled => Duration::ZERO,
        };
        if sys::poll_writable(self.inner.as_fd(), patience)? {
            self.state = State::Flowing;
            Ok(())
        } else {
            self.state = State::Stalled;
            Err(io::ErrorKind::WouldBlock.into())
        }
    }
}

impl<W: Write + AsFd> Write for PatientWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.wait()?;
        self.inner.write(data.get(..CHUNK).unwrap_or(data))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
