//! What `secovia-vmm` takes and gives. Wire types only: nothing here is checked beyond its shape.
//!
//! The keys are those of Firecracker's 1.x configuration file and API, so that what drives the one drives the other.

mod config;
mod exit;
mod requests;

pub use config::*;
pub use exit::Exit;
pub use requests::*;
