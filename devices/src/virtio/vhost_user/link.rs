//! The connection to a backend: requests and their answers, none of which is waited for for ever.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, UnixAddr, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::wire::{self, HEADER, Mistake, Request};

/// How often a wait looks at the time.
const TICK: i64 = 1;

/// Why a backend is given up.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("{request:?}: {source}")]
    Io { request: Request, source: io::Error },
    #[error("it closed the connection")]
    Closed,
    #[error("{0:?}: no answer in time")]
    Late(Request),
    #[error("{0:?}: neither whole nor in time")]
    Half(Request),
    #[error("{0:?}: {1}")]
    Answer(Request, Mistake),
    #[error("{0:?}: refused with {1}")]
    Refused(Request, u64),
    #[error("it says something that it was not asked")]
    Unasked,
}

/// A connection. Whoever makes requests says first how long they may take together ([`Self::within`]).
#[derive(Debug)]
pub(super) struct Link {
    socket: UnixStream,
    /// Every request is answered.
    acks: bool,
    until: Instant,
}

impl Link {
    /// Connects.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let address = UnixAddr::new(path)?;
        let socket = socket::socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        // Before the connection is made: it waits, too, where the other end takes none.
        socket::setsockopt(&socket, sockopt::SendTimeout, &TimeVal::seconds(TICK))?;
        socket::setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(TICK))?;
        socket::connect(socket.as_raw_fd(), &address)?;
        Ok(Self {
            socket: socket.into(),
            acks: false,
            until: Instant::now(),
        })
    }

    /// The requests from here on may take so long, all of them together.
    pub(super) fn within(&mut self, patience: Duration) {
        let now = Instant::now();
        self.until = now.checked_add(patience).unwrap_or(now);
    }

    /// Every request from here on is answered.
    pub(super) fn with_acks(&mut self) {
        self.acks = true;
    }

    /// A request that is answered with `N` bytes.
    pub(super) fn ask<const N: usize>(&self, request: Request, payload: &[u8]) -> Result<[u8; N], LinkError> {
        self.send(request, false, payload, &[])?;
        self.answer(request)
    }

    /// A request whose [`answer`](Self::answer) is asked for by itself.
    pub(super) fn begin(&self, request: Request, payload: &[u8]) -> Result<(), LinkError> {
        self.send(request, false, payload, &[])
    }

    /// A request that is answered with a number.
    pub(super) fn ask_number(&self, request: Request) -> Result<u64, LinkError> {
        self.ask(request, &[]).map(u64::from_le_bytes)
    }

    /// A request that has no answer but that it was done.
    pub(super) fn tell(&self, request: Request, payload: &[u8], fds: &[RawFd]) -> Result<(), LinkError> {
        self.send(request, self.acks, payload, fds)?;
        if self.acks {
            let fault = u64::from_le_bytes(self.answer(request)?);
            if fault != 0 {
                return Err(LinkError::Refused(request, fault));
            }
        }
        Ok(())
    }

    /// Whether the other end is still there, and silent.
    pub(super) fn check(&self) -> Result<(), LinkError> {
        match self.has_answer()? {
            true => Err(LinkError::Unasked),
            false => Ok(()),
        }
    }

    /// Whether the other end has said something.
    pub(super) fn has_answer(&self) -> Result<bool, LinkError> {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        match socket::recv(self.socket.as_raw_fd(), &mut [0], flags) {
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(false),
            Ok(0) | Err(_) => Err(LinkError::Closed),
            Ok(_) => Ok(true),
        }
    }

    /// Ends the connection; no request is made any more.
    pub(super) fn end(&self) {
        if let Err(error) = socket::shutdown(self.socket.as_raw_fd(), Shutdown::Both) {
            log::debug!("end the connection to a vhost-user backend: {error}");
        }
    }

    fn send(
        &self,
        request: Request,
        need_reply: bool,
        payload: &[u8],
        fds: &[RawFd],
    ) -> Result<(), LinkError> {
        let message = wire::message(request, need_reply, payload);
        let mut rest = message.as_slice();
        while !rest.is_empty() {
            // Descriptors go with the first byte.
            let rights = [ControlMessage::ScmRights(fds)];
            let rights = match fds.is_empty() || rest.len() < message.len() {
                true => &rights[..0],
                false => &rights[..],
            };
            let (parts, flags) = ([IoSlice::new(rest)], MsgFlags::MSG_NOSIGNAL);
            let sent = socket::sendmsg::<()>(self.socket.as_raw_fd(), &parts, rights, flags, None);
            let sent = self.moved(request, sent, LinkError::Half)?;
            rest = rest.get(sent..).unwrap_or_default();
        }
        Ok(())
    }

    /// The answer to the last request. Where it is [late](LinkError::Late), none of it has come, and it can be asked for again.
    pub(super) fn answer<const N: usize>(&self, request: Request) -> Result<[u8; N], LinkError> {
        let mut header = [0; HEADER];
        self.receive(request, &mut header, LinkError::Late)?;
        wire::answers(&header, request, N).map_err(|mistake| LinkError::Answer(request, mistake))?;
        let mut payload = [0; N];
        self.receive(request, &mut payload, LinkError::Half)?;
        Ok(payload)
    }

    /// Fills the buffer. Where the first byte does not come in time the error is `late`.
    fn receive(
        &self,
        request: Request,
        buffer: &mut [u8],
        late: fn(Request) -> LinkError,
    ) -> Result<(), LinkError> {
        let (mut rest, mut late) = (buffer, late);
        while !rest.is_empty() {
            // Without room for descriptors: where some come along, the kernel lets go of them.
            let got = socket::recv(self.socket.as_raw_fd(), rest, MsgFlags::empty());
            let got = match got {
                Ok(0) => return Err(LinkError::Closed),
                got => self.moved(request, got, late)?,
            };
            if got > 0 {
                late = LinkError::Half;
            }
            rest = rest.get_mut(got..).unwrap_or_default();
        }
        Ok(())
    }

    /// How many bytes were moved; none where there is time left to try again.
    fn moved(
        &self,
        request: Request,
        result: nix::Result<usize>,
        late: fn(Request) -> LinkError,
    ) -> Result<usize, LinkError> {
        match result {
            Ok(bytes) => Ok(bytes),
            Err(Errno::EAGAIN | Errno::EINTR) if Instant::now() < self.until => Ok(0),
            Err(Errno::EAGAIN | Errno::EINTR) => Err(late(request)),
            Err(Errno::EPIPE | Errno::ECONNRESET) => Err(LinkError::Closed),
            Err(errno) => Err(LinkError::Io {
                request,
                source: errno.into(),
            }),
        }
    }
}

impl AsRawFd for Link {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
