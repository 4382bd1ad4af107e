//! What the host's KVM can do.

use std::arch::x86_64::{__cpuid, CpuidResult};

use kvm_bindings::{KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm, VmFd};

use super::{KvmError, failed};
use crate::cpuid;

/// What no machine can do without.
const REQUIRED: [(Cap, &str); 6] = [
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::SplitIrqchip, "KVM_CAP_SPLIT_IRQCHIP"),
    (Cap::SignalMsi, "KVM_CAP_SIGNAL_MSI"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    (Cap::MpState, "KVM_CAP_MP_STATE"),
];

/// What a machine takes where it is there, and does without where it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Optional {
    /// The local APIC's timer runs by TSC deadline.
    pub tsc_deadline: bool,
    /// The guest's performance counters can be switched off.
    pub pmu_off: bool,
}

/// An open `/dev/kvm`.
#[derive(Debug)]
pub struct Host {
    kvm: Kvm,
}

impl Host {
    /// Opens `/dev/kvm`. Whether it can do what is needed shows when it is asked to: [`Host::missing`] says what was
    /// missing after a failure, so that a start that succeeds does not pay for questions.
    pub fn open() -> Result<Self, KvmError> {
        let kvm = Kvm::new().map_err(KvmError::Open)?;
        match kvm.get_api_version() {
            version if version == KVM_API_VERSION as i32 => Ok(Self { kvm }),
            found => Err(KvmError::Version { found }),
        }
    }

    /// The API's version; always 12 for an open host.
    pub fn api_version(&self) -> i32 {
        self.kvm.get_api_version()
    }

    /// The names of required capabilities that are not there.
    pub fn missing(&self) -> Vec<&'static str> {
        REQUIRED
            .iter()
            .filter(|(cap, _)| !self.kvm.check_extension(*cap))
            .map(|(_, name)| *name)
            .collect()
    }

    /// Whether all capabilities of these numbers are there.
    pub fn has_all(&self, numbers: &[u32]) -> Result<(), KvmError> {
        let missing = |number: &&u32| self.kvm.check_extension_raw((**number).into()) <= 0;
        match numbers.iter().find(missing) {
            Some(number) => Err(KvmError::Capability(*number)),
            None => Ok(()),
        }
    }

    /// Which optional capabilities there are.
    pub fn optional(&self) -> Optional {
        let optional = Optional {
            tsc_deadline: self.kvm.check_extension(Cap::TscDeadlineTimer),
            pmu_off: self
                .kvm
                .check_extension_raw(kvm_bindings::KVM_CAP_PMU_CAPABILITY.into())
                & kvm_bindings::KVM_PMU_CAP_DISABLE as i32
                != 0,
        };
        if !optional.tsc_deadline {
            log::debug!("KVM has no TSC deadline timer: the guest calibrates its timer");
        }
        if !optional.pmu_off {
            log::debug!("KVM cannot switch performance counters off: they are hidden in CPUID only");
        }
        optional
    }

    /// A new virtual machine, empty.
    pub(super) fn create_machine(&self) -> Result<VmFd, KvmError> {
        self.kvm.create_vm().map_err(failed("create a virtual machine"))
    }

    /// What KVM can show a guest in CPUID, with the host processor's name.
    pub(super) fn supported_cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>, KvmError> {
        let supported = self
            .kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(failed("get supported CPUID"))?;
        let mut supported = supported.as_slice().to_vec();
        cpuid::add_brand(&mut supported, |leaf| {
            let CpuidResult { eax, ebx, ecx, edx } = __cpuid(leaf);
            [eax, ebx, ecx, edx]
        });
        Ok(supported)
    }
}
