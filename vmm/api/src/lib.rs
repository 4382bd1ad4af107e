//! What `secovia-vmm` takes and gives. Wire types only: nothing here is checked beyond its shape.
//!
//! The keys are those of Firecracker's 1.x configuration file and API, so that what drives the one drives the other.

mod config;
mod cpu;
mod exit;
#[cfg(feature = "openapi")]
mod openapi;
mod requests;

pub use config::*;
pub use cpu::*;
pub use exit::Exit;
#[cfg(feature = "openapi")]
pub use openapi::openapi;
pub use requests::*;
