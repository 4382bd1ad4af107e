//! The ACPI tables of a machine, from which a kernel learns everything about it.
//!
//! Hardware-reduced ACPI (ACPI 6.5, 4.1): no fixed hardware, so no PIC, PIT, RTC or power management timer is promised;
//! reset and sleep registers, and events through a generic event device.

mod dsdt;
mod fadt;
mod madt;
mod mcfg;
mod oem;
#[cfg(test)]
mod tests;

use acpi_tables::{Aml, rsdp::Rsdp, xsdt::XSDT};
use secovia_devices::GuestMemory;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use self::oem::{OEM, OEM_REVISION, OEM_TABLE};
use crate::layout;

pub use dsdt::VirtioSlot;

/// Why the tables were not written.
#[derive(Debug, thiserror::Error)]
pub enum AcpiError {
    /// There is too much to describe.
    #[error("ACPI tables of {size} bytes do not fit into their {max} bytes")]
    Size {
        /// Their size.
        size: usize,
        /// What they may have.
        max: usize,
    },
    /// Guest memory refused.
    #[error("write ACPI tables to guest memory: {0}")]
    Memory(#[from] GuestMemoryError),
}

/// Writes the tables of a machine with `vcpus` vCPUs, virtio devices at `slots`, and a PCI bus where `pci`; returns the root's address.
pub fn write(memory: &GuestMemory, vcpus: u8, slots: &[VirtioSlot], pci: bool) -> Result<u64, AcpiError> {
    let area = build(vcpus, slots, pci);
    let max = (layout::GENERATION_ID - layout::ACPI_START) as usize;
    if area.len() > max {
        return Err(AcpiError::Size {
            size: area.len(),
            max,
        });
    }
    // One write; the root comes first, where a kernel that searches for it would look too.
    memory.write_slice(&area, GuestAddress(layout::ACPI_START))?;
    Ok(layout::ACPI_START)
}

/// All tables, as they lie from [`layout::ACPI_START`] on.
fn build(vcpus: u8, slots: &[VirtioSlot], pci: bool) -> Vec<u8> {
    let mut area = vec![0; Rsdp::len().next_multiple_of(16)];
    let mut place = |bytes: &[u8]| {
        let address = layout::ACPI_START + area.len() as u64;
        area.extend_from_slice(bytes);
        area.resize(area.len().next_multiple_of(16), 0);
        address
    };
    let dsdt = place(&dsdt::build(slots, pci));
    let fadt = place(&fadt::build(dsdt));
    let madt = place(&madt::build(vcpus));
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    if pci {
        xsdt.add_entry(place(&mcfg::build()));
    }
    let xsdt = place(&bytes_of(&xsdt));
    let root = bytes_of(&Rsdp::new(OEM, xsdt));
    area[..root.len()].copy_from_slice(&root);
    area
}

fn bytes_of(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}
