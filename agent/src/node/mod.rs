//! All VMs of this machine: what the API asks of them, and how they are found again when the agent starts.

mod check;
mod containers;
mod error;
mod images;
mod lender;
mod lending;
mod network;
mod open;
mod service;

pub use error::NodeError;
pub use open::OpenError;
pub use service::{Node, show};
