//! The guest's server: accepts connections and serves each in a thread of its own.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use secovia_guest_protocol::{Frame, GuestErrorCode};

use crate::children::{Reaping, thread};
use crate::connection::{Connection, LAST_WORD};
use crate::guest::{Guest, MAX_SESSIONS};
use crate::listen::Listener;
use crate::plan::refused;
use crate::session;

pub use crate::machine::{Machine, Room};

/// Serves sessions.
#[derive(Clone)]
pub struct Server {
    guest: Arc<Guest>,
}

impl Server {
    /// A server whose workload waits to be started.
    pub fn new(machine: impl Machine, reaping: Reaping) -> io::Result<Self> {
        Guest::new(machine, reaping).map(|guest| Self { guest })
    }

    /// Serves everyone who connects, for ever; returns only when the listener fails.
    pub fn serve(&self, listener: &impl Listener) -> io::Error {
        loop {
            match listener.accept() {
                Ok(connection) => self.session(connection),
                Err(error) if passes(&error) => {}
                Err(error) if scarce(&error) => std::thread::sleep(Duration::from_millis(50)),
                Err(error) => return error,
            }
        }
    }

    /// Serves one connection in a thread of its own.
    pub fn session(&self, connection: OwnedFd) {
        let connection = Arc::new(Connection::new(connection));
        if !self.guest.enter() {
            let message = format!("there are {MAX_SESSIONS} sessions already");
            connection.send_within(LAST_WORD, &Frame::Error(refused(GuestErrorCode::Failed, message)));
            return;
        }
        let guest = Arc::clone(&self.guest);
        let started = thread("session", move || {
            session::serve(&guest, connection);
            guest.leave();
        });
        if started.is_err() {
            self.guest.leave();
        }
    }

    /// Ends the workload (SIGTERM, after the grace SIGKILL), lets the host read the end of the story and powers the
    /// machine off. Returns at once. Called again it can only shorten the grace.
    pub fn shutdown(&self, grace: Duration) {
        self.guest.shutdown(grace);
    }
}

/// Errors of accept that concern one connection only.
fn passes(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, NotConnected};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted | NotConnected
    )
}

/// Errors of accept that pass with time: no descriptors, no memory.
fn scarce(error: &io::Error) -> bool {
    let scarce = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    error.raw_os_error().is_some_and(|code| scarce.contains(&code))
}
