//! MCFG: where the PCI bus's configuration spaces are.

use acpi_tables::Aml;
use acpi_tables::mcfg::MCFG;

use super::oem::{OEM, OEM_REVISION, OEM_TABLE};
use crate::layout;

/// The table: bus 0 of segment 0 alone.
pub(super) fn build() -> Vec<u8> {
    let mut mcfg = MCFG::new(OEM, OEM_TABLE, OEM_REVISION);
    mcfg.add_ecam(layout::PCI_ECAM, 0, 0, 0);
    let mut bytes = Vec::new();
    mcfg.to_aml_bytes(&mut bytes);
    bytes
}
