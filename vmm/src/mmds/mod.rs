//! The metadata service: what the host tells the guest, over HTTP at an address of its own on the guest's interfaces
//! (Firecracker's MMDS, `/mmds` and `/mmds/config`).
//!
//! ```text
//! store     the data, as JSON, and what of it a request gets (pure)          http   bytes to requests and back (pure)
//! token     the tokens of a session (pure)
//! endpoint  a TCP/IP stack for one interface, behind which the store is      wire   frames in and out of it
//! ```
//! All of it is fed by the guest, with frames, segments and requests of its choice: nothing in here may panic on them, and
//! nothing grows with them. An endpoint belongs to its network device and runs on whichever thread has that; the store is
//! shared by all of them and the API, each of which holds its lock for one request.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod endpoint;
mod file;
mod http;
mod store;
#[cfg(test)]
mod tests;
mod token;
mod wire;

pub use endpoint::Endpoint;
pub use file::{FileError, read};
pub use http::{Answer, HttpError, Parsed, Request, parse};
pub use store::{Mmds, MmdsError, SharedMmds};
