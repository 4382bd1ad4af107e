//! A guest in miniature: a vsock driver over real queues, and sockets above it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::super::super::packet::{
    HEADER_LEN, HOST_CID, Header, Op, SHUTDOWN_BOTH, SHUTDOWN_SEND, TYPE_STREAM,
};
use super::super::*;
use crate::virtio::device::Share;

pub(super) const CID: u64 = 42;
const SIZE: u16 = 256;
/// Bytes of one receive buffer, as Linux has them.
const RX_BUFFER: u32 = HEADER_LEN_U32 + 4096;
const TX_SLOTS: u16 = SIZE / 2;
const TX_PAYLOAD: usize = 16 * 1024 - HEADER_LEN;
const RX_BASE: u64 = 0x10_0000;
const TX_BASE: u64 = 0x40_0000;
const EVENT_BASE: u64 = 0x1_0000;
/// What each of the guest's sockets buffers.
pub(super) const GUEST_BUFFER: u32 = 64 * 1024;

const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// The driver's half of one ring.
struct Ring {
    base: u64,
    avail: u16,
    used: u16,
}

impl Ring {
    fn descriptor(&self, memory: &GuestMemory, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let at = GuestAddress(self.base + u64::from(index) * 16);
        let raw =
            u128::from(address) | u128::from(len) << 64 | u128::from(flags) << 96 | u128::from(next) << 112;
        memory.write_slice(&raw.to_le_bytes(), at).unwrap();
    }

    fn offer(&mut self, memory: &GuestMemory, head: u16) {
        let slot = u64::from(self.avail % SIZE);
        memory
            .write_obj(head, GuestAddress(self.base + 0x1000 + 4 + slot * 2))
            .unwrap();
        self.avail = self.avail.wrapping_add(1);
        memory
            .write_obj(self.avail, GuestAddress(self.base + 0x1000 + 2))
            .unwrap();
    }

    /// The head and length of the next used entry.
    fn take_used(&mut self, memory: &GuestMemory) -> Option<(u16, u32)> {
        let index: u16 = memory.read_obj(GuestAddress(self.base + 0x2000 + 2)).unwrap();
        if index == self.used {
            return None;
        }
        let slot = u64::from(self.used % SIZE);
        self.used = self.used.wrapping_add(1);
        let at = self.base + 0x2000 + 4 + slot * 8;
        let head: u32 = memory.read_obj(GuestAddress(at)).unwrap();
        let len: u32 = memory.read_obj(GuestAddress(at + 4)).unwrap();
        Some((u16::try_from(head).unwrap(), len))
    }
}

/// The guest's end of a stream.
#[derive(Default)]
pub(super) struct Socket {
    pub(super) open: bool,
    /// Bytes that came and that no program has read.
    pub(super) inbox: VecDeque<u8>,
    /// Bytes that a program wrote and that wait for credit.
    pub(super) outbox: VecDeque<u8>,
    /// OP_SHUTDOWN flags that the host sent.
    pub(super) host_shutdown: u32,
    /// The host reset it.
    pub(super) reset: bool,
    sent: u32,
    read: u32,
    told: u32,
    host_alloc: u32,
    host_forwarded: u32,
}

impl Socket {
    /// A program reads up to `max` bytes.
    pub(super) fn read(&mut self, max: usize) -> Vec<u8> {
        let count = max.min(self.inbox.len());
        self.read = self.read.wrapping_add(count as u32);
        self.inbox.drain(..count).collect()
    }

    fn credit(&self) -> usize {
        self.host_alloc
            .saturating_sub(self.sent.wrapping_sub(self.host_forwarded)) as usize
    }
}

/// The name of a stream: the host's port, the guest's port.
pub(super) type Name = (u32, u32);

/// The machine.
pub(super) struct Guest {
    pub(super) device: Vsock,
    pub(super) memory: GuestMemory,
    queues: Vec<Queue>,
    rings: [Ring; 3],
    free_tx: Vec<u16>,
    epoll: Epoll,
    pub(super) sockets: BTreeMap<Name, Socket>,
    pub(super) listening: BTreeSet<u32>,
    /// Receive buffers that the driver holds back, while `hold` is set.
    held: Vec<u16>,
    pub(super) hold: bool,
    /// Every header that came.
    pub(super) log: Vec<Header>,
    directory: PathBuf,
}

impl Guest {
    /// A guest that has just booted.
    pub(super) fn new() -> Self {
        let directory = super::directory();
        let device = Vsock::new(CID, directory.join("vsock")).unwrap();
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x100_0000)]).unwrap();
        // As the event loop does it.
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        // SAFETY: the descriptor belongs to the device, which lives as long as the guest.
        let fd = unsafe { BorrowedFd::borrow_raw(device.host_fds()[0]) };
        epoll
            .add(fd, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0))
            .unwrap();
        let mut guest = Self {
            device,
            memory,
            queues: Vec::new(),
            rings: [0u64, 1, 2].map(|index| Ring {
                base: index * 0x4000,
                avail: 0,
                used: 0,
            }),
            free_tx: Vec::new(),
            epoll,
            sockets: BTreeMap::new(),
            listening: BTreeSet::new(),
            held: Vec::new(),
            hold: false,
            log: Vec::new(),
            directory,
        };
        guest.boot();
        guest
    }

    /// Sets the queues up and activates the device.
    pub(super) fn boot(&mut self) {
        self.memory.write_slice(&[0; 0xc000], GuestAddress(0)).unwrap();
        self.sockets.clear();
        self.queues = self
            .rings
            .iter_mut()
            .map(|ring| {
                (ring.avail, ring.used) = (0, 0);
                let mut queue = Queue::new(SIZE).unwrap();
                queue.set_size(SIZE);
                queue.try_set_desc_table_address(GuestAddress(ring.base)).unwrap();
                queue
                    .try_set_avail_ring_address(GuestAddress(ring.base + 0x1000))
                    .unwrap();
                queue
                    .try_set_used_ring_address(GuestAddress(ring.base + 0x2000))
                    .unwrap();
                queue.set_ready(true);
                assert!(queue.is_valid(&self.memory));
                queue
            })
            .collect();
        self.free_tx = (0..TX_SLOTS).collect();
        self.held.clear();
        for index in 0..SIZE {
            self.offer_rx(index);
        }
        for index in 0..4u16 {
            let address = EVENT_BASE + u64::from(index) * 4;
            self.rings[2].descriptor(&self.memory, index, address, 4, WRITE, 0);
            self.rings[2].offer(&self.memory, index);
        }
        self.call(|device, active| device.activate(active));
        self.call(|device, active| device.handle_host(active));
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.join("vsock")
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Calls the device as the transport does.
    pub(super) fn call<T>(
        &mut self,
        work: impl FnOnce(&mut Vsock, &mut Active<'_>) -> Result<T, DeviceError>,
    ) -> T {
        self.try_call(work).unwrap()
    }

    pub(super) fn try_call<T>(
        &mut self,
        work: impl FnOnce(&mut Vsock, &mut Active<'_>) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        let mut active = Active {
            memory: &self.memory,
            queues: &mut self.queues,
            features: 0,
            share: Share::of(Duration::from_secs(3600)),
        };
        work(&mut self.device, &mut active)
    }

    fn offer_rx(&mut self, index: u16) {
        let address = RX_BASE + u64::from(index) * 0x2000;
        self.rings[0].descriptor(&self.memory, index, address, RX_BUFFER, WRITE, 0);
        self.rings[0].offer(&self.memory, index);
    }

    /// The driver gives back the receive buffers that it held.
    pub(super) fn release(&mut self) {
        self.hold = false;
        for index in std::mem::take(&mut self.held) {
            self.offer_rx(index);
        }
        self.call(|device, active| device.handle_queue(RX, active));
    }

    /// Puts a packet into the transmit queue without telling the device.
    pub(super) fn queue_packet(&mut self, header: &Header, payload: &[u8]) {
        while let Some((head, _)) = self.rings[1].take_used(&self.memory) {
            self.free_tx.push(head / 2);
        }
        let slot = self.free_tx.pop().expect("the transmit queue is full");
        let address = TX_BASE + u64::from(slot) * 0x4000;
        self.memory
            .write_slice(&header.encode(), GuestAddress(address))
            .unwrap();
        let body = address + HEADER_LEN as u64;
        self.memory.write_slice(payload, GuestAddress(body)).unwrap();
        let (first, second) = (slot * 2, slot * 2 + 1);
        let flags = if payload.is_empty() { 0 } else { NEXT };
        self.rings[1].descriptor(&self.memory, first, address, HEADER_LEN_U32, flags, second);
        self.rings[1].descriptor(&self.memory, second, body, payload.len() as u32, 0, 0);
        self.rings[1].offer(&self.memory, first);
    }

    /// Sends a packet as it is.
    pub(super) fn send_raw(&mut self, header: &Header, payload: &[u8]) {
        self.queue_packet(header, payload);
        self.call(|device, active| device.handle_queue(TX, active));
    }

    /// Sends a packet of a stream's.
    pub(super) fn send(&mut self, name: Name, op: Op, flags: u32, payload: &[u8]) {
        let header = self.header(name, op, flags, payload.len());
        self.send_raw(&header, payload);
    }

    pub(super) fn header(&mut self, name: Name, op: Op, flags: u32, len: usize) -> Header {
        let fwd_cnt = self.sockets.get_mut(&name).map_or(0, |socket| {
            socket.told = socket.read;
            socket.read
        });
        Header {
            src_cid: CID,
            dst_cid: HOST_CID,
            src_port: name.1,
            dst_port: name.0,
            len: len as u32,
            kind: TYPE_STREAM,
            op: op.number(),
            flags,
            buf_alloc: GUEST_BUFFER,
            fwd_cnt,
        }
    }

    /// A program connects to a port of the host's.
    pub(super) fn connect(&mut self, port: u32, from: u32) -> Name {
        let name = (port, from);
        self.sockets.insert(name, Socket::default());
        self.send(name, Op::Request, 0, &[]);
        self.turn();
        name
    }

    /// Waits up to `milliseconds` for the host's side.
    pub(super) fn wait(&mut self, milliseconds: u16) {
        let mut events = [EpollEvent::empty()];
        if self.epoll.wait(&mut events, milliseconds).unwrap() > 0 {
            self.call(|device, active| device.handle_host(active));
        }
    }

    /// Everything that can happen now happens.
    pub(super) fn turn(&mut self) {
        loop {
            self.wait(0);
            let received = self.receive();
            let sent = self.flush();
            if !received && !sent {
                break;
            }
        }
    }

    /// Turns until `done`, or fails after ten seconds.
    pub(super) fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let start = std::time::Instant::now();
        loop {
            self.turn();
            if done(self) {
                break;
            }
            assert!(start.elapsed().as_secs() < 10, "nothing more happens");
            self.wait(1);
        }
    }

    /// Takes the packets that came; says whether there was one.
    fn receive(&mut self) -> bool {
        let mut any = false;
        while let Some((head, len)) = self.rings[0].take_used(&self.memory) {
            any = true;
            let at = RX_BASE + u64::from(head) * 0x2000;
            let mut bytes = [0; HEADER_LEN];
            self.memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
            let header = Header::parse(&bytes);
            assert_eq!(len, HEADER_LEN_U32 + header.len);
            let mut payload = vec![0; header.len as usize];
            self.memory
                .read_slice(&mut payload, GuestAddress(at + HEADER_LEN as u64))
                .unwrap();
            self.on_packet(&header, &payload);
            if self.hold {
                self.held.push(head);
            } else {
                self.offer_rx(head);
            }
        }
        if any && !self.hold {
            self.call(|device, active| device.handle_queue(RX, active));
        }
        any
    }

    fn on_packet(&mut self, header: &Header, payload: &[u8]) {
        self.log.push(*header);
        assert_eq!(header.dst_cid, CID);
        let name = (header.src_port, header.dst_port);
        let op = Op::parse(header.op).unwrap();
        if op == Op::Request {
            if self.listening.contains(&header.dst_port) && !self.sockets.contains_key(&name) {
                self.sockets.insert(
                    name,
                    Socket {
                        open: true,
                        ..Socket::default()
                    },
                );
                self.heard(name, header);
                self.send(name, Op::Response, 0, &[]);
            } else {
                self.send(name, Op::Reset, 0, &[]);
            }
            return;
        }
        let Some(socket) = self.sockets.get_mut(&name) else {
            assert!(op == Op::Reset, "{op:?} for no socket");
            return;
        };
        match op {
            Op::Response => socket.open = true,
            Op::Reset => (socket.reset, socket.open) = (true, false),
            Op::Shutdown => {
                socket.host_shutdown |= header.flags;
                if socket.host_shutdown == SHUTDOWN_BOTH && socket.inbox.is_empty() {
                    socket.open = false;
                    self.send(name, Op::Reset, 0, &[]);
                    return;
                }
            }
            Op::Data => {
                assert_eq!(socket.host_shutdown & SHUTDOWN_SEND, 0, "data after the end");
                socket.inbox.extend(payload);
                assert!(
                    socket.inbox.len() <= GUEST_BUFFER as usize,
                    "the device ignores the credit"
                );
            }
            Op::CreditUpdate | Op::Request => {}
            Op::CreditRequest => {
                self.heard(name, header);
                self.send(name, Op::CreditUpdate, 0, &[]);
                return;
            }
        }
        self.heard(name, header);
    }

    fn heard(&mut self, name: Name, header: &Header) {
        if let Some(socket) = self.sockets.get_mut(&name) {
            socket.host_alloc = header.buf_alloc;
            socket.host_forwarded = header.fwd_cnt;
        }
    }

    /// Sends what programs wrote, as far as credit and queue allow; says whether something was sent.
    fn flush(&mut self) -> bool {
        let mut any = false;
        let names: Vec<_> = self.sockets.keys().copied().collect();
        for name in names {
            let socket = self.sockets.get_mut(&name).unwrap();
            if !socket.open {
                continue;
            }
            let count = socket.outbox.len().min(socket.credit()).min(TX_PAYLOAD);
            if count > 0 {
                let payload: Vec<u8> = socket.outbox.drain(..count).collect();
                socket.sent = socket.sent.wrapping_add(count as u32);
                self.send(name, Op::Data, 0, &payload);
                any = true;
            } else if socket.read.wrapping_sub(socket.told) >= GUEST_BUFFER / 2 {
                self.send(name, Op::CreditUpdate, 0, &[]);
                any = true;
            }
        }
        any
    }

    pub(super) fn socket(&mut self, name: Name) -> &mut Socket {
        self.sockets.get_mut(&name).unwrap()
    }

    /// The next event that the device sent.
    pub(super) fn event(&mut self) -> Option<u32> {
        let (head, len) = self.rings[2].take_used(&self.memory)?;
        assert_eq!(len, 4);
        let at = EVENT_BASE + u64::from(head) * 4;
        Some(self.memory.read_obj(GuestAddress(at)).unwrap())
    }

    /// The driver offers one more buffer for events.
    pub(super) fn offer_event(&mut self) {
        self.rings[2].offer(&self.memory, 0);
    }

    /// Takes the packets that came, once.
    pub(super) fn receive_once(&mut self) {
        self.receive();
    }

    /// Makes the next receive buffer too small.
    pub(super) fn spoil_rx(&mut self) {
        for index in 0..SIZE {
            self.rings[0].descriptor(&self.memory, index, RX_BASE, HEADER_LEN_U32, WRITE, 0);
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
