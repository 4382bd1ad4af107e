//! The API's thread: takes clients, reads what they ask, and answers, one request after the other.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use secovia_devices::virtio::block::{Block, BlockConfig, BlockError, Disk};
use secovia_seccomp::List;

use super::http::{self, Parsed, Status};
use super::link::Asker;
use super::reply::{Reply, ToOpen, fault};
use super::request::{NewDisk, Request};
use super::route::route;
use super::socket::{ApiSocket, Listener};
use crate::confine::{Seccomp, SeccompError};

/// Enough for JSON that nests as deeply as serde_json lets it.
const STACK: usize = 256 << 10;
/// The most clients at a time, as many as Firecracker serves; the one that has been silent longest makes room.
const CLIENTS_MAX: usize = 10;
/// How long a client may take to read an answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why nobody serves the API.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// There is no thread for it, or no event.
    #[error("start the API's thread: {0}")]
    Start(#[from] io::Error),
}

/// The running thread. It ends when this value is dropped, after the answer that it is writing.
#[derive(Debug)]
pub(super) struct Server {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `socket` on a thread of its own, which goes under its filter before it reads anything. Requests go to `asker`;
    /// bodies are at most `limit` bytes long.
    pub(super) fn start(
        socket: &ApiSocket,
        asker: Asker,
        seccomp: &Seccomp,
        limit: usize,
    ) -> Result<Self, ServerError> {
        let stop = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC);
        let stop = Arc::new(stop.map_err(io::Error::from)?);
        let (listener, stopped) = (socket.listener()?, stop.clone());
        let seccomp = seccomp.clone();
        let thread = Builder::new()
            .name("api".into())
            .stack_size(STACK)
            .spawn(move || match seccomp.enter(List::Api) {
                Ok(()) => Service::new(asker, limit).run(&listener, &stopped),
                Err(SeccompError::Install { reason, .. }) => log::error!("the API is not served: {reason}"),
                Err(error) => log::error!("the API is not served: {error}"),
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.stop.write(1) {
            log::debug!("stop the API's thread: {error}");
        } else if let Some(thread) = self.thread.take() {
            // A panic has been printed by the thread itself.
            let _ = thread.join();
        }
    }
}

/// A client, and what it sent that was not served yet.
struct Client {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// It was told that the body may come.
    told: bool,
}

/// Whether a client stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stay {
    Yes,
    No,
}

/// What the thread knows. The client that was heard last is the last of the list.
struct Service {
    asker: Asker,
    limit: usize,
    clients: Vec<Client>,
}

impl Service {
    fn new(asker: Asker, limit: usize) -> Self {
        Self {
            asker,
            limit,
            clients: Vec::new(),
        }
    }

    fn run(mut self, listener: &Listener, stop: &EventFd) {
        loop {
            let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
            let mut fds = vec![readable(stop.as_fd()), readable(listener.as_fd())];
            fds.extend(self.clients.iter().map(|client| readable(client.stream.as_fd())));
            if let Err(error) = poll(&mut fds, PollTimeout::NONE)
                && error != nix::Error::EINTR
            {
                return log::error!("the API is not served any more: wait for clients: {error}");
            }
            let mut ready = fds.iter().map(|fd| fd.any() == Some(true));
            if ready.next() == Some(true) {
                return;
            }
            let knocks = ready.next() == Some(true);
            let ready: Vec<bool> = ready.collect();
            let clients = std::mem::take(&mut self.clients).into_iter().zip(ready);
            let (speaking, silent): (Vec<_>, Vec<_>) = clients.partition(|(_, ready)| *ready);
            self.clients = silent.into_iter().map(|(client, _)| client).collect();
            speaking.into_iter().for_each(|(client, _)| self.hear(client));
            if knocks && let Some(stream) = listener.accept() {
                if self.clients.len() >= CLIENTS_MAX {
                    drop(self.clients.remove(0));
                }
                self.clients.push(Client {
                    stream,
                    buffer: Vec::new(),
                    told: false,
                });
            }
        }
    }

    /// Takes what a client says; it stays, unless it is gone or was sent away.
    fn hear(&mut self, mut client: Client) {
        let mut piece = [0; 4096];
        let stay = match client.stream.read(&mut piece) {
            Ok(0) => Stay::No,
            Ok(length) => {
                client.buffer.extend_from_slice(&piece[..length]);
                self.serve(&mut client)
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Stay::Yes
            }
            Err(_) => Stay::No,
        };
        if stay == Stay::Yes {
            self.clients.push(client);
        }
    }

    /// Serves all whole requests in a client's buffer, which is never longer than one of them and a piece.
    fn serve(&self, client: &mut Client) -> Stay {
        loop {
            match http::parse(&client.buffer, self.limit) {
                Ok(Parsed::Partial { waits }) => {
                    if waits && !std::mem::replace(&mut client.told, true) {
                        return client.send(http::CONTINUE);
                    }
                    return Stay::Yes;
                }
                Ok(Parsed::Whole { head, body }) => {
                    let end = body.end;
                    let bytes = client.buffer.get(body).unwrap_or_default();
                    let request = route(head.method, &head.path, bytes);
                    let reply = match request {
                        Ok(request) => self.ask(request),
                        Err(refusal) => Some(Reply::Refused(refusal.to_string())),
                    };
                    client.buffer.drain(..end);
                    client.told = false;
                    // The machine has come to its end, and so does this.
                    let Some(reply) = reply else {
                        return Stay::No;
                    };
                    let (status, text) = written(reply);
                    let stay = client.send(&http::answer(status, text.as_deref(), head.close));
                    if head.close || stay == Stay::No {
                        return Stay::No;
                    }
                }
                Err(error) => {
                    let text = fault(error.to_string());
                    client.send(&http::answer(error.status(), Some(&text), true));
                    client.leave();
                    return Stay::No;
                }
            }
        }
    }

    fn ask(&self, request: Request) -> Option<Reply> {
        match self.asker.ask(request)? {
            Reply::Open(wanted) => match *wanted {
                ToOpen::Other { config, patch, same } => match open(&config, same) {
                    Ok(disk) => self.asker.ask(Request::PatchDrive(patch, Some(disk))),
                    Err(error) => Some(refused(&config, &error)),
                },
                ToOpen::New { config, spec } => match Block::open(&config) {
                    Ok(block) => self.asker.ask(Request::PlugDrive(spec, Box::new(block))),
                    Err(error) => Some(refused(&config, &error)),
                },
            },
            reply => Some(reply),
        }
    }
}

/// Opens a drive's new disk. One that the drive has already is locked by ourselves, and only its size is looked at.
fn open(config: &BlockConfig, same: bool) -> Result<NewDisk, BlockError> {
    match Disk::open(config) {
        Err(BlockError::InUse { .. }) if same => Disk::measure(config).map(NewDisk::Same),
        opened => opened.map(NewDisk::Other),
    }
}

fn refused(config: &BlockConfig, error: &BlockError) -> Reply {
    Reply::Refused(format!("drives.{}.path_on_host: {error}", config.id))
}

fn written(reply: Reply) -> (Status, Option<String>) {
    match reply {
        Reply::Done => (Status::Done, None),
        Reply::Json(text) => (Status::Ok, Some(text)),
        Reply::Refused(message) => (Status::Bad, Some(fault(message))),
        Reply::Text(text) => (Status::Text, Some(text)),
        Reply::TooLarge(message) => (Status::TooLarge, Some(fault(message))),
        Reply::Open(..) => (Status::Bad, Some(fault("the disk was asked for twice".into()))),
    }
}

impl Client {
    /// Sends all of `bytes`, for which the client has to make room in time.
    fn send(&mut self, mut bytes: &[u8]) -> Stay {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(0) => return Stay::No,
                Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::POLLOUT)];
                    let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::ZERO);
                    if !matches!(poll(&mut fds, patience), Ok(1..)) {
                        return Stay::No;
                    }
                }
                Err(_) => return Stay::No,
            }
        }
        Stay::Yes
    }

    /// Reads what is still to be read before the end: a socket that is closed before that takes the answer with it.
    fn leave(&mut self) {
        let mut rest = [0; 4096];
        for _ in 0..64 {
            if !matches!(self.stream.read(&mut rest), Ok(1..)) {
                return;
            }
        }
    }
}
