//! The node agent as a whole, run as its users run it: as a process of its own, over its socket.
//!
//! The scenarios do not know which VMM serves them. `tests/daemon.rs` runs them with a stand-in that needs no KVM,
//! `tests/linux_daemon.rs` with the real one and a real guest.

mod bed;
mod client;
mod programs;
pub mod scenarios;

pub(crate) use bed::PATIENCE;
pub use bed::{Settings, Testbed};
pub use client::{Ended, attach, exec, exec_in, log_text, run, sh};
pub use programs::Programs;
