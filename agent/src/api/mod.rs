//! The local API: HTTP over a Unix socket, for root and the members of one group.

mod body;
mod error;
mod group;
mod images;
mod lending;
mod logs;
mod node;
mod peer;
mod server;
mod session;
mod socket;
mod vms;

pub use error::ApiError;
pub use server::{in_process, openapi, serve};
pub use socket::{Socket, SocketError};
