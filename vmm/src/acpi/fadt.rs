//! FADT: hardware-reduced, with reset and sleep registers.

use acpi_tables::Aml;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use secovia_devices::power::AcpiPower;

use super::oem::{OEM, OEM_REVISION, OEM_TABLE};
use crate::layout;

/// IA-PC boot architecture flags: no VGA to probe, no CMOS clock, and (by its absence) no keyboard controller.
const NO_VGA: u16 = 1 << 2;
const NO_CMOS_CLOCK: u16 = 1 << 5;

/// The table, pointing to the DSDT at `dsdt`.
pub(super) fn build(dsdt: u64) -> Vec<u8> {
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        // The power button is a device in the DSDT, not a fixed one; nor is there a fixed sleep button.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::Headless);
    fadt.iapc_boot_arch = (NO_VGA | NO_CMOS_CLOCK).into();
    fadt.reset_reg = port(AcpiPower::RESET);
    fadt.reset_value = AcpiPower::RESET_VALUE;
    fadt.sleep_control_reg = port(AcpiPower::SLEEP_CONTROL);
    fadt.sleep_status_reg = port(AcpiPower::SLEEP_STATUS);
    let mut bytes = Vec::new();
    fadt.finalize().to_aml_bytes(&mut bytes);
    bytes
}

fn port(offset: u64) -> GAS {
    GAS::new(
        AddressSpace::SystemIo,
        8,
        0,
        AccessSize::ByteAccess,
        layout::POWER + offset,
    )
}
