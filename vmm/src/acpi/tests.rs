use super::*;

fn slots() -> Vec<VirtioSlot> {
    (0..3)
        .map(|n| VirtioSlot {
            address: layout::VIRTIO + n * layout::VIRTIO_SIZE,
            pin: layout::VIRTIO_PIN + n as u8,
        })
        .collect()
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

/// The table at a guest address: its signature, and itself with a right length and checksum.
fn table(area: &[u8], address: u64) -> (&[u8], &[u8]) {
    let bytes = &area[(address - layout::ACPI_START) as usize..];
    let bytes = &bytes[..u32_at(bytes, 4) as usize];
    assert_eq!(
        sum(bytes),
        0,
        "checksum of {:?}",
        std::str::from_utf8(&bytes[..4])
    );
    (&bytes[..4], bytes)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn every_table_is_reached_from_the_root_and_adds_up() {
    let area = build(2, &slots(), false);
    assert_eq!(&area[..8], b"RSD PTR ");
    assert_eq!((sum(&area[..20]), sum(&area[..36])), (0, 0));
    let (signature, xsdt) = table(&area, u64_at(&area, 24));
    assert_eq!(signature, b"XSDT");
    let (signature, fadt) = table(&area, u64_at(xsdt, 36));
    assert_eq!(signature, b"FACP");
    assert_eq!(table(&area, u64_at(xsdt, 44)).0, b"APIC");
    assert_eq!(table(&area, u64_at(fadt, 140)).0, b"DSDT");
}

#[test]
fn the_fadt_says_how_to_reset_and_sleep() {
    let fadt = fadt::build(0);
    assert_eq!(u32_at(&fadt, 112) & (1 << 20 | 1 << 10), 1 << 20 | 1 << 10);
    // A generic address: I/O space, 8 bits, then the port.
    assert_eq!((fadt[116], u64_at(&fadt, 120), fadt[128]), (1, 0x602, 1));
    assert_eq!((fadt[244], u64_at(&fadt, 248)), (1, 0x600));
    assert_eq!((fadt[256], u64_at(&fadt, 260)), (1, 0x601));
}

#[test]
fn the_madt_lists_every_apic() {
    let madt = madt::build(3);
    let mut entries = Vec::new();
    let mut rest = &madt[44..];
    while let [kind, length, ..] = *rest {
        entries.push((kind, rest[3]));
        rest = &rest[usize::from(length)..];
    }
    assert_eq!(entries, [(0, 0), (0, 1), (0, 2), (1, 0)]);
}

#[test]
fn the_dsdt_names_every_device() {
    let dsdt = dsdt::build(&slots(), false);
    for id in [
        &b"LNRO0005"[..],
        b"ACPI0013",
        b"VM_Gen_Counter",
        b"QEMU0001",
        b"V000",
        b"V002",
        b"_S5_",
        b"PWRB",
    ] {
        assert!(contains(&dsdt, id), "{}", String::from_utf8_lossy(id));
    }
    // PNP0501 in its packed form.
    assert!(contains(&dsdt, &[0x41, 0xd0, 0x05, 0x01]));
    assert!(!contains(&dsdt, b"V003"));
}

#[test]
fn the_tables_of_the_largest_machine_fit() {
    let pins = u64::from(layout::VIRTIO_PINS);
    let slots: Vec<_> = (0..layout::VIRTIO_MAX as u64)
        .map(|n| VirtioSlot {
            address: layout::VIRTIO + n * layout::VIRTIO_SIZE,
            pin: layout::VIRTIO_PIN + (n % pins) as u8,
        })
        .collect();
    // An extended interrupt descriptor: consumer, edge-triggered, and shared where another device has the pin too.
    let interrupt = |shared: u8, pin: u8| [0x89, 6, 0, 0b11 | shared << 3, 1, pin, 0, 0, 0];
    let (area, pin) = (build(32, &slots, false), layout::VIRTIO_PIN);
    assert!(contains(&area, &interrupt(1, pin)) && !contains(&area, &interrupt(0, pin)));
    let (area, last) = (
        build(32, &slots[..pins as usize + 1], false),
        pin + pins as u8 - 1,
    );
    assert!(contains(&area, &interrupt(1, pin)) && contains(&area, &interrupt(0, last)));
    let memory = crate::memory::create(64 << 20, crate::memory::Pages::Huge).unwrap();
    assert_eq!(write(&memory, 32, &slots, false).unwrap(), layout::ACPI_START);
}

#[test]
fn a_pci_bus_is_there_only_where_it_was_asked_for() {
    let window = [layout::PCI_WINDOW, layout::PCI_WINDOW + (1 << 20) - 1]
        .map(u32::to_le_bytes)
        .concat();
    let ecam = [layout::PCI_ECAM as u32, 1 << 20].map(u32::to_le_bytes).concat();
    let area = build(1, &[], true);
    let (_, xsdt) = table(&area, u64_at(&area, 24));
    let (signature, mcfg) = table(&area, u64_at(xsdt, 52));
    assert_eq!((signature, mcfg.len()), (&b"MCFG"[..], 60));
    assert_eq!((u64_at(mcfg, 44), u32_at(mcfg, 52)), (layout::PCI_ECAM, 0));
    assert!(contains(&area, b"PCI0") && contains(&area, &window) && contains(&area, &ecam));
    let area = build(1, &slots(), false);
    assert!(!contains(&area, b"PCI0") && !contains(&area, b"MCFG") && !contains(&area, &ecam));
}
