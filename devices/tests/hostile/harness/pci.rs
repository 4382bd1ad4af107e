//! A PCI bus under attack: configuration spaces and BARs, at any address and width, with functions that come and go while
//! they are used. What a driver does to a device's queues is the other targets' affair: it is the same core.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use secovia_devices::GuestMemory;
use secovia_devices::bus::{Bus, Effect};
use secovia_devices::interrupt::{Msi, MsiSink};
use secovia_devices::pci::{BAR_LEN, Root, ports};
use secovia_devices::virtio::balloon::{Balloon, BalloonConfig};
use secovia_devices::virtio::device::VirtioDevice;
use secovia_devices::virtio::pci::PciTransport;
use secovia_devices::virtio::rng::Rng;
use secovia_devices::virtio::transport::Transport;
use vm_memory::{Bytes, GuestAddress};

use super::Totals;
use super::balloon::Overwrite;
use super::limits;
use super::source::Source;

const CONFIGS: u64 = 0xd800_0000;
const BARS: u64 = 0xe000_0000;
/// As many devices as come; their numbers begin at 1.
const DEVICES: usize = 4;
/// A device's part of the configuration spaces.
const CONFIG: u64 = 1 << 15;
const BAR: u64 = BAR_LEN as u64;

/// Where the first queue is, when it is set up well.
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const BUFFER: u64 = 0x8000;

/// Counts messages, and sometimes takes none.
#[derive(Default)]
struct Sink(AtomicU64);

impl MsiSink for Sink {
    fn signal(&self, _: Msi) -> std::io::Result<()> {
        match self.0.fetch_add(1, Ordering::Relaxed) % 16 {
            15 => Err(std::io::ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        }
    }
}

/// The machine, and what the host's side knows of it.
struct World {
    memory: GuestMemory,
    sink: Arc<Sink>,
    root: Arc<Root>,
    bus: Bus,
    functions: Vec<Option<Arc<Mutex<PciTransport>>>>,
    totals: Totals,
}

impl World {
    fn new(memory: GuestMemory) -> Self {
        let root = Root::new(BARS as u32);
        let mut bus = Bus::new();
        bus.insert_window("configuration", CONFIGS, Root::ECAM_LEN, root.ecam())
            .unwrap();
        bus.insert_window("ports", ports::BASE, ports::LEN, root.ports())
            .unwrap();
        bus.insert_window("bars", BARS, Root::WINDOW_LEN, root.bars())
            .unwrap();
        Self {
            memory,
            sink: Arc::default(),
            root,
            bus,
            functions: vec![None; DEVICES + 2],
            totals: Totals::default(),
        }
    }

    fn plug(&mut self, number: usize, device: Box<dyn VirtioDevice>) {
        self.unplug(number);
        let base = BARS as u32 + number as u32 * BAR_LEN;
        let function = PciTransport::new(device, self.memory.clone(), self.sink.clone(), base).unwrap();
        let place = function.place();
        let function = Arc::new(Mutex::new(function));
        self.root.plug(number, function.clone(), place);
        self.functions[number] = Some(function);
    }

    fn unplug(&mut self, number: usize) {
        self.root.unplug(number);
        if let Some(function) = self.functions[number].take() {
            let counters = function.lock().unwrap().counters();
            self.totals.notifications += counters.notifications;
            self.totals.needs_reset += counters.needs_reset;
            self.totals.ignored += counters.ignored;
        }
    }

    fn read(&self, address: u64, data: &mut [u8]) {
        self.bus.read(address, data);
    }

    fn write(&self, address: u64, data: &[u8]) {
        assert_eq!(self.bus.write(address, data), Effect::None);
    }

    fn byte(&self, address: u64) -> u8 {
        let mut byte = [0];
        self.read(address, &mut byte);
        byte[0]
    }

    fn word(&self, address: u64) -> u32 {
        let mut word = [0; 4];
        self.read(address, &mut word);
        u32::from_le_bytes(word)
    }

    /// Where a capability of a device is; the list ends, whatever was written.
    fn capability(&self, device: u64, kind: u8) -> Option<u64> {
        let config = CONFIGS + device * CONFIG;
        let mut at = self.byte(config + 0x34);
        for _ in 0..64 {
            // Where nobody is, it reads as all ones.
            match at {
                0 | 0xff => return None,
                _ if self.byte(config + u64::from(at)) == kind => return Some(config + u64::from(at)),
                _ => at = self.byte(config + u64::from(at) + 1),
            }
        }
        panic!("the capabilities of device {device} have no end");
    }

    /// All in order up to a device that works.
    fn bring_up(&self, device: u64) {
        let (config, bar) = (CONFIGS + device * CONFIG, BARS + device * BAR);
        self.write(config + 4, &[6, 0]);
        self.write(config + 0x10, &(bar as u32).to_le_bytes());
        if let Some(messages) = self.capability(device, 0x11) {
            self.write(messages + 2, &0x8000_u16.to_le_bytes());
        }
        for status in [0, 1, 3] {
            self.write(bar + 0x14, &[status]);
        }
        // VERSION_1.
        for (at, value) in [(8, 1_u32), (12, 1)] {
            self.write(bar + at, &value.to_le_bytes());
        }
        self.write(bar + 0x14, &[11]);
        for (queue, vector) in [(0_u16, 1_u16), (1, 2)] {
            for (at, value) in [(0x16, queue), (0x18, 8), (0x1a, vector)] {
                self.write(bar + at, &value.to_le_bytes());
            }
            for (at, value) in [(0x20, DESCRIPTORS), (0x28, AVAILABLE), (0x30, USED)] {
                self.write(bar + at, &(value as u32 + u32::from(queue) * 0x400).to_le_bytes());
                self.write(bar + at + 4, &[0; 4]);
            }
            self.write(bar + 0x1c, &1_u16.to_le_bytes());
        }
        self.write(bar + 0x10, &0_u16.to_le_bytes());
        self.write(bar + 0x14, &[15]);
        for entry in 0..3 {
            self.write(bar + 0x4000 + entry * 16 + 12, &[0; 4]);
        }
    }

    /// Makes requests available, sometimes more than there can be, and says so.
    fn ask(&self, device: u64, index: u16) {
        let descriptor = [BUFFER, 16 | 2 << 32].map(u64::to_le_bytes).concat();
        self.memory
            .write_slice(&descriptor, GuestAddress(DESCRIPTORS))
            .unwrap();
        self.memory.write_obj(index, GuestAddress(AVAILABLE + 2)).unwrap();
        self.write(BARS + device * BAR + 0x3000, &[0, 0]);
    }

    /// One thing or another.
    fn step(&mut self, source: &mut Source<'_>) {
        let number = source.below(DEVICES as u64 + 2);
        let device = number as usize;
        match source.u8() % 64 {
            0 => self.unplug(device),
            1 if number != 0 => self.plug(device, new(source)),
            2..=5 => self.bring_up(number),
            6..=13 => self.ask(number, source.below(10) as u16),
            14..=17 => {
                if let Some(function) = &self.functions[device] {
                    function.lock().unwrap().handle_host();
                }
            }
            // A register by way of the ports.
            20..=22 => {
                let address = 1 << 31 | (number as u32) << 11 | source.u32() & 0xff;
                self.write(ports::BASE, &address.to_le_bytes());
                let data = source.bytes(4);
                self.write(ports::BASE + 4, &data);
            }
            // Into the BAR by way of the configuration space.
            18 | 19 => {
                if let Some(access) = self.capability(number, 9) {
                    let at = access + 16 * source.below(8);
                    self.write(at + 8, &(source.u32() & 0x7fff).to_le_bytes());
                    self.write(at + 12, &[source.pick(&[1, 2, 4, 8, 0]), 0, 0, 0]);
                    self.write(at + 16, &source.bytes(4));
                }
            }
            kind => {
                let address = address(source, number);
                let length = 1 + source.below(8) as usize;
                let mut data = source.bytes(length);
                match kind % 2 {
                    0 => self.read(address, &mut data),
                    _ => self.write(address, &data),
                }
            }
        }
    }

    /// Whatever was done: the bridge is there and no other, and a device that comes is as new.
    fn check(&mut self) {
        for number in 1..self.functions.len() {
            self.unplug(number);
        }
        assert_eq!(self.word(CONFIGS), 0x0008_1b36);
        assert_eq!(self.word(CONFIGS + CONFIG), u32::MAX);
        assert_eq!(self.root.free().unwrap(), (1, BARS as u32 + BAR_LEN));
        self.plug(1, Box::new(Rng::new(&Default::default()).unwrap()));
        assert_eq!(self.word(CONFIGS + CONFIG), 0x1044_1af4);
        self.memory
            .write_slice(&[0; 64], GuestAddress(AVAILABLE))
            .unwrap();
        self.memory.write_slice(&[0; 64], GuestAddress(USED)).unwrap();
        self.bring_up(1);
        let sent = self.sink.0.load(Ordering::Relaxed);
        self.ask(1, 1);
        assert_eq!(self.byte(BARS + BAR + 0x14), 15);
        let used: u16 = self.memory.read_obj(GuestAddress(USED + 2)).unwrap();
        assert_eq!(used, 1, "a request is answered");
        assert_eq!(self.sink.0.load(Ordering::Relaxed), sent + 1, "with a message");
    }
}

fn new(source: &mut Source<'_>) -> Box<dyn VirtioDevice> {
    match source.below(2) {
        0 => Box::new(Rng::new(&limits(source)).unwrap()),
        _ => {
            let config = BalloonConfig::default();
            Box::new(Balloon::new(&config, Box::new(Overwrite)).unwrap())
        }
    }
}

/// Mostly where something is.
fn address(source: &mut Source<'_>, number: u64) -> u64 {
    match source.u8() % 16 {
        0 => CONFIGS + source.below(Root::ECAM_LEN),
        1 => BARS + source.below(Root::WINDOW_LEN),
        2 => ports::BASE + source.below(ports::LEN),
        3..=7 => CONFIGS + number * CONFIG + source.below(0x100),
        _ => BARS + number * BAR + (source.below(6) << 12) + source.below(0x40),
    }
}

/// One episode on `memory`.
pub fn episode(memory: GuestMemory, source: &mut Source<'_>, steps: u64) -> Totals {
    let mut world = World::new(memory);
    for number in 1..=DEVICES {
        world.plug(number, new(source));
    }
    while world.totals.steps < steps && !source.is_empty() {
        world.step(source);
        world.totals.steps += 1;
    }
    world.check();
    Totals {
        answered: world.sink.0.load(Ordering::Relaxed),
        ..world.totals
    }
}

/// One episode from a fuzzer's bytes.
pub fn fuzz(data: &[u8]) {
    thread_local! {
        static ARENA: super::arena::Arena = super::arena::Arena::new();
    }
    ARENA.with(|arena| {
        episode(arena.clear(), &mut Source::Bytes(data), u64::MAX);
        arena.check();
    });
}
