//! What `secovia-vmm` takes and gives. Wire types only: nothing here is checked beyond its shape.
//!
//! The configuration's keys are those of Firecracker's 1.x configuration file, so that one file drives both.

mod config;
mod exit;

pub use config::*;
pub use exit::Exit;
