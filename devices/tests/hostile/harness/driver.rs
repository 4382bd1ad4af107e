//! The driver: what it can do to a transport, in good order or not.

use std::sync::Arc;
use std::time::Duration;

use secovia_devices::GuestMemory;
use secovia_devices::bus::{BusDevice, Effect};
use secovia_devices::interrupt::Interrupt;
use secovia_devices::virtio::device::VirtioDevice;
use secovia_devices::virtio::mmio::{MmioTransport, offset};
use secovia_devices::virtio::transport::{Counters, Transport};
use vm_memory::{Bytes, GuestAddress};

use super::Target;
use super::chain::{self, Descriptor, INDIRECT, address, length, link, place, poke, spoil};
use super::source::Source;

/// Where the rings are, when they are set up well; 16 KiB for each queue.
const RINGS: u64 = 0x1_0000;
const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;

/// Memory for the driver's buffers, which the rings do not use.
pub const BUFFERS: u64 = 0x2_0000;

/// Where indirect tables are laid, mostly.
const TABLES: u64 = 0x1_d000;

const MAGIC: u32 = 0x7472_6976;
const VERSION_1: u64 = 1 << 32;
const EVENT_IDX: u64 = 1 << 29;
const RUNNING: u32 = 15;

/// An interrupt line that nobody hears, and that fails now and then.
struct Line(std::sync::atomic::AtomicU64);

impl Interrupt for Line {
    fn trigger(&self) -> std::io::Result<()> {
        match self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 64 {
            63 => Err(std::io::ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        }
    }
}

/// A queue as the driver knows it.
#[derive(Debug, Clone, Copy)]
struct Ring {
    max: u16,
    size: u16,
    descriptors: u64,
    avail: u64,
    used: u64,
    /// The driver's index in the available ring.
    index: u16,
    /// The descriptor that is used next.
    free: u16,
    /// The used index when it was last looked at.
    seen: u16,
}

/// See the module.
pub struct Driver {
    transport: MmioTransport,
    pub memory: GuestMemory,
    rings: Vec<Ring>,
    answered: u64,
    /// One mischief of so many that come to its mind is done. A driver that breaks its device all the time
    /// never gets it into a state that takes many steps to reach.
    temper: u64,
}

impl Driver {
    pub fn new(device: Box<dyn VirtioDevice>, memory: GuestMemory) -> Self {
        let sizes = device.queue_max_sizes().to_vec();
        let line = Arc::new(Line(Default::default()));
        let rings = sizes
            .iter()
            .zip(0u64..)
            .map(|(max, index)| Ring::new(*max, index))
            .collect();
        Self {
            transport: MmioTransport::new(device, memory.clone(), line).unwrap(),
            memory,
            rings,
            answered: 0,
            temper: 1,
        }
    }

    /// How hostile this driver is.
    pub fn set_temper(&mut self, source: &mut Source<'_>) {
        self.temper = source.pick(&[1, 4, 16, 64]);
    }

    pub fn counters(&self) -> Counters {
        self.transport.counters()
    }

    pub fn answered(&self) -> u64 {
        self.answered
    }

    pub fn read(&mut self, register: u64) -> u32 {
        let mut data = [0; 4];
        self.transport.read(register, &mut data);
        u32::from_le_bytes(data)
    }

    pub fn write(&mut self, register: u64, value: u32) {
        assert_eq!(self.transport.write(register, &value.to_le_bytes()), Effect::None);
    }

    pub fn read_config(&mut self, at: u64, data: &mut [u8]) {
        self.transport.read(offset::CONFIG + at, data);
    }

    pub fn handle_host(&mut self) {
        self.finishing(MmioTransport::handle_host);
    }

    /// Does something to the transport, and takes up what is left when a call's share was over, as the event loop does.
    fn finishing(&mut self, work: impl FnOnce(&mut MmioTransport)) {
        let mut cut_short = self.transport.counters().cut_short;
        work(&mut self.transport);
        while self.transport.counters().cut_short != cut_short {
            cut_short = self.transport.counters().cut_short;
            self.transport.handle_host();
        }
    }

    /// From reset to DRIVER_OK; in good order, or nearly.
    pub fn bring_up(&mut self, source: &mut Source<'_>, good: bool) {
        self.write(offset::STATUS, 0);
        for status in [1, 3] {
            if good || !source.one_in(8) {
                self.write(offset::STATUS, status);
            }
        }
        let mut features = self.offered();
        if source.one_in(2) {
            features &= source.u64() | VERSION_1;
        }
        if !good && source.one_in(4) {
            features ^= 1 << (source.u8() % 64);
        }
        self.agree(features);
        for index in 0..self.rings.len() {
            let mut ring = Ring::new(self.rings[index].max, index as u64);
            if source.one_in(4) {
                ring.size = 1 << source.below(9);
            }
            if !good && source.one_in(3) {
                match source.u8() % 6 {
                    0 => ring.size = source.u16(),
                    1 => ring.descriptors = address(source),
                    2 => ring.avail = address(source),
                    3 => ring.used = address(source),
                    4 => ring.used = ring.avail,
                    // On top of another queue.
                    _ => ring.descriptors = RINGS + source.below(4) * 0x1000,
                }
            }
            self.set_up(index, ring, good || !source.one_in(16));
        }
        self.write(offset::STATUS, RUNNING);
    }

    fn offered(&mut self) -> u64 {
        self.write(offset::DEVICE_FEATURES_SEL, 0);
        let low = self.read(offset::DEVICE_FEATURES);
        self.write(offset::DEVICE_FEATURES_SEL, 1);
        u64::from(self.read(offset::DEVICE_FEATURES)) << 32 | u64::from(low)
    }

    fn agree(&mut self, features: u64) {
        self.write(offset::DRIVER_FEATURES_SEL, 0);
        self.write(offset::DRIVER_FEATURES, features as u32);
        self.write(offset::DRIVER_FEATURES_SEL, 1);
        self.write(offset::DRIVER_FEATURES, (features >> 32) as u32);
        self.write(offset::STATUS, 11);
    }

    fn set_up(&mut self, index: usize, ring: Ring, ready: bool) {
        self.rings[index] = ring;
        // Flags and indices; what else is left from before is hostile enough.
        poke(&self.memory, ring.avail, &[0; 4]);
        poke(&self.memory, ring.used, &[0; 4]);
        self.write(offset::QUEUE_SEL, index as u32);
        self.write(offset::QUEUE_NUM, u32::from(ring.size));
        for (low, high, address) in [
            (offset::QUEUE_DESC_LOW, offset::QUEUE_DESC_HIGH, ring.descriptors),
            (offset::QUEUE_DRIVER_LOW, offset::QUEUE_DRIVER_HIGH, ring.avail),
            (offset::QUEUE_DEVICE_LOW, offset::QUEUE_DEVICE_HIGH, ring.used),
        ] {
            self.write(low, address as u32);
            self.write(high, (address >> 32) as u32);
        }
        self.write(offset::QUEUE_READY, u32::from(ready));
    }

    /// Resets and sets up in good order, whatever was before.
    pub fn recover(&mut self) {
        self.write(offset::STATUS, 0);
        assert_eq!(self.read(offset::STATUS), 0, "a reset takes effect at once");
        assert_eq!(self.read(offset::INTERRUPT_STATUS), 0);
        self.write(offset::STATUS, 1);
        self.write(offset::STATUS, 3);
        let features = self.offered() & !EVENT_IDX;
        self.agree(features);
        for index in 0..self.rings.len() {
            self.set_up(index, Ring::new(self.rings[index].max, index as u64), true);
        }
        self.write(offset::STATUS, RUNNING);
        assert_eq!(
            self.read(offset::STATUS),
            RUNNING,
            "a driver that behaves can use the device again"
        );
    }

    /// One thing that a hostile driver does.
    pub fn step(&mut self, target: &mut dyn Target, source: &mut Source<'_>) {
        let what = source.u8() % 32;
        let mischief = matches!(what, 16 | 17 | 20..=23 | 29);
        match what {
            0..=15 => self.submit(target, source),
            _ if mischief && !source.one_in(self.temper) => self.submit(target, source),
            16..=17 => {
                let (register, data) = (register(source), data(source));
                assert_eq!(self.transport.write(register, &data), Effect::None);
            }
            18 => {
                let mut data = data(source);
                self.transport.read(register(source), &mut data);
            }
            19 => {
                let at = offset::CONFIG + source.below(0xf00);
                let mut data = data(source);
                self.transport.read(at, &mut data);
                assert_eq!(self.transport.write(at, &data), Effect::None);
            }
            20 => {
                let queue = self.any_queue(source);
                let ring = &mut self.rings[queue];
                ring.index = ring.index.wrapping_add(match source.u8() % 4 {
                    0 => source.u16(),
                    1 => u16::from(source.u8()),
                    2 => ring.size,
                    _ => 1,
                });
                poke(
                    &self.memory,
                    ring.avail.wrapping_add(2),
                    &ring.index.to_le_bytes(),
                );
                self.notify(queue as u32);
            }
            21 => {
                let at = match source.u8() % 4 {
                    0 => address(source),
                    _ => RINGS + source.below(0xd000),
                };
                let count = source.below(16) as usize;
                poke(&self.memory, at, &source.bytes(count));
            }
            22 => {
                let status = source.pick(&[0, 1, 3, 11, 15, 64, 79, 128, 143, 0xff, 0xffff_ffff]);
                self.write(offset::STATUS, status);
            }
            23 => {
                let queue = self.any_queue(source) as u32;
                self.write(offset::QUEUE_SEL, queue);
                self.write(offset::QUEUE_READY, u32::from(source.u8() & 1));
            }
            24..=27 => {
                target.host(source);
                self.handle_host();
            }
            28 => self.write(offset::INTERRUPT_ACK, u32::from(source.u8() & 3)),
            29 => self.bring_up(source, false),
            30 => self.handle_host(),
            _ => {
                let queue = source.pick(&[0, 1, 2, 3, 255, 65535, 65536, u32::MAX]);
                self.notify(queue);
            }
        }
        assert_eq!(self.read(offset::MAGIC), MAGIC);
        if self.read(offset::STATUS) != RUNNING && !source.one_in(4) {
            let good = !source.one_in(8);
            self.bring_up(source, good);
        }
    }

    fn any_queue(&self, source: &mut Source<'_>) -> usize {
        source.below(self.rings.len() as u64) as usize
    }

    fn notify(&mut self, queue: u32) {
        self.write(offset::QUEUE_NOTIFY, queue);
        for ring in &mut self.rings {
            let Ok(used) = self
                .memory
                .read_obj::<u16>(GuestAddress(ring.used.wrapping_add(2)))
            else {
                continue;
            };
            let moved = used.wrapping_sub(ring.seen);
            if moved <= ring.size {
                self.answered += u64::from(moved);
            }
            ring.seen = used;
        }
    }

    /// Offers a chain, good or bad, and mostly tells the device.
    fn submit(&mut self, target: &mut dyn Target, source: &mut Source<'_>) {
        let queue = target.queue(source, self.rings.len());
        if self.is_full(queue) && !source.one_in(4 * self.temper) {
            return self.notify(queue as u32);
        }
        let mut chain = if source.one_in(12 * self.temper) {
            let count = source.below(6);
            (0..count)
                .map(|_| Descriptor {
                    flags: source.u16() & 7,
                    next: source.u16() & 0xff,
                    ..Descriptor::readable(address(source), length(source))
                })
                .collect()
        } else {
            target.request(source, &self.memory, queue as u16)
        };
        let ring = self.rings[queue];
        let indirect = source.one_in(5);
        link(&mut chain, if indirect { 0 } else { ring.free }, ring.size);
        if source.one_in(4 * self.temper) {
            for _ in 0..1 + source.below(3) {
                spoil(source, &mut chain);
            }
        }
        let head = if indirect {
            self.lay_indirect(source, &chain, ring)
        } else {
            self.lay(&chain, ring.free, ring.descriptors, ring.size);
            ring.free
        };
        let used = if indirect { 1 } else { chain.len() };
        self.rings[queue].free = place(ring.free, used, ring.size);
        let head = if source.one_in(64 * self.temper) {
            source.u16()
        } else {
            head
        };
        self.offer(queue, head);
        if !source.one_in(8) {
            self.notify(queue as u32);
        }
    }

    /// Whether the device has as many requests as the queue is long.
    fn is_full(&self, queue: usize) -> bool {
        let ring = self.rings[queue];
        let used = self
            .memory
            .read_obj::<u16>(GuestAddress(ring.used.wrapping_add(2)));
        used.is_ok_and(|used| ring.index.wrapping_sub(used) >= ring.size)
    }

    fn lay(&self, chain: &[Descriptor], first: u16, table: u64, size: u16) {
        for (position, descriptor) in chain.iter().enumerate() {
            descriptor.store(&self.memory, table, place(first, position, size));
        }
    }

    /// Lays the chain in a table of its own, which may be misplaced, nested, too long or of an odd length.
    fn lay_indirect(&mut self, source: &mut Source<'_>, chain: &[Descriptor], ring: Ring) -> u16 {
        let bad = source.one_in(self.temper);
        let table = match source.u8() % 8 {
            0 if bad => address(source),
            1 => TABLES + source.below(16),
            _ => TABLES,
        };
        self.lay(chain, 0, table, u16::MAX);
        let mut len = chain.len() as u32 * 16;
        let mut flags = INDIRECT;
        match source.u8() % 16 {
            _ if !bad => {}
            0 => len = length(source),
            1 => len = 16 * 65536,
            2 => len += source.u32() % 16,
            3 => flags |= chain::NEXT,
            4 => flags |= chain::WRITE,
            5 => Descriptor {
                flags: INDIRECT,
                ..Descriptor::readable(table, len)
            }
            .store(&self.memory, table, 0),
            _ => {}
        }
        Descriptor {
            flags,
            ..Descriptor::readable(table, len)
        }
        .store(&self.memory, ring.descriptors, ring.free);
        ring.free
    }

    fn offer(&mut self, queue: usize, head: u16) {
        let ring = &mut self.rings[queue];
        let slot = u64::from(ring.index % ring.size.max(1));
        poke(
            &self.memory,
            ring.avail.wrapping_add(4 + slot * 2),
            &head.to_le_bytes(),
        );
        ring.index = ring.index.wrapping_add(1);
        poke(
            &self.memory,
            ring.avail.wrapping_add(2),
            &ring.index.to_le_bytes(),
        );
    }

    /// Offers a good chain and notifies.
    pub fn send(&mut self, queue: usize, mut chain: Vec<Descriptor>) {
        let ring = self.rings[queue];
        link(&mut chain, ring.free, ring.size);
        self.lay(&chain, ring.free, ring.descriptors, ring.size);
        self.rings[queue].free = place(ring.free, chain.len(), ring.size);
        self.offer(queue, ring.free);
        self.finishing(|transport| {
            let _ = transport.write(offset::QUEUE_NOTIFY, &(queue as u32).to_le_bytes());
        });
    }

    /// The length that the device says it wrote for the next request that it answered.
    pub fn used(&mut self, queue: usize) -> Option<u32> {
        let ring = &mut self.rings[queue];
        let index: u16 = self.memory.read_obj(GuestAddress(ring.used + 2)).unwrap();
        if index == ring.seen {
            return None;
        }
        let slot = u64::from(ring.seen % ring.size);
        ring.seen = ring.seen.wrapping_add(1);
        Some(
            self.memory
                .read_obj(GuestAddress(ring.used + 8 + slot * 8))
                .unwrap(),
        )
    }

    /// Offers a good chain; the length that the device wrote. A limit that an earlier driver has run into holds for this
    /// one too: the answer may take its time.
    pub fn request(&mut self, queue: usize, chain: Vec<Descriptor>) -> Option<u32> {
        self.send(queue, chain);
        for _ in 0..1000 {
            if let Some(len) = self.used(queue) {
                return Some(len);
            }
            std::thread::sleep(Duration::from_millis(1));
            self.handle_host();
        }
        None
    }

    pub fn get(&self, address: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.memory.read_slice(&mut data, GuestAddress(address)).unwrap();
        data
    }
}

impl Ring {
    fn new(max: u16, index: u64) -> Self {
        let base = RINGS + index * 0x4000;
        Self {
            max,
            size: max,
            descriptors: base,
            avail: base + AVAIL,
            used: base + USED,
            index: 0,
            free: 0,
            seen: 0,
        }
    }
}

/// A register, or somewhere between and behind them.
fn register(source: &mut Source<'_>) -> u64 {
    match source.u8() % 4 {
        0 => source.below(MmioTransport::LEN),
        _ => source.below(offset::CONFIG / 4 + 8) * 4,
    }
}

/// A value of a width that mostly fits.
fn data(source: &mut Source<'_>) -> Vec<u8> {
    let len = match source.u8() % 8 {
        0 => 1 + source.below(8) as usize,
        _ => 4,
    };
    match source.u8() % 4 {
        0 => source.bytes(len),
        1 => vec![0xff; len],
        _ => {
            let mut data = vec![0; len];
            data[0] = source.u8() & 0x1f;
            data
        }
    }
}
