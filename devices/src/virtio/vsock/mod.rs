//! Virtio-vsock (virtio 1.2, 5.10): streams between the guest's programs and Unix sockets of the host.
//!
//! # Host to guest
//! A client connects to the device's Unix socket and sends `CONNECT port\n`. When a program in the guest accepts
//! on that port, the client gets `OK host_port\n`, and from there on its bytes are the stream's. When none does,
//! the socket is closed.
//!
//! # Guest to host
//! A program in the guest that connects to CID 2, port N reaches whoever listens at `PATH_N`, where PATH is the
//! device's own socket. When nobody does, the guest's connection is reset.
//!
//! # Bounds
//! - [`MAX_STREAMS`] streams. Beyond, the guest's requests are reset and the host's clients closed. Each stream has
//!   one descriptor.
//!   In all they keep 32 MiB at most, which the host sets aside for a machine beyond its memory.
//! - 128 KiB a stream of bytes that came from the guest and that the host's side did not take yet; that is the
//!   credit the guest gets, and a stream that ignores it is reset. Nothing is kept of the other direction: bytes
//!   stay in the socket until the guest gives a buffer and credit.
//! - 128 clients that have not sent their line; one more, and the oldest is closed.
//! - 256 resets that wait for the guest's buffers. With that many, its packets wait too.
//!
//! # Layers
//! `credit` and `connection` are one stream as plain values, `muxer` all of them; `stream`, `listener` and `host` do
//! the system calls; `engine` ties these together, and `device` ties it to the queues.

mod connection;
mod credit;
mod device;
mod engine;
mod host;
mod listener;
mod muxer;
mod packet;
mod stream;

use std::io;
use std::path::PathBuf;

pub use device::{Vsock, VsockCounters};

/// The streams that can be open at a time, those included whose last bytes the host has not taken yet.
pub const MAX_STREAMS: usize = 256;

/// Why there is no vsock device.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    /// The guest's address is one of the reserved ones.
    #[error("vsock: guest CID {cid} is reserved; use one from 3 to 4294967294")]
    ReservedCid {
        /// The address.
        cid: u64,
    },
    /// Something is at the socket's path.
    #[error("vsock: {path} exists already; remove it or choose another path", path = .path.display())]
    Exists {
        /// The socket's path.
        path: PathBuf,
    },
    /// The socket cannot be created.
    #[error("vsock: create the socket {path}", path = .path.display())]
    Bind {
        /// The socket's path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The host's sockets cannot be watched.
    #[error("vsock: watch the host's sockets")]
    Epoll {
        /// Why.
        source: io::Error,
    },
}

/// Where a packet's payload comes from.
trait Payload {
    /// Why it can fail.
    type Error;

    /// Fills `buffer` with the next bytes; the caller takes no more than the header said.
    fn take(&mut self, buffer: &mut [u8]) -> Result<(), Self::Error>;
}
