//! Where everything lies in the guest's address space. The one place for these numbers, but for those of devices that
//! have a place of their own on every PC (serial port, keyboard controller, I/O APIC), which `secovia-devices` names.
//!
//! ```text
//! 0x0000_0500  descriptor tables of the entry state       0xc000_0000  events (GED)
//! 0x0000_6000  PVH start information                      0xc000_1000  virtio devices, a page each
//! 0x0000_7000  zero page (boot parameters)                0xfec0_0000  I/O APIC
//! 0x0000_9000  page tables of the entry state             0xfee0_0000  local APICs (in KVM)
//! 0x0002_0000  command line                               0xfffb_c000  KVM's identity map and TSS (Intel)
//! 0x000e_0000  ACPI tables, generation ID                 0x1_0000_0000  memory above the gap
//! 0x0010_0000  kernel; initial RAM disk at the top of low memory      (0xd000_0000  boot timer, where asked for)
//! 0xe000_0000  PCI configuration, 0xe100_0000 PCI devices, where asked for
//! behind all memory: memory that can be added; behind it files in the guest's address space
//! ```

use secovia_devices::ioapic;
use secovia_devices::virtio::mmio::MmioTransport;

/// Start of the hole in memory that devices live in.
pub const GAP_START: u64 = 0xc000_0000;
/// End of the hole.
pub const GAP_END: u64 = 1 << 32;

/// Global descriptor table of the entry state.
pub const GDT: u64 = 0x500;
/// Interrupt descriptor table of the entry state (empty).
pub const IDT: u64 = 0x520;
/// PVH `hvm_start_info`, followed by its memory map and module list.
pub const PVH_INFO: u64 = 0x6000;
/// PVH memory map.
pub const PVH_MEMORY_MAP: u64 = 0x6100;
/// PVH module list.
pub const PVH_MODULES: u64 = 0x6800;
/// Linux boot parameters.
pub const ZERO_PAGE: u64 = 0x7000;
/// Initial stack pointer; the stack grows down into the page above the zero page.
pub const BOOT_STACK: u64 = 0x8ff0;
/// Top-level page table; two more pages follow.
pub const PAGE_TABLES: u64 = 0x9000;
/// The kernel's command line.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// The longest command line that Linux takes on x86, with its terminating zero.
pub const COMMAND_LINE_MAX: usize = 2048;

/// First byte that is not conventional memory below 1 MiB.
pub const LOW_MEMORY_END: u64 = 0x9_fc00;
/// ACPI tables and the generation ID; reserved in the memory map.
pub const ACPI_START: u64 = 0xe_0000;
/// End of the ACPI area.
pub const ACPI_END: u64 = 0x10_0000;
/// The generation ID, 16 bytes in the ACPI area's last page.
pub const GENERATION_ID: u64 = ACPI_END - 0x1000;
/// The kernel lies here or above.
pub const KERNEL_START: u64 = 0x10_0000;

/// Local APICs.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// Three pages for KVM's task state segment on Intel without unrestricted guests; right after its identity map.
pub const KVM_TSS: usize = 0xfffb_d000;

/// ACPI reset, sleep control and sleep status registers.
pub const POWER: u64 = 0x600;

/// Event device (power button, generation ID).
pub const EVENTS: u64 = GAP_START;
/// Event device's pin.
pub const EVENTS_PIN: u8 = 5;
/// First virtio device.
pub const VIRTIO: u64 = GAP_START + 0x1000;
/// Bytes for each virtio device.
pub const VIRTIO_SIZE: u64 = MmioTransport::LEN;
/// First virtio device's pin; the next device has the next pin, and behind the last one they begin again: an interrupt is
/// a message each time, so that none is lost where two devices share a pin.
pub const VIRTIO_PIN: u8 = 6;
/// How many pins virtio devices have.
pub const VIRTIO_PINS: u8 = ioapic::PINS - VIRTIO_PIN;
/// Configuration spaces of the PCI bus, where there is one (ECAM).
pub const PCI_ECAM: u64 = 0xe000_0000;
/// What PCI devices have in the address space.
pub const PCI_WINDOW: u32 = 0xe100_0000;
/// Memory that can be added and files in the guest's address space begin at multiples of this, above all memory: what Linux takes in and gives up as one
/// (a section of its memory map).
pub const WINDOW_GRAIN: u64 = 128 << 20;
/// As many virtio devices as anyone has asked for yet; there is room for more.
pub const VIRTIO_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use secovia_devices::ged::GedEvent;
    use secovia_devices::power::{AcpiPower, I8042};
    use secovia_devices::pvpanic::PvPanic;
    use secovia_devices::serial::Serial;
    use secovia_stub_guests::machine;

    use super::*;

    #[test]
    fn the_stub_guests_know_this_machine() {
        assert_eq!(u64::from(machine::SERIAL), Serial::COM1);
        assert_eq!(u64::from(machine::KEYBOARD), I8042::BASE + 4);
        assert_eq!(u64::from(machine::PVPANIC), PvPanic::PORT);
        assert_eq!(u64::from(machine::RESET), POWER + AcpiPower::RESET);
        assert_eq!(machine::RESET_VALUE, AcpiPower::RESET_VALUE);
        assert_eq!(
            u64::from(machine::SLEEP_CONTROL),
            POWER + AcpiPower::SLEEP_CONTROL
        );
        assert_eq!(machine::SLEEP_S5, 1 << 5 | AcpiPower::S5 << 2);
        assert_eq!(u64::from(machine::VIRTIO), VIRTIO);
        assert_eq!(machine::VIRTIO_PIN, VIRTIO_PIN);
        assert_eq!(u64::from(machine::EVENTS), EVENTS);
        assert_eq!(
            u32::from(machine::EVENT_POWER_BUTTON),
            GedEvent::PowerButton as u32
        );
    }
}
