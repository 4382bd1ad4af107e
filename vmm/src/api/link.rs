//! Between the API's thread and the main one: a request there, its answer back.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::reply::Reply;
use super::request::Request;

/// The API's end.
#[derive(Debug)]
pub(super) struct Asker {
    requests: Sender<Request>,
    replies: Receiver<Reply>,
    bell: Arc<EventFd>,
}

/// The main thread's end.
#[derive(Debug)]
pub struct Answerer {
    requests: Receiver<Request>,
    replies: Sender<Reply>,
    bell: Arc<EventFd>,
}

/// Both ends of a new link.
pub(super) fn link() -> io::Result<(Asker, Answerer)> {
    let bell = Arc::new(EventFd::from_flags(
        EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC,
    )?);
    let (to_answerer, requests) = channel();
    let (to_asker, replies) = channel();
    let asker = Asker {
        requests: to_answerer,
        replies,
        bell: bell.clone(),
    };
    let answerer = Answerer {
        requests,
        replies: to_asker,
        bell,
    };
    Ok((asker, answerer))
}

impl Asker {
    /// Hands a request over and waits for its answer; nothing where the machine has come to its end.
    pub(super) fn ask(&self, request: Request) -> Option<Reply> {
        self.requests.send(request).ok()?;
        self.bell.write(1).ok()?;
        self.replies.recv().ok()
    }
}

impl Answerer {
    /// The next request, if there is one. Each has to be answered before the next one comes.
    pub fn next(&self) -> Option<Request> {
        let _ = self.bell.read();
        self.requests.try_recv().ok()
    }

    /// Answers the last one.
    pub fn answer(&self, reply: Reply) {
        // Nobody waits where the API's thread has ended.
        let _ = self.replies.send(reply);
    }
}

/// Readable when there is a request.
impl AsFd for Answerer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// Readable when there is a request.
impl AsRawFd for Answerer {
    fn as_raw_fd(&self) -> RawFd {
        self.bell.as_fd().as_raw_fd()
    }
}
