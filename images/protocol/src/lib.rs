//! What the node agent (or the CLI, through it) and a guest's PID 1 say to each other.
//!
//! The guest listens on vsock port [`PORT`]. A connection is one *session*: the host sends one
//! [`Frame::Request`], the guest answers with [`Frame::Reply`] or [`Frame::Error`]; sessions of `Attach`, `Exec` (and
//! `AttachTo`, `ExecIn`) and `Watch` then go on as a stream of frames until [`Frame::Exit`], one of `Write` takes a file's
//! bytes, all others end there.
//!
//! A guest runs one workload ([`Request::Start`]) or several containers ([`Request::StartPod`]).
//!
//! A frame on the wire is its kind (1 byte), the length of its payload (4 bytes, little-endian, at most
//! [`MAX_PAYLOAD`]) and the payload: bytes for the data frames, JSON for the rest.
//!
//! Whoever closes its sending half of a connection hangs up; there is no half-open session. `StdinEof` ends a process's
//! input without that. A host that has read [`Frame::Exit`] is expected to hang up soon: a guest that is shutting down
//! waits a moment for it.
//!
//! Both ends treat the other as hostile: [`Decoder`] never allocates more than one payload, never panics, and refuses
//! unknown kinds, lengths and fields.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod codec;
mod message;
mod pod;

pub use codec::{CodecError, Decoder, encode};
pub use message::*;
pub use pod::*;

/// The vsock port that the guest's PID 1 listens on.
pub const PORT: u32 = 1024;

/// The largest payload of one frame, in bytes.
pub const MAX_PAYLOAD: usize = 256 * 1024;
