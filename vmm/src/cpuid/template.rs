//! A template: bits of CPUID and of model-specific registers that are set or cleared.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// Bits that are changed, and what they are then; the others stay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bits {
    /// Those that are changed.
    pub mask: u64,
    /// What they are then.
    pub value: u64,
}

impl Bits {
    /// `value` with the changes.
    pub fn apply(self, value: u64) -> u64 {
        value & !self.mask | self.value & self.mask
    }
}

/// A change of a leaf: of EAX, EBX, ECX and EDX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafChange {
    /// The leaf.
    pub function: u32,
    /// Its subleaf.
    pub index: u32,
    /// Its registers.
    pub registers: [Bits; 4],
}

/// What differs from the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Template {
    /// KVM's capabilities that must be there.
    pub capabilities: Vec<u32>,
    /// Leaves of CPUID.
    pub leaves: Vec<LeafChange>,
    /// Model-specific registers and their bits.
    pub registers: Vec<(u32, Bits)>,
}

/// A leaf that is to be changed is none of this host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("leaf {function:#x}, subleaf {index:#x}: KVM has none here; leave it out")]
pub struct NoLeaf {
    function: u32,
    index: u32,
}

impl Template {
    /// Changes `entries`: to be called when they are all but each vCPU's own numbers, which no template changes.
    pub fn apply(&self, entries: &mut [kvm_cpuid_entry2]) -> Result<(), NoLeaf> {
        for change in &self.leaves {
            let LeafChange { function, index, .. } = *change;
            let is_meant = |entry: &&mut kvm_cpuid_entry2| {
                let index_counts = entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0;
                entry.function == function && entry.index == index && (index_counts || index == 0)
            };
            let entry = entries
                .iter_mut()
                .find(is_meant)
                .ok_or(NoLeaf { function, index })?;
            let registers = [&mut entry.eax, &mut entry.ebx, &mut entry.ecx, &mut entry.edx];
            for (register, bits) in registers.into_iter().zip(change.registers) {
                // Neither has a bit above the 32 lowest.
                *register = bits.apply((*register).into()) as u32;
            }
        }
        Ok(())
    }
}
