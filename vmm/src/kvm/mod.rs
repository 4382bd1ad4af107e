//! KVM, as thinly as possible. With [`crate::memory`] and [`crate::sys`] the only place for `unsafe` in this crate.
//!
//! The order in which a machine is made decides on its start: a memory slot that is added after an interrupt
//! controller costs a grace period (5 to 7 ms). So: [`Vm::furnish`] takes the memory and registers every slot, then the
//! task state segment, then the split interrupt controller; vCPUs come last.

mod host;
mod questions;
mod vcpu;
mod vm;

pub use host::{Host, Optional};
pub use questions::Questions;
pub use vcpu::{Stop, Vcpu, VcpuExit, install_kick_handler};
pub use vm::Vm;

use crate::confine::SeccompError;

/// What KVM refused.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// There is no usable `/dev/kvm`.
    #[error(
        "open /dev/kvm: {0}; load the kvm_intel or kvm_amd module and give this user access to the device"
    )]
    Open(kvm_ioctls::Error),
    /// A KVM from another time.
    #[error("/dev/kvm speaks API version {found}, this program version 12")]
    Version {
        /// Its version.
        found: i32,
    },
    /// KVM lacks what no machine can do without.
    #[error("/dev/kvm lacks {0}; a Linux 4.13 or newer has it")]
    Lacks(&'static str),
    /// An ioctl failed.
    #[error("KVM: {operation}: {source}")]
    Ioctl {
        /// What was tried, on what.
        operation: &'static str,
        /// Why it failed.
        source: kvm_ioctls::Error,
    },
    /// A thread that asks KVM came to grief.
    #[error("a thread that asks KVM panicked")]
    Questions,
    /// A thread that asks KVM is not under its filter.
    #[error(transparent)]
    Confine(SeccompError),
    /// KVM took a part of the registers only.
    #[error("KVM: set model-specific register {0:#x}: refused")]
    Msr(u32),
    /// A CPU template asks for what is not there.
    #[error("cpu-config.kvm_capabilities: KVM has no capability {0} here; leave it out")]
    Capability(u32),
}

/// Names the operation of a failing ioctl.
fn failed(operation: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> KvmError {
    move |source| KvmError::Ioctl { operation, source }
}
