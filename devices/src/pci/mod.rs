//! PCI Express, as far as paravirtual devices need it: one bus of functions with configuration spaces, one memory BAR each,
//! and message-signalled interrupts (PCI Express Base Specification 6.0, 6.1.4 and 7.5; section numbers below are its own).
//!
//! [`Root`] is the bus: functions come to it and leave it while the guest runs. A function is a
//! [`BusDevice`](crate::bus::BusDevice) whose configuration space begins at offset 0 and whose BAR's contents begin at
//! [`BAR`]; where the guest puts the BAR in its address space stands in the function's [`Place`].

mod config;
mod msix;
pub mod ports;
mod root;
#[cfg(test)]
mod tests;

pub(crate) use config::{Class, ConfigSpace, Identity};
pub(crate) use msix::{CAPABILITY as MSIX, Msix};
pub use root::{Full, Place, Root};

/// The length of a function's configuration space as it is accessed (7.2.2); the first 256 bytes are used.
pub const CONFIG_LEN: u64 = 0x1000;
/// Where a function's BAR begins in its own offsets.
pub const BAR: u64 = 0x1_0000;
/// The length of a function's BAR, a power of two.
pub const BAR_LEN: u32 = 0x8000;
/// Devices on a bus; the first one is the host bridge.
pub const DEVICES: usize = 32;
