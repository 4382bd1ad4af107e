//! The devices that are only registers, on one bus: a million accesses at any address and width, with the host's side
//! stirring.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use secovia_devices::bus::{Bus, BusDevice, Effect};
use secovia_devices::ged::{Ged, GedEvent};
use secovia_devices::interrupt::{Interrupt, Msi, MsiSink};
use secovia_devices::ioapic::{IoapicDevice, IoapicPin, PINS};
use secovia_devices::power::{AcpiPower, I8042};
use secovia_devices::pvpanic::PvPanic;
use secovia_devices::serial::Serial;

use crate::harness;
use crate::harness::source::Source;

/// Where messages arrive, and sometimes do not.
#[derive(Default)]
struct Sink(AtomicU64);

impl MsiSink for Sink {
    fn signal(&self, msi: Msi) -> std::io::Result<()> {
        // A local APIC's window, whatever the guest wrote into the table.
        assert_eq!(msi.address >> 20, 0xfee);
        match self.0.fetch_add(1, Ordering::Relaxed) % 16 {
            15 => Err(std::io::ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        }
    }
}

/// An output that takes a byte, or not.
struct Output(u8);

impl std::io::Write for Output {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.wrapping_add(1);
        match self.0 % 8 {
            7 => Err(std::io::ErrorKind::WouldBlock.into()),
            _ => Ok(data.len()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Each device at a base of its own, 4 KiB apart.
const STRIDE: u64 = 0x1000;

fn shared<D: BusDevice + 'static>(bus: &mut Bus, name: &str, at: u64, len: u64, device: D) -> Arc<Mutex<D>> {
    let device = Arc::new(Mutex::new(device));
    bus.insert(name, at * STRIDE, len, device.clone()).unwrap();
    device
}

#[test]
fn registers() {
    let mut messages = 0;
    harness::each_episode("registers", |source, steps| {
        let sink = Arc::new(Sink::default());
        let mut bus = Bus::new();
        let ioapic = shared(
            &mut bus,
            "ioapic",
            0,
            IoapicDevice::LEN,
            IoapicDevice::new(sink.clone()),
        );
        let line = |pin| Arc::new(IoapicPin::new(ioapic.clone(), pin)) as Arc<dyn Interrupt>;
        let output = Box::new(Output(0));
        let serial = shared(&mut bus, "serial", 1, Serial::LEN, Serial::new(line(4), output));
        let ged = shared(&mut bus, "ged", 2, 4, Ged::new(line(5)));
        shared(&mut bus, "power", 3, 16, AcpiPower::new());
        shared(&mut bus, "i8042", 4, 5, I8042::new());
        shared(&mut bus, "pvpanic", 5, 1, PvPanic::new());
        for _ in 0..steps {
            let device = source.below(6);
            let address = device * STRIDE + address(source);
            let mut data = vec![0xff; 1 + source.below(8) as usize];
            match source.u8() % 17 {
                0..=6 => {
                    if !bus.read(address, &mut data) {
                        assert!(
                            data.iter().all(|byte| *byte == 0),
                            "nothing is there, and reads as zero"
                        );
                    }
                }
                7..=13 => {
                    data.fill_with(|| source.u8());
                    let allowed: &[Effect] = match device {
                        3 => &[Effect::None, Effect::Reset, Effect::Shutdown],
                        4 => &[Effect::None, Effect::Reset],
                        5 => &[Effect::None, Effect::Panic],
                        _ => &[Effect::None],
                    };
                    let effect = bus.write(address, &data);
                    assert!(allowed.contains(&effect), "{effect:?} at {address:#x}");
                }
                14 => {
                    let mut serial = serial.lock().unwrap();
                    let input = source.bytes(8);
                    assert!(serial.enqueue(&input) <= input.len());
                    assert!(serial.capacity() <= 64);
                }
                15 => {
                    // An entry of the I/O APIC's table as a driver writes it; by chance alone few pins are open.
                    let register = 0x10 + source.u8() % (2 * PINS);
                    let entry = source.u32() & 0x1_ffff;
                    assert_eq!(bus.write(0, &u32::from(register).to_le_bytes()), Effect::None);
                    assert_eq!(bus.write(0x10, &entry.to_le_bytes()), Effect::None);
                }
                _ => {
                    let _ = IoapicPin::new(ioapic.clone(), source.u8() % (PINS + 4)).trigger();
                    let event = source.pick(&[GedEvent::PowerButton, GedEvent::VmGenId]);
                    let _ = ged.lock().unwrap().notify(event);
                }
            }
        }
        messages += sink.0.load(Ordering::Relaxed);
    });
    assert!(messages > 10, "{messages} interrupts were delivered");
}

/// Mostly where registers are.
fn address(source: &mut Source<'_>) -> u64 {
    match source.u8() % 8 {
        0 => source.below(STRIDE),
        1 => STRIDE - 1 - source.below(8),
        _ => source.below(0x24),
    }
}
