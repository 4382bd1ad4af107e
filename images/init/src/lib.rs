//! The guest's PID 1.
//!
//! The binary mounts the image, moves into it and then serves the host over vsock; what it serves is this library, which
//! has no PID-1 duties of its own: on a Unix socket it runs natively, for tests and for hosts that want a guest without
//! a machine.
//!
//! ```text
//! main ── boot (mounts, loopback)        thin: system calls
//!   │  └─ power (signals, power-off, network)  thin
//!   └── server ── session                one thread for each connection
//!                   └── guest            the workload, the sessions, the end
//!                         ├── pod        several containers in its place: their life (pure), their probes
//!                         └── process    one command: its streams, its end
//!                               ├── output           pure: the bounded history of what it wrote
//!                               ├── plan             what is looked up in the image: users (pure), program
//!                               ├── stdin, pump      bytes between descriptors
//!                               └── children         spawn and reap
//! ```
//!
//! Locks: a `process::Process` locks its state, then `children::Children` its table; never the other way round, and
//! nobody writes to a connection while it holds either.

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

pub mod children;
mod connection;
mod guest;
pub mod listen;
mod machine;
pub mod network;
mod output;
mod plan;
mod pod;
mod process;
mod program;
mod pump;
pub mod server;
mod session;
mod stdin;
pub mod sys;
mod users;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes a lock whose data is whole whatever happened to its last holder: every critical section here leaves it so.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
