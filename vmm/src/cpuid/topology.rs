//! How the vCPUs are arranged: one package, cores, and one or two threads in each.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// Types of a level in leaf 0xb.
const LEVEL_THREAD: u32 = 1;
const LEVEL_CORE: u32 = 2;

/// The arrangement. A vCPU's APIC has the vCPU's own number: with one or two threads in a core, and an even number of
/// vCPUs where it is two, numbering leaves no holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    vcpus: u8,
    threads_per_core: u8,
}

impl Topology {
    /// `vcpus` (1 or more), two of them threads of one core if `smt`, which then takes an even number.
    pub fn new(vcpus: u8, smt: bool) -> Self {
        let threads_per_core = if smt && vcpus.is_multiple_of(2) { 2 } else { 1 };
        Self {
            vcpus: vcpus.max(1),
            threads_per_core,
        }
    }

    /// How many vCPUs.
    pub fn vcpus(self) -> u8 {
        self.vcpus
    }

    /// How many of them share a core.
    pub fn threads_per_core(self) -> u8 {
        self.threads_per_core
    }

    /// How many numbers the package's APICs can have: a power of two.
    pub(super) fn logical_ids(self) -> u8 {
        self.vcpus.next_power_of_two()
    }

    /// How many numbers its cores can have.
    pub(super) fn core_ids(self) -> u8 {
        self.logical_ids() / self.threads_per_core
    }

    /// How many bits an APIC's number has.
    pub(super) fn id_bits(self) -> u32 {
        self.logical_ids().trailing_zeros()
    }

    /// How many APIC numbers share a cache: those of a core up to level 2, all from level 3 on.
    pub(super) fn sharing_cache(self, level: u32) -> u32 {
        u32::from(if level <= 2 {
            self.threads_per_core
        } else {
            self.logical_ids()
        })
    }

    /// Leaf 0xb (or its successor 0x1f): threads, cores, the end.
    pub(super) fn levels(self, function: u32) -> [kvm_cpuid_entry2; 3] {
        let threads = u32::from(self.threads_per_core);
        let level = |index: u32, shift: u32, count: u32, kind: u32| kvm_cpuid_entry2 {
            function,
            index,
            flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            eax: shift,
            ebx: count,
            ecx: kind << 8 | index,
            ..Default::default()
        };
        [
            level(0, threads.trailing_zeros(), threads, LEVEL_THREAD),
            level(1, self.id_bits(), self.vcpus.into(), LEVEL_CORE),
            level(2, 0, 0, 0),
        ]
    }
}
