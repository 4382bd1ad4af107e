//! The host's side: one epoll instance over the listener and all sockets. Thin: it says what is ready.
//!
//! All registrations are edge-triggered and made once, so that a socket costs no system call but its reads and
//! writes; what was reported is remembered in [`Stream`].

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::VsockError;
use super::listener::Listener;
use super::stream::{Role, Stream};

/// Clients whose `CONNECT` line has not come yet; one more, and the oldest is dropped.
pub(super) const MAX_PENDING: usize = 128;

/// Events that are taken in one call.
const EVENTS: usize = 64;

/// The listener's name among the epoll events; sockets count from 1.
const LISTENER: u64 = 0;

/// What became ready on one socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ready {
    pub(super) socket: u64,
    pub(super) writable: bool,
    /// Both directions are closed.
    pub(super) hung_up: bool,
}

/// All descriptors of the device.
#[derive(Debug)]
pub(super) struct Host {
    epoll: Epoll,
    listener: Listener,
    sockets: HashMap<u64, Stream>,
    /// Sockets in the role of [`Role::Pending`], oldest first.
    pending: VecDeque<u64>,
    next: u64,
    /// Clients may wait to be accepted.
    acceptable: bool,
    /// Accepting failed, and it was said.
    complained: bool,
    /// A socket was closed since [`Host::can_accept_again`] was asked.
    freed: bool,
}

impl Host {
    /// Watches `listener`.
    pub(super) fn new(listener: Listener) -> Result<Self, VsockError> {
        let failed = |errno: Errno| VsockError::Epoll { source: errno.into() };
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll
            .add(&listener, EpollEvent::new(flags, LISTENER))
            .map_err(failed)?;
        Ok(Self {
            epoll,
            listener,
            sockets: HashMap::new(),
            pending: VecDeque::new(),
            next: LISTENER,
            acceptable: false,
            complained: false,
            freed: false,
        })
    }

    /// The descriptor that is readable when [`Host::poll`] has something to say.
    pub(super) fn fd(&self) -> RawFd {
        self.epoll.0.as_raw_fd()
    }

    /// The number of sockets that streams use or used; those of clients without a line do not count.
    pub(super) fn streams(&self) -> usize {
        self.sockets.len().saturating_sub(self.pending.len())
    }

    /// Whether clients wait that could not be accepted and a descriptor came free since: worth another
    /// [`Host::poll`].
    pub(super) fn can_accept_again(&mut self) -> bool {
        std::mem::take(&mut self.freed) && self.acceptable
    }

    /// The socket of that name.
    pub(super) fn get_mut(&mut self, socket: u64) -> Option<&mut Stream> {
        self.sockets.get_mut(&socket)
    }

    /// Closes a socket.
    pub(super) fn close(&mut self, socket: u64) {
        self.freed = true;
        // Closing takes it out of the epoll set too: nobody else holds the descriptor.
        if let Some(stream) = self.sockets.remove(&socket)
            && stream.role == Role::Pending
        {
            self.pending.retain(|other| *other != socket);
        }
    }

    /// Closes all sockets but the listener.
    pub(super) fn close_all(&mut self) {
        self.sockets.clear();
        self.pending.clear();
    }

    /// A pending socket got its line.
    pub(super) fn promote(&mut self, socket: u64, role: Role) {
        self.pending.retain(|other| *other != socket);
        if let Some(stream) = self.sockets.get_mut(&socket) {
            stream.role = role;
        }
    }

    /// Connects to the host's service at `port`; the caller binds the socket's role.
    pub(super) fn connect(&mut self, port: u32) -> io::Result<u64> {
        let stream = self.listener.connect(port)?;
        self.add(stream, Role::Lingering)
    }

    fn add(&mut self, stream: UnixStream, role: Role) -> io::Result<u64> {
        let stream = Stream::new(stream, role);
        // Never reused, so that a late event cannot hit a successor.
        let name = self.next.wrapping_add(1);
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        self.epoll.add(&stream, EpollEvent::new(flags, name))?;
        self.next = name;
        self.sockets.insert(name, stream);
        Ok(name)
    }

    /// Takes what has become ready since the last call, new clients included, into `ready`. There is more if it
    /// returns `true`.
    pub(super) fn poll(&mut self, ready: &mut Vec<Ready>) -> io::Result<bool> {
        ready.clear();
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
            Ok(count) => count,
            Err(Errno::EINTR) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        };
        for event in events.iter().take(count) {
            let flags = event.events();
            if event.data() == LISTENER {
                self.acceptable = true;
                continue;
            }
            let Some(stream) = self.sockets.get_mut(&event.data()) else {
                continue;
            };
            let hung_up = flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
            stream.readable |= hung_up || flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP);
            ready.push(Ready {
                socket: event.data(),
                writable: flags.contains(EpollFlags::EPOLLOUT),
                hung_up,
            });
        }
        // With no event left, whoever had sent its line was heard, and the oldest may go for a newer client.
        let limit = MAX_PENDING.saturating_add(usize::from(count == 0));
        let accepted = self.accept(limit);
        Ok(accepted || count == EVENTS || (count > 0 && self.acceptable))
    }

    /// Accepts waiting clients, as far as there is room; each shows up as ready in the next [`Host::poll`].
    fn accept(&mut self, limit: usize) -> bool {
        let mut any = false;
        while self.acceptable && self.pending.len() < limit {
            match self.listener.accept() {
                Ok(stream) => match self.add(stream, Role::Pending) {
                    Ok(name) => {
                        any = true;
                        self.complained = false;
                        self.pending.push_back(name);
                    }
                    Err(error) => log::warn!("vsock: watch a client's socket: {error}"),
                },
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => self.acceptable = false,
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    // Out of descriptors, say.
                    _ => {
                        if !self.complained {
                            log::warn!("vsock: accept a client, tried again when a stream ends: {error}");
                            self.complained = true;
                        }
                        break;
                    }
                },
            }
        }
        if self.pending.len() > MAX_PENDING
            && let Some(oldest) = self.pending.pop_front()
        {
            log::debug!("vsock: a client that sent no CONNECT line is dropped for newer ones");
            self.sockets.remove(&oldest);
        }
        any
    }
}
