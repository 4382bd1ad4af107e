//! The API, put together.

use super::clerk::{Clerk, Hands};
use super::link::{Answerer, link};
use super::model::Model;
use super::server::{Server, ServerError};
use super::socket::ApiSocket;
use crate::confine::Seccomp;
use crate::mmds::SharedMmds;

/// All of the API, as the main thread has it.
#[derive(Debug)]
pub struct Office {
    /// Serves requests.
    pub clerk: Clerk,
    /// Where they come from. Goes before the server, which waits for its thread, which may wait for an answer.
    pub requests: Answerer,
    _server: Server,
    _socket: ApiSocket,
}

impl Office {
    /// The next request, served by `hands`; says whether there was one.
    pub fn serve_next(&mut self, hands: &mut impl Hands) -> bool {
        let Some(request) = self.requests.next() else {
            return false;
        };
        self.requests.answer(self.clerk.serve(request, hands));
        true
    }

    /// Serves `socket`, about the machine that `model` describes.
    pub fn open(
        socket: ApiSocket,
        model: Model,
        mmds: SharedMmds,
        seccomp: &Seccomp,
        max_payload: usize,
    ) -> Result<Self, ServerError> {
        let (asker, requests) = link()?;
        Ok(Self {
            clerk: Clerk::new(model, mmds),
            requests,
            _server: Server::start(&socket, asker, seccomp, max_payload)?,
            _socket: socket,
        })
    }
}
