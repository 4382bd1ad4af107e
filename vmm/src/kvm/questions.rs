//! What KVM is slow at, asked for before it is needed.

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use kvm_bindings::kvm_cpuid_entry2;
use kvm_ioctls::VmFd;
use secovia_seccomp::List;

use super::{Host, KvmError, failed};
use crate::confine::Seccomp;

/// For one ioctl and its answer, which is on the heap.
const STACK: usize = 64 << 10;

/// `/dev/kvm`, with two questions under way, each on a thread of its own while the caller reads a configuration and
/// loads a kernel.
///
/// A new virtual machine waits for a grace period of the kernel's on hosts before Linux 6.14: many milliseconds. And what
/// CPUID can say is asked of the processor leaf by leaf: where the host is a virtual machine itself, each is an exit, and
/// all of them take longer than the rest of a start.
#[derive(Debug)]
pub struct Questions {
    /// The open device.
    pub(crate) host: Arc<Host>,
    /// A new virtual machine, empty.
    pub(crate) machine: Answer<VmFd>,
    /// What KVM can show a guest in CPUID.
    pub(crate) cpuid: Answer<Vec<kvm_cpuid_entry2>>,
}

/// An answer to wait for.
#[derive(Debug)]
pub(crate) struct Answer<T>(JoinHandle<Result<T, KvmError>>);

impl Questions {
    /// Opens `/dev/kvm` and asks.
    /// Each thread goes under the filter of workers first.
    pub fn ask(seccomp: &Seccomp) -> Result<Self, KvmError> {
        let host = Arc::new(Host::open()?);
        let machine = Answer::of(&host, seccomp, Host::create_machine)?;
        let cpuid = Answer::of(&host, seccomp, Host::supported_cpuid)?;
        Ok(Self { host, machine, cpuid })
    }
}

impl<T: Send + 'static> Answer<T> {
    fn of(
        host: &Arc<Host>,
        seccomp: &Seccomp,
        question: fn(&Host) -> Result<T, KvmError>,
    ) -> Result<Self, KvmError> {
        let (host, seccomp) = (host.clone(), seccomp.clone());
        let thread = Builder::new().stack_size(STACK).spawn(move || {
            seccomp.enter(List::Worker).map_err(KvmError::Confine)?;
            question(&host)
        });
        thread
            .map(Self)
            .map_err(|error| kvm_ioctls::Error::new(error.raw_os_error().unwrap_or(libc::EAGAIN)))
            .map_err(failed("start a thread to ask"))
    }

    /// Waits for it.
    pub(crate) fn wait(self) -> Result<T, KvmError> {
        self.0.join().map_err(|_| KvmError::Questions)?
    }
}
