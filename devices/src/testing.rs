//! A driver and an interrupt line to test devices with.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::missing_panics_doc,
    reason = "test support: a panic is a failed test"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use crate::GuestMemory;
use crate::bus::BusDevice;
use crate::interrupt::Interrupt;
use crate::virtio::device::VirtioDevice;
use crate::virtio::mmio::{MmioTransport, offset};
use crate::virtio::transport::Transport;

/// A line that counts its edges.
#[derive(Debug, Default)]
pub struct CountingInterrupt(AtomicU64);

impl CountingInterrupt {
    /// The edges so far.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Interrupt for CountingInterrupt {
    fn trigger(&self) -> std::io::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Where the driver keeps queue 0; each further queue is [`QUEUE_STRIDE`] behind.
pub const QUEUES: u64 = 0x1_0000;
/// The distance between the driver's queues.
pub const QUEUE_STRIDE: u64 = 0x1_0000;
const AVAIL: u64 = 0x8000;
const USED: u64 = 0xc000;
/// Memory above is free for buffers.
pub const BUFFERS: u64 = 0x10_0000;
/// Where memory ends.
pub const MEMORY: u64 = 0x40_0000;

const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// A buffer of a request: address, length, whether the device writes it.
pub type Buffer = (u64, u32, bool);

/// A well-behaved driver on a transport, with 4 MiB of memory.
pub struct FakeDriver {
    /// The transport under test.
    pub transport: MmioTransport,
    /// The guest's memory.
    pub memory: GuestMemory,
    /// The transport's interrupt line.
    pub interrupt: Arc<CountingInterrupt>,
    avail_index: Vec<u16>,
    used_index: Vec<u16>,
    next_descriptor: Vec<u16>,
    sizes: Vec<u16>,
}

impl FakeDriver {
    /// A driver for `device`, which has not touched it yet.
    pub fn new(device: Box<dyn VirtioDevice>) -> Self {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap();
        Self::with_memory(device, memory)
    }

    /// A driver with its memory in `file`.
    pub fn with_file(device: Box<dyn VirtioDevice>, file: std::fs::File) -> Self {
        file.set_len(MEMORY).unwrap();
        let file = vm_memory::FileOffset::new(file, 0);
        let range = (GuestAddress(0), MEMORY as usize, Some(file));
        Self::with_memory(device, GuestMemory::from_ranges_with_files([range]).unwrap())
    }

    fn with_memory(device: Box<dyn VirtioDevice>, memory: GuestMemory) -> Self {
        let interrupt = Arc::new(CountingInterrupt::default());
        let sizes = device.queue_max_sizes().to_vec();
        let transport = MmioTransport::new(device, memory.clone(), interrupt.clone()).unwrap();
        let queues = sizes.len();
        Self {
            transport,
            memory,
            interrupt,
            avail_index: vec![0; queues],
            used_index: vec![0; queues],
            next_descriptor: vec![0; queues],
            sizes,
        }
    }

    /// Reads a register.
    pub fn read(&mut self, register: u64) -> u32 {
        let mut data = [0; 4];
        self.transport.read(register, &mut data);
        u32::from_le_bytes(data)
    }

    /// Writes a register.
    pub fn write(&mut self, register: u64, value: u32) {
        let effect = self.transport.write(register, &value.to_le_bytes());
        assert_eq!(effect, crate::bus::Effect::None);
    }

    /// All features that the device offers.
    pub fn offered(&mut self) -> u64 {
        self.write(offset::DEVICE_FEATURES_SEL, 0);
        let low = self.read(offset::DEVICE_FEATURES);
        self.write(offset::DEVICE_FEATURES_SEL, 1);
        u64::from(low) | (u64::from(self.read(offset::DEVICE_FEATURES)) << 32)
    }

    /// From reset to FEATURES_OK with `features`; says whether the device agreed.
    pub fn negotiate(&mut self, features: u64) -> bool {
        self.write(offset::STATUS, 0);
        self.avail_index.fill(0);
        self.used_index.fill(0);
        self.next_descriptor.fill(0);
        self.write(offset::STATUS, 1);
        self.write(offset::STATUS, 3);
        self.write(offset::DRIVER_FEATURES_SEL, 0);
        self.write(offset::DRIVER_FEATURES, features as u32);
        self.write(offset::DRIVER_FEATURES_SEL, 1);
        self.write(offset::DRIVER_FEATURES, (features >> 32) as u32);
        self.write(offset::STATUS, 11);
        self.read(offset::STATUS) == 11
    }

    /// Describes queue `index` to the device, with the largest size it takes.
    pub fn set_up_queue(&mut self, index: u16) {
        let base = queue_base(index);
        // A queue starts out zeroed.
        self.memory
            .write_slice(&vec![0; QUEUE_STRIDE as usize], GuestAddress(base))
            .unwrap();
        self.write(offset::QUEUE_SEL, u32::from(index));
        self.write(offset::QUEUE_NUM, u32::from(self.sizes[usize::from(index)]));
        for (low, high, address) in [
            (offset::QUEUE_DESC_LOW, offset::QUEUE_DESC_HIGH, base),
            (offset::QUEUE_DRIVER_LOW, offset::QUEUE_DRIVER_HIGH, base + AVAIL),
            (offset::QUEUE_DEVICE_LOW, offset::QUEUE_DEVICE_HIGH, base + USED),
        ] {
            self.write(low, address as u32);
            self.write(high, (address >> 32) as u32);
        }
        self.write(offset::QUEUE_READY, 1);
        assert_eq!(self.read(offset::QUEUE_READY), 1);
    }

    /// From reset to DRIVER_OK with all that the device offers but EVENT_IDX, so that each completion interrupts.
    pub fn start(&mut self) {
        let features = self.offered() & !(1 << 29);
        self.start_with(features);
    }

    /// From reset to DRIVER_OK with `features`.
    pub fn start_with(&mut self, features: u64) {
        assert!(self.negotiate(features));
        for index in 0..self.sizes.len() {
            self.set_up_queue(index as u16);
        }
        self.write(offset::STATUS, 15);
        assert_eq!(self.read(offset::STATUS), 15);
    }

    /// Puts a request into queue `index` without telling the device; returns its head.
    pub fn add(&mut self, index: u16, buffers: &[Buffer]) -> u16 {
        let at = usize::from(index);
        let (base, size) = (queue_base(index), self.sizes[at]);
        let head = self.next_descriptor[at];
        for (position, &(address, len, writable)) in buffers.iter().enumerate() {
            let descriptor = self.next_descriptor[at];
            let next = (descriptor + 1) % size;
            self.next_descriptor[at] = next;
            let mut flags = if writable { WRITE } else { 0 };
            if position + 1 < buffers.len() {
                flags |= NEXT;
            }
            let raw = RawDescriptor::from(Descriptor::new(address, len, flags, next));
            self.memory
                .write_obj(raw, GuestAddress(base + 16 * u64::from(descriptor)))
                .unwrap();
        }
        let avail = base + AVAIL;
        let slot = u64::from(self.avail_index[at] % size);
        self.memory
            .write_obj(head, GuestAddress(avail + 4 + 2 * slot))
            .unwrap();
        self.avail_index[at] = self.avail_index[at].wrapping_add(1);
        self.memory
            .store(self.avail_index[at], GuestAddress(avail + 2), Ordering::Release)
            .unwrap();
        head
    }

    /// Queue `index`, set up as the transport does it, for a test that calls a device by itself. Its answers begin anew.
    pub fn queue(&mut self, index: u16) -> Queue {
        let at = usize::from(index);
        let base = queue_base(index);
        let mut queue = Queue::new(self.sizes[at]).unwrap();
        queue.try_set_size(self.sizes[at]).unwrap();
        queue.try_set_desc_table_address(GuestAddress(base)).unwrap();
        queue
            .try_set_avail_ring_address(GuestAddress(base + AVAIL))
            .unwrap();
        queue
            .try_set_used_ring_address(GuestAddress(base + USED))
            .unwrap();
        queue.set_ready(true);
        self.put(base + USED, &[0; 4]);
        self.used_index[at] = 0;
        queue
    }

    /// Tells the device of new requests, and has it finish what it left, as the event loop does: on a busy host a
    /// call's share is over soon.
    pub fn notify(&mut self, index: u16) {
        let mut cut_short = self.transport.counters().cut_short;
        self.write(offset::QUEUE_NOTIFY, u32::from(index));
        while self.transport.counters().cut_short != cut_short {
            cut_short = self.transport.counters().cut_short;
            self.transport.handle_host();
        }
    }

    /// Notifies only if the device wants to hear of the requests since `old` (the index before they were added), as a
    /// driver with EVENT_IDX does (virtio 1.2, 2.7.10); says whether it did.
    pub fn notify_if_wanted(&mut self, index: u16, old: u16) -> bool {
        let at = usize::from(index);
        let event = queue_base(index) + USED + 4 + 8 * u64::from(self.sizes[at]);
        let event: u16 = self.memory.load(GuestAddress(event), Ordering::SeqCst).unwrap();
        let new = self.avail_index[at];
        let wanted = new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old);
        if wanted {
            self.notify(index);
        }
        wanted
    }

    /// The index that the next request of queue `index` gets.
    pub fn avail_index(&self, index: u16) -> u16 {
        self.avail_index[usize::from(index)]
    }

    /// With EVENT_IDX: asks for an interrupt at the next answer on queue `index`.
    pub fn want_interrupt(&self, index: u16) {
        let at = usize::from(index);
        let event = queue_base(index) + AVAIL + 4 + 2 * u64::from(self.sizes[at]);
        self.memory
            .store(self.used_index[at], GuestAddress(event), Ordering::SeqCst)
            .unwrap();
    }

    /// The next request that the device has answered: its head and the bytes written.
    pub fn used(&mut self, index: u16) -> Option<(u32, u32)> {
        let at = usize::from(index);
        let used = queue_base(index) + USED;
        let end: u16 = self
            .memory
            .load(GuestAddress(used + 2), Ordering::Acquire)
            .unwrap();
        if end == self.used_index[at] {
            return None;
        }
        let slot = u64::from(self.used_index[at] % self.sizes[at]);
        self.used_index[at] = self.used_index[at].wrapping_add(1);
        let entry: [u32; 2] = self.memory.read_obj(GuestAddress(used + 4 + 8 * slot)).unwrap();
        Some((entry[0], entry[1]))
    }

    /// Adds a request, notifies, and returns the number of bytes that the device says it wrote; `None` without an
    /// answer.
    pub fn request(&mut self, index: u16, buffers: &[Buffer]) -> Option<u32> {
        let head = self.add(index, buffers);
        self.notify(index);
        let (id, len) = self.used(index)?;
        assert_eq!(id, u32::from(head));
        Some(len)
    }

    /// As [`used`](Self::used), of a device that takes its time; called as the event loop does it. Panics after ten seconds.
    pub fn wait_used(&mut self, index: u16) -> (u32, u32) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(used) = self.used(index) {
                return used;
            }
            assert!(Instant::now() < deadline, "the device does not answer");
            std::thread::sleep(Duration::from_millis(1));
            self.transport.handle_host();
        }
    }

    /// Puts bytes into memory.
    pub fn put(&self, address: u64, data: &[u8]) {
        self.memory.write_slice(data, GuestAddress(address)).unwrap();
    }

    /// Takes bytes from memory.
    pub fn get(&self, address: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.memory.read_slice(&mut data, GuestAddress(address)).unwrap();
        data
    }
}

/// Where the descriptors of queue `index` are.
pub fn queue_base(index: u16) -> u64 {
    QUEUES + QUEUE_STRIDE * u64::from(index)
}

/// A path in the temporary directory that is not there yet, removed when this is dropped.
#[derive(Debug)]
pub struct TempPath(std::path::PathBuf);

impl TempPath {
    /// A fresh path; `name` is a part of it.
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let file = format!("secovia-devices-{}-{count}-{name}", std::process::id());
        Self(std::env::temp_dir().join(file))
    }

    /// The path.
    pub fn as_path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for TempPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
