//! What holds the process when a guest has taken it over. The jail (`secovia-jailer`) is around the process; what is in
//! here the process does to itself, so that it stands without a jail too.
//!
//! # System calls ([`Seccomp`])
//! The rules are data: `vmm/seccomp/rules.json`, with a reason for each; compiled when this crate is. The main thread
//! installs the filter `start` before it reads anything, so that every thread is under it. Each thread then narrows what
//! it may do, and nothing widens it again: a worker before it asks KVM, a vCPU before its first instruction of the guest,
//! the main thread once its event loop stands. From then on nothing can be opened, no thread or process started, no memory
//! made executable, no KVM call made but to run the guest and to send it interrupts.
//!
//! A call that is not in the rules raises SIGSYS. Its handler writes the call's name, its arguments and
//! the kind of thread to the log and ends the process with [`secovia_vmm_api::Exit::ForbiddenCall`].
//!
//! # Files ([`Landlock`])
//! Before the kernel image is looked at the process gives up every right to files but those of its configuration: disks in
//! their modes, and sockets in the folder of the vsock socket. What connects to the host's services (`PATH_port`) is only
//! held to that folder from Linux 7.1 on; before, the jail and the sockets' own permissions do. Where the kernel has no
//! Landlock, the log says so on level debug.
//!
//! # A new device
//! brings a group of rules (`rules.json` says how) and, if it opens files while the machine is made, a line in
//! `machine::inventory` that names them.

mod landlock;
mod seccomp;
mod violation;

pub use landlock::{Landlock, Right};
pub use seccomp::{Seccomp, SeccompError};

/// What a process does to itself.
#[derive(Debug, Clone)]
pub struct Confinement {
    /// Filters of system calls.
    pub seccomp: Seccomp,
    /// Rights to files.
    pub landlock: Landlock,
    /// Those that are kept whatever the machine is.
    pub rights: Vec<Right>,
}
