//! DSDT: the devices, and what the event device's interrupt means.

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Device, EISAName, Field, FieldAccessType, FieldEntry,
    FieldLockRule, FieldUpdateRule, IO, If, Interrupt, Local, Memory32Fixed, Method, Name, Notify, ONE,
    OpRegion, OpRegionSpace, Package, Path, ResourceTemplate, Scope, Store, ZERO,
};
use acpi_tables::sdt::Sdt;
use secovia_devices::ged::{Ged, GedEvent};
use secovia_devices::pci::{Root, ports};
use secovia_devices::power::AcpiPower;
use secovia_devices::pvpanic::PvPanic;
use secovia_devices::serial::Serial;

use super::oem::{OEM, OEM_REVISION, OEM_TABLE};
use crate::layout;

/// What a notification means: the button was pressed; the ID changed. Both are 0x80, the first device-specific code.
const PRESSED_OR_CHANGED: u8 = 0x80;

/// Where one virtio device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtioSlot {
    /// First address of its registers.
    pub address: u64,
    /// Its interrupt pin.
    pub pin: u8,
}

/// The table for virtio devices at `slots`, with a PCI bus where `pci`.
pub(super) fn build(slots: &[VirtioSlot], pci: bool) -> Vec<u8> {
    let mut body = Vec::with_capacity(1024);
    legacy_devices(&mut body);
    events(&mut body);
    generation_id(&mut body);
    virtio_devices(&mut body, slots);
    if pci {
        pci_bus(&mut body);
    }
    // Soft off, the one sleeping state.
    let off = Package::new(vec![&AcpiPower::S5, &ZERO, &ZERO, &ZERO]);
    Name::new(Path::new("_S5_"), &off).to_aml_bytes(&mut body);

    const HEADER: u32 = 36;
    let mut table = Sdt::new(*b"DSDT", HEADER, 2, OEM, OEM_TABLE, OEM_REVISION);
    table.append_slice(&body);
    table.as_slice().to_vec()
}

fn path(name: &str) -> Path {
    Path::new(name)
}

/// An edge-triggered, active-high interrupt of one consumer.
fn edge(pin: u8) -> Interrupt {
    Interrupt::new(true, true, false, false, pin.into())
}

/// The same, of several.
fn shared_edge(pin: u8) -> Interrupt {
    Interrupt::new(true, true, false, true, pin.into())
}

/// Serial port and panic device.
fn legacy_devices(body: &mut Vec<u8>) {
    let (serial, panic) = (Serial::COM1 as u16, PvPanic::PORT as u16);
    Scope::new(
        path("_SB_"),
        vec![
            &Device::new(
                path("COM1"),
                vec![
                    &Name::new(path("_HID"), &EISAName::new("PNP0501")),
                    &Name::new(path("_UID"), &ZERO),
                    &Name::new(path("_STA"), &0x0f_u8),
                    &Name::new(
                        path("_CRS"),
                        &ResourceTemplate::new(vec![
                            &IO::new(serial, serial, 1, Serial::LEN as u8),
                            &edge(Serial::COM1_IRQ),
                        ]),
                    ),
                ],
            ),
            &Device::new(
                path("PEVT"),
                vec![
                    &Name::new(path("_HID"), &"QEMU0001"),
                    &Name::new(path("_UID"), &ZERO),
                    &Name::new(path("_STA"), &0x0f_u8),
                    &Name::new(
                        path("_CRS"),
                        &ResourceTemplate::new(vec![&IO::new(panic, panic, 1, PvPanic::LEN as u8)]),
                    ),
                ],
            ),
        ],
    )
    .to_aml_bytes(body);
}

/// The event device: its method reads which events there are, which also takes them, and passes them on.
fn events(body: &mut Vec<u8>) {
    let (address, length) = (layout::EVENTS as u32, Ged::LEN as u32);
    let (pending, button, generation) = (path("ESTS"), path("\\_SB_.PWRB"), path("\\_SB_.VGEN"));
    let (button_bit, generation_bit) = (GedEvent::PowerButton as u32, GedEvent::VmGenId as u32);
    Scope::new(
        path("_SB_"),
        vec![
            &Device::new(
                path("PWRB"),
                vec![
                    &Name::new(path("_HID"), &EISAName::new("PNP0C0C")),
                    &Name::new(path("_UID"), &ZERO),
                ],
            ),
            &Device::new(
                path("GED_"),
                vec![
                    &Name::new(path("_HID"), &"ACPI0013"),
                    &Name::new(path("_UID"), &ZERO),
                    &Name::new(
                        path("_CRS"),
                        &ResourceTemplate::new(vec![&edge(layout::EVENTS_PIN)]),
                    ),
                    &OpRegion::new(path("EREG"), OpRegionSpace::SystemMemory, &address, &length),
                    &Field::new(
                        path("EREG"),
                        FieldAccessType::DWord,
                        FieldLockRule::NoLock,
                        FieldUpdateRule::WriteAsZeroes,
                        vec![FieldEntry::Named(*b"ESTS", 32)],
                    ),
                    &Method::new(
                        path("_EVT"),
                        1,
                        true,
                        vec![
                            &Store::new(&Local(0), &pending),
                            &And::new(&Local(1), &Local(0), &button_bit),
                            &If::new(&Local(1), vec![&Notify::new(&button, &PRESSED_OR_CHANGED)]),
                            &And::new(&Local(1), &Local(0), &generation_bit),
                            &If::new(&Local(1), vec![&Notify::new(&generation, &PRESSED_OR_CHANGED)]),
                        ],
                    ),
                ],
            ),
        ],
    )
    .to_aml_bytes(body);
}

/// The generation ID: `ADDR` gives its address in two halves.
fn generation_id(body: &mut Vec<u8>) {
    let (low, high) = (layout::GENERATION_ID as u32, (layout::GENERATION_ID >> 32) as u32);
    Device::new(
        path("\\_SB_.VGEN"),
        vec![
            &Name::new(path("_HID"), &"SECV0001"),
            &Name::new(path("_CID"), &"VM_Gen_Counter"),
            &Name::new(path("_DDN"), &"VM_Gen_Counter"),
            &Name::new(path("_UID"), &ZERO),
            &Name::new(path("ADDR"), &Package::new(vec![&low, &high])),
        ],
    )
    .to_aml_bytes(body);
}

/// The PCI bus, without interrupt lines (its devices have messages); and the range of its configuration spaces as a
/// motherboard's resource, without which Linux does not trust the MCFG.
fn pci_bus(body: &mut Vec<u8>) {
    let window = layout::PCI_WINDOW;
    let first_port = ports::BASE as u16;
    let last = window + (Root::WINDOW_LEN as u32 - 1);
    Device::new(
        path("\\_SB_.PCI0"),
        vec![
            &Name::new(path("_HID"), &EISAName::new("PNP0A08")),
            &Name::new(path("_CID"), &EISAName::new("PNP0A03")),
            &Name::new(path("_UID"), &ZERO),
            &Name::new(path("_SEG"), &ZERO),
            &Name::new(path("_BBN"), &ZERO),
            &Name::new(path("_CCA"), &ONE),
            &Name::new(
                path("_CRS"),
                &ResourceTemplate::new(vec![
                    &AddressSpace::new_bus_number(0_u16, 0_u16),
                    &IO::new(first_port, first_port, 1, ports::LEN as u8),
                    &AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, window, last, None),
                ]),
            ),
        ],
    )
    .to_aml_bytes(body);
    Device::new(
        path("\\_SB_.ECAM"),
        vec![
            &Name::new(path("_HID"), &EISAName::new("PNP0C02")),
            &Name::new(path("_UID"), &ZERO),
            &Name::new(
                path("_CRS"),
                &ResourceTemplate::new(vec![&Memory32Fixed::new(
                    true,
                    layout::PCI_ECAM as u32,
                    Root::ECAM_LEN as u32,
                )]),
            ),
        ],
    )
    .to_aml_bytes(body);
}

/// One device for each virtio transport.
fn virtio_devices(body: &mut Vec<u8>, slots: &[VirtioSlot]) {
    for (index, slot) in slots.iter().enumerate() {
        let (index, address) = (index as u8, slot.address as u32);
        let users = slots.iter().filter(|other| other.pin == slot.pin).count();
        let interrupt = if users > 1 { shared_edge } else { edge };
        Device::new(
            path(&format!("\\_SB_.V{index:03}")),
            vec![
                &Name::new(path("_HID"), &"LNRO0005"),
                &Name::new(path("_UID"), &index),
                // Device memory is coherent with the caches.
                &Name::new(path("_CCA"), &ONE),
                &Name::new(
                    path("_CRS"),
                    &ResourceTemplate::new(vec![
                        &Memory32Fixed::new(true, address, layout::VIRTIO_SIZE as u32),
                        &interrupt(slot.pin),
                    ]),
                ),
            ],
        )
        .to_aml_bytes(body);
    }
}
