//! Why a machine did not run, or ended in a way that is nobody's wish.

use std::io;

use landlock::RulesetError;
use secovia_vmm_api::Exit;

use crate::acpi::AcpiError;
use crate::boot::BootError;
use crate::confine::SeccompError;
use crate::cpuid::NoLeaf;
use crate::kvm::KvmError;
use crate::memory::MemoryError;

/// Why there is no machine, or no more.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// KVM refused.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// KVM lacks something, which is why it refused.
    #[error("{error} (this KVM lacks {missing})")]
    KvmLacks {
        /// What was refused.
        error: KvmError,
        /// The capabilities that are missing.
        missing: String,
    },
    /// A thread is not under its filter of system calls.
    #[error(transparent)]
    Confine(#[from] SeccompError),
    /// Rights to files were not given up.
    #[error("restrict the process by Landlock: {0}; --no-landlock does without, for guests that are trusted")]
    Landlock(#[from] RulesetError),
    /// There is no memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// What should boot does not.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The CPU template does not fit this host.
    #[error("cpu-config.cpuid_modifiers: {0}")]
    Template(NoLeaf),
    /// The tables were not written.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// A device that the configuration names cannot be had.
    #[error("{field}: {reason}")]
    Device {
        /// The field that names it.
        field: String,
        /// What the device says.
        reason: String,
    },
    /// The machine's own devices do not fit together.
    #[error("put the machine together: {0}")]
    Assembly(String),
    /// The host refused.
    #[error("{operation}: {source}")]
    Host {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The guest was stopped by KVM.
    #[error("KVM cannot go on with the guest: {0}")]
    Guest(String),
}

impl MachineError {
    /// Names the operation of a failing call.
    pub(super) fn host(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Host { operation, source }
    }

    /// The exit status: whether the configuration or something else is to blame.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Boot(_) | Self::Device { .. } | Self::Template(_) => Exit::BadConfiguration,
            Self::Confine(error) => error.exit(),
            Self::Kvm(_)
            | Self::Landlock(_)
            | Self::KvmLacks { .. }
            | Self::Memory(_)
            | Self::Acpi(_)
            | Self::Assembly(_)
            | Self::Host { .. }
            | Self::Guest(_) => Exit::Internal,
        }
    }
}
