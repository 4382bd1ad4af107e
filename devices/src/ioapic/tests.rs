use super::*;

fn set(ioapic: &mut Ioapic, register: u8, value: u32) -> Option<Msi> {
    assert_eq!(ioapic.write(IOREGSEL, u32::from(register)), None);
    ioapic.write(IOWIN, value)
}

fn get(ioapic: &mut Ioapic, register: u8) -> u32 {
    assert_eq!(ioapic.write(IOREGSEL, u32::from(register)), None);
    ioapic.read(IOWIN)
}

/// Writes a pin's entry as Linux does: the upper half first.
fn route(ioapic: &mut Ioapic, pin: u8, entry: u64) -> Option<Msi> {
    assert_eq!(set(ioapic, 0x11 + 2 * pin, (entry >> 32) as u32), None);
    set(ioapic, 0x10 + 2 * pin, entry as u32)
}

#[test]
fn a_guest_finds_an_82093aa_with_24_masked_pins() {
    let mut ioapic = Ioapic::new();
    assert_eq!(get(&mut ioapic, 1), 0x0017_0011);
    for pin in 0..24 {
        assert_eq!(get(&mut ioapic, 0x10 + 2 * pin), 0x1_0000);
        assert_eq!(get(&mut ioapic, 0x11 + 2 * pin), 0);
        assert_eq!(ioapic.message(pin), None);
    }
    assert_eq!(set(&mut ioapic, 0, 0xffff_ffff), None);
    assert_eq!(get(&mut ioapic, 0), 0x0f00_0000);
    assert_eq!(get(&mut ioapic, 2), 0x0f00_0000);
    // The version cannot be written, and past the last entry is nothing.
    assert_eq!(set(&mut ioapic, 1, 0), None);
    assert_eq!(get(&mut ioapic, 1), 0x0017_0011);
    for register in [3, 0x0f, 0x40, 0xff] {
        assert_eq!(set(&mut ioapic, register, u32::MAX), None);
        assert_eq!(get(&mut ioapic, register), 0);
    }
}

#[test]
fn an_edge_becomes_the_message_that_the_entry_describes() {
    let mut ioapic = Ioapic::new();
    // Fixed, physical, APIC 3, vector 0x31.
    assert_eq!(route(&mut ioapic, 5, 0x0300_0000_0000_0031), None);
    let expected = Msi {
        address: 0xfee0_3000,
        data: 0x31,
    };
    assert_eq!(ioapic.message(5), Some(expected));
    assert_eq!(ioapic.message(5), Some(expected));
    assert_eq!(ioapic.message(6), None);
    // Lowest priority, logical.
    route(&mut ioapic, 5, 0xff00_0000_0000_0931);
    assert_eq!(
        ioapic.message(5),
        Some(Msi {
            address: 0xfeef_f00c,
            data: 0x131,
        })
    );
    // NMI needs no vector.
    route(&mut ioapic, 5, 0x0100_0000_0000_0400);
    assert_eq!(ioapic.message(5).map(|msi| msi.data), Some(0x400));
    // Extended destination: APIC 0x1234 is 0x34 in the old field and 0x12 in bits 49 to 55.
    route(&mut ioapic, 5, 0x3424_0000_0000_0040);
    assert_eq!(ioapic.message(5).map(|msi| msi.address), Some(0xfee3_4240));
}

#[test]
fn what_no_apic_takes_is_not_sent() {
    let mut ioapic = Ioapic::new();
    for entry in [0x0f, 0x10f, 0x730] {
        route(&mut ioapic, 0, entry);
        assert_eq!(ioapic.message(0), None, "{entry:#x}");
    }
    assert_eq!(ioapic.message(24), None);
    assert_eq!(ioapic.message(255), None);
}

#[test]
fn one_edge_on_a_masked_pin_is_delivered_when_it_is_unmasked() {
    let mut ioapic = Ioapic::new();
    route(&mut ioapic, 7, 0x41);
    assert!(ioapic.message(7).is_some());
    assert_eq!(set(&mut ioapic, 0x10 + 14, 0x1_0041), None);
    assert_eq!(ioapic.message(7), None);
    assert_eq!(ioapic.message(7), None);
    // The interrupt moves to APIC 2 while it is masked, and is sent there, once.
    assert_eq!(set(&mut ioapic, 0x11 + 14, 0x0200_0000), None);
    assert_eq!(
        set(&mut ioapic, 0x10 + 14, 0x41),
        Some(Msi {
            address: 0xfee0_2000,
            data: 0x41,
        })
    );
    assert_eq!(set(&mut ioapic, 0x10 + 14, 0x1_0041), None);
    assert_eq!(set(&mut ioapic, 0x10 + 14, 0x41), None);
}

#[test]
fn the_devices_bits_cannot_be_written_and_the_trigger_mode_reads_back() {
    let mut ioapic = Ioapic::new();
    route(&mut ioapic, 0, u64::MAX);
    assert_eq!(get(&mut ioapic, 0x10), 0x1_afff);
    assert_eq!(get(&mut ioapic, 0x11), 0xfffe_0000);
    // Level-triggered, unmasked: still sent as an edge.
    route(&mut ioapic, 0, 0x8030);
    assert_eq!(ioapic.message(0).map(|msi| msi.data), Some(0x30));
}

#[derive(Default)]
struct Apics(Mutex<Vec<Msi>>);

impl MsiSink for Apics {
    fn signal(&self, msi: Msi) -> io::Result<()> {
        self.0.lock().unwrap().push(msi);
        Ok(())
    }
}

#[test]
fn on_the_bus_pins_reach_the_apics() {
    let apics = Arc::new(Apics::default());
    let device = Arc::new(Mutex::new(IoapicDevice::new(apics.clone())));
    let line = IoapicPin::new(device.clone(), 4);
    line.trigger().unwrap();
    assert!(apics.0.lock().unwrap().is_empty());
    {
        let mut device = device.lock().unwrap();
        assert_eq!(device.write(IOREGSEL, &[0x18]), Effect::None);
        assert_eq!(device.write(IOWIN, &0x34u32.to_le_bytes()), Effect::None);
        let mut entry = [0; 4];
        device.read(IOWIN, &mut entry);
        assert_eq!(u32::from_le_bytes(entry), 0x34);
        let mut wide = [0xff; 8];
        device.read(IOREGSEL, &mut wide);
        assert_eq!(wide, [0x18, 0, 0, 0, 0, 0, 0, 0]);
        // Half a register is not written.
        assert_eq!(device.write(IOWIN, &[0, 0]), Effect::None);
        device.read(IOWIN, &mut entry);
        assert_eq!(u32::from_le_bytes(entry), 0x34);
    }
    line.trigger().unwrap();
    let sent = apics.0.lock().unwrap();
    // The remembered edge and the new one.
    assert_eq!(sent.iter().map(|msi| msi.data).collect::<Vec<_>>(), [0x34, 0x34]);
}
