//! MADT: local APICs and the I/O APIC.

use acpi_tables::Aml;
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};

use secovia_devices::ioapic::IoapicDevice;

use super::oem::{OEM, OEM_REVISION, OEM_TABLE};
use crate::layout;

/// The table for `vcpus` vCPUs, whose APICs have the vCPUs' own numbers.
pub(super) fn build(vcpus: u8) -> Vec<u8> {
    let controller = LocalInterruptController::Address(layout::LOCAL_APIC);
    let mut madt = MADT::new(OEM, OEM_TABLE, OEM_REVISION, controller);
    for index in 0..vcpus {
        madt.add_structure(ProcessorLocalApic::new(index, index, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, IoapicDevice::BASE as u32, 0));
    let mut bytes = Vec::new();
    madt.to_aml_bytes(&mut bytes);
    bytes
}
