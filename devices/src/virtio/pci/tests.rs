use std::sync::Mutex;

use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::limiter::LimiterConfig;
use crate::testing::{BUFFERS, MEMORY};
use crate::virtio::balloon::{Balloon, BalloonConfig, BalloonHandle, Reclaim};
use crate::virtio::rng::Rng;

/// Messages that were sent.
#[derive(Default)]
struct Sent(Mutex<Vec<Msi>>);

impl MsiSink for Sent {
    fn signal(&self, msi: Msi) -> std::io::Result<()> {
        self.0.lock().unwrap().push(msi);
        Ok(())
    }
}

struct Keep;

impl Reclaim for Keep {
    fn reclaim(&self, _slice: &crate::GuestSlice<'_>) -> std::io::Result<()> {
        Ok(())
    }
}

const BASE: u32 = 0xe100_8000;

/// A driver, as Linux's goes about it.
struct Driver {
    function: PciTransport,
    memory: GuestMemory,
    sent: Arc<Sent>,
}

impl Driver {
    fn new(device: Box<dyn VirtioDevice>) -> Self {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap();
        let sent = Arc::new(Sent::default());
        let function = PciTransport::new(device, memory.clone(), sent.clone(), BASE).unwrap();
        Self {
            function,
            memory,
            sent,
        }
    }

    fn get(&mut self, at: u64, len: usize) -> u32 {
        let mut data = [0; 4];
        self.function.read(at, &mut data[..len]);
        u32::from_le_bytes(data)
    }

    fn set(&mut self, at: u64, len: usize, value: u32) {
        assert_eq!(self.function.write(at, &value.to_le_bytes()[..len]), Effect::None);
    }

    /// A field of the common configuration.
    fn common(&mut self, at: u64, len: usize) -> u32 {
        self.get(BAR + at, len)
    }

    fn set_common(&mut self, at: u64, len: usize, value: u32) {
        self.set(BAR + at, len, value);
    }

    /// The capability of this identifier, and of this kind where it is a virtio one: where it lies.
    fn capability(&mut self, id: u32, kind: u32) -> u64 {
        let mut at = self.get(0x34, 1);
        while at != 0 {
            let place = u64::from(at);
            if self.get(place, 1) == id && (id != 9 || self.get(place + 3, 1) == kind) {
                return place;
            }
            at = self.get(place + 1, 1);
        }
        panic!("no capability {id} {kind}");
    }

    /// Where in the BAR a structure is, and how long.
    fn structure(&mut self, kind: u32) -> (u32, u32) {
        let at = self.capability(9, kind);
        assert_eq!(self.get(at + 4, 1), 0, "BAR 0");
        (self.get(at + 8, 4), self.get(at + 12, 4))
    }

    /// From reset to DRIVER_OK, with message 0 for the configuration and each queue its own.
    fn start(&mut self) {
        let msix = self.capability(0x11, 0);
        let count = self.get(msix + 2, 2) & 0x7ff;
        self.set(4, 2, 6);
        self.set(msix + 2, 2, 0x8000);
        for vector in 0..=count {
            let entry = BAR + 0x4000 + u64::from(vector) * 16;
            self.set(entry, 4, 0xfee0_1000);
            self.set(entry + 8, 4, 0x40 + vector);
            self.set(entry + 12, 4, 0);
        }
        self.set_common(0x14, 1, 0);
        for status in [1, 3] {
            self.set_common(0x14, 1, status);
        }
        for half in 0..2 {
            self.set_common(0, 4, half);
            let offered = self.common(4, 4);
            self.set_common(8, 4, half);
            // Without EVENT_IDX each answer interrupts.
            let accepted = if half == 0 { offered & !(1 << 29) } else { offered };
            self.set_common(0xc, 4, accepted);
            assert_eq!(self.common(0xc, 4), accepted);
        }
        self.set_common(0x14, 1, 11);
        assert_eq!(self.common(0x14, 1), 11);
        self.set_common(0x10, 2, 0);
        assert_eq!(self.common(0x10, 2), 0);
        for queue in 0..self.common(0x12, 2) {
            self.set_common(0x16, 2, queue);
            let size = self.common(0x18, 2);
            assert!(size.is_power_of_two(), "{size}");
            self.set_common(0x18, 2, 8);
            self.set_common(0x1a, 2, queue + 1);
            assert_eq!(self.common(0x1a, 2), queue + 1);
            assert_eq!(self.common(0x1e, 2), queue);
            for (at, address) in [(0x20, 0), (0x28, 0x1000), (0x30, 0x2000)] {
                let address = 0x1_0000 * (queue + 1) + address;
                self.set_common(at, 4, address);
                self.set_common(at + 4, 4, 0);
                assert_eq!((self.common(at, 4), self.common(at + 4, 4)), (address, 0));
            }
            self.set_common(0x1c, 2, 1);
            assert_eq!(self.common(0x1c, 2), 1);
        }
        self.set_common(0x14, 1, 15);
        assert_eq!(self.common(0x14, 1), 15);
    }

    /// Puts the one buffer into queue `queue`, as its request number `number`, and notifies.
    fn request(&mut self, queue: u32, number: u16, len: u32, writable: bool) {
        let base = 0x1_0000 * u64::from(queue + 1);
        let descriptor = [BUFFERS, u64::from(len) | u64::from(writable) << 33];
        self.memory.write_obj(descriptor, GuestAddress(base)).unwrap();
        self.memory
            .write_obj(number, GuestAddress(base + 0x1000 + 2))
            .unwrap();
        let (notify, _) = self.structure(2);
        let at = BAR + u64::from(notify + 4 * queue);
        self.set(at, 2, queue);
    }

    fn used(&self, queue: u32) -> u16 {
        let base = 0x1_0000 * u64::from(queue + 1);
        self.memory.read_obj(GuestAddress(base + 0x2000 + 2)).unwrap()
    }

    fn sent(&self) -> Vec<u32> {
        let sent = std::mem::take(&mut *self.sent.0.lock().unwrap());
        assert!(sent.iter().all(|msi| msi.address == 0xfee0_1000));
        sent.iter().map(|msi| msi.data).collect()
    }
}

fn rng() -> Driver {
    Driver::new(Box::new(Rng::new(&LimiterConfig::default()).unwrap()))
}

fn balloon() -> (Driver, BalloonHandle) {
    let balloon = Balloon::new(&BalloonConfig::default(), Box::new(Keep)).unwrap();
    let handle = balloon.handle();
    (Driver::new(Box::new(balloon)), handle)
}

#[test]
fn a_driver_finds_a_modern_device_and_where_its_structures_are() {
    let mut driver = rng();
    assert_eq!(driver.get(0, 4), 0x1044_1af4);
    assert_eq!(driver.get(8, 1), 1);
    assert_eq!(driver.get(0x10, 4), BASE);
    for kind in 1..=4 {
        let (at, len) = driver.structure(kind);
        assert!(len > 0 && at + len <= BAR_LEN, "{kind}: {at:#x} {len:#x}");
    }
    let notify = driver.capability(9, 2);
    assert_eq!((driver.get(notify + 2, 1), driver.get(notify + 16, 4)), (20, 4));
    assert_eq!(driver.common(0x12, 2), 1);
    // No queue of that number.
    driver.set_common(0x16, 2, 7);
    assert_eq!((driver.common(0x18, 2), driver.common(0x1a, 2)), (0, 0xffff));
    // Fields are read by their own width.
    assert_eq!(driver.common(0x12, 4), 0);
    assert_eq!(driver.function.counters().ignored, 1);
}

#[test]
fn requests_are_answered_with_the_queues_own_message() {
    let mut driver = rng();
    driver.start();
    driver.request(0, 1, 16, true);
    assert_eq!(driver.used(0), 1);
    let mut bytes = [0; 16];
    driver
        .memory
        .read_slice(&mut bytes, GuestAddress(BUFFERS))
        .unwrap();
    assert_ne!(bytes, [0; 16]);
    assert_eq!(driver.sent(), [0x41]);
    // The status says it too, until it is read.
    assert_eq!(driver.get(BAR + 0x1000, 1), 1);
    assert_eq!(driver.get(BAR + 0x1000, 1), 0);

    let (mut driver, _) = balloon();
    driver.start();
    driver.request(1, 1, 4, false);
    assert_eq!((driver.used(0), driver.used(1)), (0, 1));
    assert_eq!(driver.sent(), [0x42]);
}

#[test]
fn a_change_of_the_configuration_has_its_own_message() {
    let (mut driver, handle) = balloon();
    driver.start();
    let generation = driver.common(0x15, 1);
    handle.set_target(3).unwrap();
    driver.function.handle_host();
    assert_eq!(driver.sent(), [0x40]);
    assert_ne!(driver.common(0x15, 1), generation);
    assert_eq!(driver.get(BAR + 0x2000, 4), 3);
    assert_eq!(driver.get(BAR + 0x1000, 1), 2);
    driver.set(BAR + 0x2004, 4, 3);
    assert_eq!(handle.actual(), 3);
}

#[test]
fn a_message_that_there_is_not_is_none_and_a_reset_takes_all() {
    let mut driver = rng();
    driver.start();
    driver.set_common(0x1a, 2, 2);
    assert_eq!(driver.common(0x1a, 2), 0xffff);
    driver.request(0, 1, 16, true);
    assert_eq!((driver.used(0), driver.sent()), (1, vec![]));
    driver.set_common(0x1a, 2, 1);
    driver.set_common(0x14, 1, 0);
    assert_eq!(driver.common(0x14, 1), 0);
    assert_eq!((driver.common(0x10, 2), driver.common(0x1a, 2)), (0xffff, 0xffff));
    // What was used before is used again.
    driver
        .memory
        .write_slice(&[0; 0x3000], GuestAddress(0x1_0000))
        .unwrap();
    driver.start();
    driver.request(0, 1, 16, true);
    assert_eq!(driver.sent(), [0x41]);
}

#[test]
fn the_bar_can_be_reached_through_the_configuration_space() {
    let (mut driver, _) = balloon();
    let window = driver.capability(9, 5);
    // The status, a byte of the common configuration.
    driver.set(window + 8, 4, 0x14);
    driver.set(window + 12, 4, 1);
    driver.set(window + 16, 4, 1);
    assert_eq!(driver.common(0x14, 1), 1);
    assert_eq!(driver.get(window + 16, 4), 1);
    // No length, a wrong length, an address that does not fit it.
    for (at, len) in [(0, 0), (0, 3), (2, 4), (0, 8), (u32::MAX, 4), (0xffff_fffc, 4)] {
        driver.set(window + 8, 4, at);
        driver.set(window + 12, 4, len);
        assert_eq!(driver.get(window + 16, 4), 0, "{at} {len}");
        driver.set(window + 16, 4, 0xff);
    }
    assert_eq!(driver.common(0x14, 1), 1);
}

#[test]
fn the_bus_knows_where_the_bar_is() {
    let mut driver = rng();
    let root = crate::pci::Root::new(0xe100_0000);
    let place = driver.function.place();
    driver.set(4, 2, 2);
    root.plug(1, Arc::new(Mutex::new(driver.function)), place);
    let found = |address: u64| root.bars().find(address - 0xe100_0000, 4);
    assert_eq!(found(BASE.into()).unwrap().1, BAR);
    assert!(found(u64::from(BASE) - 4).is_none());
    assert!(found(u64::from(BASE) + u64::from(BAR_LEN)).is_none());
}
