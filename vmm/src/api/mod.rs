//! The API: Firecracker's resources and rules over a Unix socket.
//!
//! ```text
//! server    the API's thread: the socket, one request at a time         http   bytes to requests and back (pure)
//!    |                                                                   route  method, path, body -> Request (pure)
//! link      a request to the main thread, its answer back
//!    |
//! clerk     on the main thread: weighs, has done, takes down             model  the machine as asked for (pure)
//! ```
//! Only the API's thread reads what clients send, and only the main thread knows the machine. The former is under a filter
//! of its own (`rules.json`, list `api`) before it reads a byte. What a request leads to is an [`Effect`]: whoever has the
//! machine ([`Hands`]) brings it about, before the start by making a machine, afterwards by changing one. What was not
//! brought about is not taken down either, so that a request that is refused changes nothing.
//!
//! The one thing that the API's thread does itself is to open the new file of a drive while the machine runs: the main
//! thread cannot open anything any more.

mod clerk;
pub mod http;
mod link;
mod model;
mod office;
mod reply;
mod request;
mod route;
mod server;
mod socket;
#[cfg(test)]
mod tests;

pub use clerk::{Clerk, Hands, RequestCounts};
pub use model::{Effect, Metadata, Model, Plan};
pub use office::Office;
pub use reply::{Refusal, Reply, ToOpen};
pub use request::{Kind, NewDisk, Request, Season};
pub use route::route;
pub use server::ServerError;
pub use socket::{ApiConfig, ApiSocket, SocketError};
