//! One socket of the host's side, with the bytes that it did not take yet. Thin: reads, writes, nothing decided.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{MsgFlags, recv, send};

use super::muxer::Key;

/// The longest first line of a client's, `CONNECT 4294967295\n`, and some air.
const MAX_LINE: usize = 32;

/// What a socket is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A client whose `CONNECT` line has not come yet.
    Pending,
    /// One end of a stream.
    Bound(Key),
    /// The guest is done with it; what it sent before is still on the way out.
    Lingering,
}

/// What came of reading a client's first line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FirstLine {
    /// It wants this port.
    Connect(u32),
    /// It is not complete.
    Incomplete,
    /// It is no such line, or the client is gone.
    Bad,
}

/// A connected Unix socket, non-blocking.
#[derive(Debug)]
pub(super) struct Stream {
    socket: UnixStream,
    pub(super) role: Role,
    /// Bytes of the guest's that the socket did not take; the credit bounds them.
    kept: VecDeque<u8>,
    /// Reading may give something. Set by the shell's events, cleared when there was nothing.
    pub(super) readable: bool,
}

impl Stream {
    /// Takes over a socket that is non-blocking already.
    pub(super) fn new(socket: UnixStream, role: Role) -> Self {
        Self {
            socket,
            role,
            kept: VecDeque::new(),
            readable: false,
        }
    }

    /// Whether all of the guest's bytes went out.
    pub(super) fn is_drained(&self) -> bool {
        self.kept.is_empty()
    }

    /// Bytes that are kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Sends what the socket takes and keeps the rest; returns how many bytes went out now. The caller has checked
    /// by the credit that the rest may be kept.
    pub(super) fn send(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        if self.kept.is_empty() {
            sent = self.send_now(data)?;
        }
        self.kept.extend(data.get(sent..).unwrap_or_default());
        Ok(sent)
    }

    /// Sends of what is kept as much as the socket takes now; returns how much that was.
    pub(super) fn flush(&mut self) -> io::Result<usize> {
        let mut sent: usize = 0;
        while !self.kept.is_empty() {
            let now = self.send_now(self.kept.as_slices().0)?;
            if now == 0 {
                break;
            }
            self.kept.drain(..now);
            sent = sent.saturating_add(now);
        }
        if self.kept.is_empty() {
            // Streams that were slow once do not hold their buffer for ever.
            self.kept = VecDeque::new();
        }
        Ok(sent)
    }

    /// Drops what is kept.
    pub(super) fn discard(&mut self) {
        self.kept = VecDeque::new();
    }

    /// Sends until the socket is full; returns the bytes that it took.
    fn send_now(&self, data: &[u8]) -> io::Result<usize> {
        let mut left = data;
        while !left.is_empty() {
            match send(self.socket.as_raw_fd(), left, MsgFlags::MSG_NOSIGNAL) {
                Ok(0) => break,
                Ok(sent) => left = left.get(sent..).unwrap_or_default(),
                Err(error) => match io::Error::from(error).kind() {
                    ErrorKind::WouldBlock => break,
                    ErrorKind::Interrupted => {}
                    _ => return Err(error.into()),
                },
            }
        }
        Ok(data.len().saturating_sub(left.len()))
    }

    /// Reads what there is, into the start of `buffer`: `None` if nothing now, 0 at the end.
    ///
    /// A client that went away with bytes unread leaves an error behind; it sends no more, so that is an end too.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Option<usize> {
        loop {
            match self.socket.read(buffer) {
                Ok(read) => return Some(read),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => {
                        self.readable = false;
                        return None;
                    }
                    ErrorKind::Interrupted => {}
                    _ => return Some(0),
                },
            }
        }
    }

    /// Reads the client's first line, and not a byte past it: what follows belongs to the guest.
    pub(super) fn first_line(&mut self) -> FirstLine {
        let mut buffer = [0; MAX_LINE];
        let peeked = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_PEEK) {
            Ok(peeked) => peeked,
            Err(error) if io::Error::from(error).kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                return FirstLine::Incomplete;
            }
            Err(_) => return FirstLine::Bad,
        };
        let bytes = buffer.get(..peeked).unwrap_or_default();
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            return if bytes.is_empty() || bytes.len() == MAX_LINE {
                FirstLine::Bad
            } else {
                FirstLine::Incomplete
            };
        };
        let (line, _) = bytes.split_at_checked(end).unwrap_or_default();
        let Some(port) = parse_connect(line) else {
            return FirstLine::Bad;
        };
        // The bytes are in the socket already, so that they come at once.
        let mut taken = vec![0; end.saturating_add(1)];
        match self.socket.read_exact(&mut taken) {
            Ok(()) => FirstLine::Connect(port),
            Err(_) => FirstLine::Bad,
        }
    }

    /// Tells the client under which port of the host's the guest accepted it.
    pub(super) fn greet(&mut self, port: u32) -> io::Result<()> {
        let line = format!("OK {port}\n");
        // Nothing was sent before, so that a few bytes always fit, unless nobody is there.
        match self.send_now(line.as_bytes())? {
            sent if sent == line.len() => Ok(()),
            _ => Err(ErrorKind::WriteZero.into()),
        }
    }

    /// The other end reads to the end of what was sent.
    pub(super) fn end_writing(&self) {
        // An error says that it is ended already.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// The other end hears that nobody reads what it writes.
    pub(super) fn end_reading(&self) {
        let _ = self.socket.shutdown(Shutdown::Read);
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The port in `CONNECT port`, without the line's end.
fn parse_connect(line: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(line).ok()?;
    let port = text.strip_suffix('\r').unwrap_or(text).strip_prefix("CONNECT ")?;
    // `parse` takes a sign, the line does not.
    port.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| port.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests;
