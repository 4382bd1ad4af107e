//! Asking KVM what it supports, while something else is done.

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use kvm_bindings::kvm_cpuid_entry2;

use super::{Host, KvmError};

/// For one ioctl and its answer, which is on the heap.
const STACK: usize = 64 << 10;

/// `/dev/kvm`, with a question under way.
///
/// KVM answers by asking the processor dozens of times. On hardware that takes microseconds; in a virtual machine each
/// time is an exit, and the answer takes longer than everything else that a machine's start needs.
#[derive(Debug)]
pub struct Questions {
    host: Result<Arc<Host>, KvmError>,
    /// None where there is nobody to ask.
    cpuid: Option<JoinHandle<Result<Vec<kvm_cpuid_entry2>, KvmError>>>,
}

impl Questions {
    /// Opens `/dev/kvm` and asks. That it does not open is told by [`Self::host`], when it matters.
    pub fn ask() -> io::Result<Self> {
        let host = Host::open().map(Arc::new);
        let ask = |host: &Arc<Host>| {
            let host = host.clone();
            Builder::new()
                .stack_size(STACK)
                .spawn(move || host.supported_cpuid())
        };
        let cpuid = host.as_ref().ok().map(ask).transpose()?;
        Ok(Self { host, cpuid })
    }

    /// The open device.
    pub fn host(&self) -> Result<&Host, KvmError> {
        self.host.as_deref().map_err(|error| *error)
    }

    /// Waits for what KVM can show a guest in CPUID.
    pub fn supported_cpuid(self) -> Result<Vec<kvm_cpuid_entry2>, KvmError> {
        match self.cpuid {
            Some(thread) => thread.join().map_err(|_| KvmError::Questions)?,
            None => self.host?.supported_cpuid(),
        }
    }
}
