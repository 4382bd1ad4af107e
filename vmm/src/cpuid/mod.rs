//! What CPUID says in the guest: what KVM supports here, with the guest's own topology, and without what a guest must not
//! have. Plain functions over plain values.

mod template;
#[cfg(test)]
mod tests;
mod topology;

pub use template::{Bits, LeafChange, NoLeaf, Template};
pub use topology::Topology;

use std::ops::RangeInclusive;

use kvm_bindings::kvm_cpuid_entry2;

/// Leaf 1, ECX.
const VMX: u32 = 1 << 5;
const X2APIC: u32 = 1 << 21;
const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, EDX.
const HTT: u32 = 1 << 28;
/// Leaf 0x8000_0001, ECX.
const CMP_LEGACY: u32 = 1 << 1;
const SVM: u32 = 1 << 2;
const PERFCTR_CORE: u32 = 1 << 23;
const PERFCTR_NB: u32 = 1 << 24;
const PERFCTR_LLC: u32 = 1 << 28;
/// The processor's name, in three leaves.
const BRAND: RangeInclusive<u32> = 0x8000_0002..=0x8000_0004;
/// Leaf 0x8000_001d describes AMD's caches.
const AMD_CACHES: u32 = 0x8000_001d;

/// What the guest is shown beyond what KVM supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// How its vCPUs are arranged.
    pub topology: Topology,
    /// KVM's local APIC has the deadline timer, which older KVMs leave to the VMM to announce.
    pub tsc_deadline: bool,
}

/// Puts the processor's name into what KVM supports: KVM leaves it to others to show it. `ask` reads a leaf of the host.
pub fn add_brand(supported: &mut Vec<kvm_cpuid_entry2>, ask: impl Fn(u32) -> [u32; 4]) {
    supported.retain(|entry| !BRAND.contains(&entry.function));
    supported.extend(BRAND.map(|function| {
        let [eax, ebx, ecx, edx] = ask(function);
        kvm_cpuid_entry2 {
            function,
            eax,
            ebx,
            ecx,
            edx,
            ..Default::default()
        }
    }));
}

/// Turns the entries that KVM supports into those that all vCPUs have in common.
///
/// Hidden are nested virtualisation (a guest of a stranger's guest is nobody's need here; a [`Template`] can show it) and performance counters (a
/// view into the neighbours' use of the processor). The brand string and KVM's own leaves stay as they are.
pub fn common(supported: &[kvm_cpuid_entry2], shown: Shown) -> Vec<kvm_cpuid_entry2> {
    let topology = shown.topology;
    let mut entries: Vec<_> = supported
        .iter()
        // They are made anew below; KVM fills in the host's.
        .filter(|entry| !matches!(entry.function, 0xb | 0x1f))
        .copied()
        .collect();

    for entry in &mut entries {
        match entry.function {
            0x1 => {
                entry.ebx = entry.ebx & 0xff00_ffff | u32::from(topology.logical_ids()) << 16;
                entry.ecx = entry.ecx & !VMX | HYPERVISOR | X2APIC;
                if shown.tsc_deadline {
                    entry.ecx |= TSC_DEADLINE;
                }
                set(&mut entry.edx, HTT, topology.vcpus() > 1);
            }
            // Intel's caches; all zero on AMD. A level of 0 ends the list.
            0x4 if entry.eax & 0x1f != 0 => {
                let level = entry.eax >> 5 & 7;
                entry.eax = entry.eax & 0x3fff
                    | (topology.sharing_cache(level) - 1) << 14
                    | (u32::from(topology.core_ids()) - 1) << 26;
            }
            0xa => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
            0x8000_0001 => {
                entry.ecx &= !(SVM | PERFCTR_CORE | PERFCTR_NB | PERFCTR_LLC);
                set(&mut entry.ecx, CMP_LEGACY, topology.vcpus() > 1);
            }
            0x8000_0008 => {
                entry.ecx = topology.id_bits() << 12 | u32::from(topology.vcpus() - 1);
            }
            0x8000_000a | 0x8000_0022 => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
            AMD_CACHES if entry.eax & 0x1f != 0 => {
                let level = entry.eax >> 5 & 7;
                entry.eax = entry.eax & 0x3fff | (topology.sharing_cache(level) - 1) << 14;
            }
            0x8000_001e => {
                entry.ebx = u32::from(topology.threads_per_core() - 1) << 8;
                entry.ecx = 0;
                entry.edx = 0;
            }
            _ => {}
        }
    }

    // 0xb where the processor knows it, 0x1f where it says more levels; here both say the same.
    let highest = supported
        .iter()
        .find(|entry| entry.function == 0)
        .map_or(0, |entry| entry.eax);
    for function in [0xb, 0x1f] {
        if highest >= function {
            entries.extend(topology.levels(function));
        }
    }
    entries
}

/// Writes into `entries` what only vCPU `index` says: its APIC's number.
pub fn personalise(entries: &mut [kvm_cpuid_entry2], topology: Topology, index: u8) {
    for entry in entries {
        match entry.function {
            0x1 => entry.ebx = entry.ebx & 0x00ff_ffff | u32::from(index) << 24,
            0xb | 0x1f => entry.edx = index.into(),
            0x8000_001e => {
                entry.eax = index.into();
                entry.ebx = entry.ebx & !0xff | u32::from(index / topology.threads_per_core());
            }
            _ => {}
        }
    }
}

fn set(register: &mut u32, bit: u32, on: bool) {
    if on {
        *register |= bit;
    } else {
        *register &= !bit;
    }
}
