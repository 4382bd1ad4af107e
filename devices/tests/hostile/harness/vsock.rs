//! The vsock device under attack, with clients and a service on the host that are none too polite either.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use secovia_devices::GuestMemory;
use secovia_devices::virtio::device::VirtioDevice;
use secovia_devices::virtio::vsock::Vsock;
use vm_memory::{Bytes, GuestAddress};

use super::chain::{Descriptor, poke};
use super::driver::{BUFFERS, Driver};
use super::source::Source;
use super::{Directory, Target};

const CID: u64 = 3;
const HEADER: u32 = 44;
/// Where received packets go: 32 buffers of 8 KiB.
const RX: u64 = BUFFERS;
const RX_BUFFERS: u64 = 32;
/// Where packets for the device are made, up to 40 KiB long.
const TX: u64 = 0x1_0000_0000;
/// The port at which the host's service listens.
const SERVICE: u32 = 80;
const MAX_PEERS: usize = 48;
/// What a peer of the host's writes.
static NOISE: [u8; 300_000] = [b'x'; 300_000];

pub struct VsockTarget {
    directory: Directory,
    service: UnixListener,
    /// Sockets of the host's: clients, and accepted by the service.
    peers: Vec<UnixStream>,
    /// Streams that the service got from the guest.
    pub accepted: u64,
    /// Reads by which a client learned that the guest accepted.
    pub greeted: u64,
    /// Bytes that came from the guest.
    pub received: u64,
}

impl VsockTarget {
    pub fn new() -> Self {
        let directory = Directory::new();
        let service = UnixListener::bind(directory.join(&format!("vsock_{SERVICE}"))).unwrap();
        service.set_nonblocking(true).unwrap();
        Self {
            directory,
            service,
            peers: Vec::new(),
            accepted: 0,
            greeted: 0,
            received: 0,
        }
    }

    /// Connects, if the device's backlog has room: while no driver is there, nobody empties it.
    fn connect(&self) -> Option<UnixStream> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let client = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
        let address = UnixAddr::new(&self.directory.join("vsock")).unwrap();
        connect(client.as_raw_fd(), &address).ok()?;
        Some(client.into())
    }

    /// The addresses of a packet that came, turned round, or of one that nobody sent.
    fn ports(source: &mut Source<'_>, memory: &GuestMemory) -> (u32, u32, u16) {
        let random = match source.u8() % 8 {
            0 => (source.u32(), source.u32(), 1),
            1 => (u32::from(source.u8() % 4), 1 << 30, 1),
            2..=4 => (u32::from(source.u8() % 16), SERVICE, 1),
            _ => (0, 0, 0),
        };
        if random.2 == 1 {
            return random;
        }
        let read = |slot: u64, offset| {
            let at = GuestAddress(RX + slot * 0x2000 + offset);
            memory.read_obj::<u32>(at).unwrap_or(0)
        };
        let op = |slot| (read(slot, 28) >> 16) as u16;
        // Requests first; each is found once.
        let slot = (0..RX_BUFFERS).find(|slot| op(*slot) == 1);
        let slot = slot.unwrap_or_else(|| source.below(RX_BUFFERS));
        let came = (read(slot, 20), read(slot, 16), op(slot));
        if came.2 == 1 {
            poke(memory, RX + slot * 0x2000 + 30, &[5]);
        }
        came
    }

    fn packet(&mut self, source: &mut Source<'_>, memory: &GuestMemory) -> Vec<Descriptor> {
        let (from, to, came) = Self::ports(source, memory);
        let op = match (came, source.u8()) {
            // A request that came is mostly accepted.
            (1, 0..=200) => 2,
            (_, 0..=60) => 1,
            (_, 61..=70) => 2,
            (_, 71..=80) => 3,
            (_, 81..=90) => 4,
            (_, 91..=200) => 5,
            (_, 201..=225) => 6,
            (_, 226..=245) => 7,
            (_, other) => u16::from(other),
        };
        let payload = match op {
            5 => source.pick(&[0, 1, 100, 4096, 20_000, 40_000]),
            _ => u32::from(source.one_in(16)),
        };
        let mut header = Vec::new();
        let src_cid = if source.one_in(64) { source.u64() } else { CID };
        let dst_cid = if source.one_in(64) { source.u64() } else { 2 };
        header.extend(src_cid.to_le_bytes());
        header.extend(dst_cid.to_le_bytes());
        header.extend(from.to_le_bytes());
        header.extend(to.to_le_bytes());
        header.extend((if source.one_in(250) { source.u32() } else { payload }).to_le_bytes());
        header.extend((if source.one_in(64) { source.u16() } else { 1 }).to_le_bytes());
        header.extend(op.to_le_bytes());
        header.extend(u32::from(source.u8() % 5).to_le_bytes());
        header.extend(source.pick(&[0, 1, 4096, 1 << 18, u32::MAX]).to_le_bytes());
        header.extend((if source.one_in(8) { source.u32() } else { 0 }).to_le_bytes());
        let at = TX + source.below(0x1000);
        poke(memory, at, &header);
        match source.u8() % 4 {
            0 => vec![Descriptor::readable(at, HEADER + payload)],
            1 => vec![
                Descriptor::readable(at, 10),
                Descriptor::readable(at + 10, HEADER - 10),
                Descriptor::readable(at + u64::from(HEADER), payload),
            ],
            _ => vec![
                Descriptor::readable(at, HEADER),
                Descriptor::readable(at + u64::from(HEADER), payload),
            ],
        }
    }
}

impl Target for VsockTarget {
    fn open(&mut self, _source: &mut Source<'_>) -> Box<dyn VirtioDevice> {
        self.peers.clear();
        while self.service.accept().is_ok() {}
        Box::new(Vsock::new(CID, self.directory.join("vsock")).unwrap())
    }

    fn request(&mut self, source: &mut Source<'_>, memory: &GuestMemory, queue: u16) -> Vec<Descriptor> {
        match queue {
            0 => vec![Descriptor::writable(
                RX + source.below(RX_BUFFERS) * 0x2000,
                HEADER + 4096,
            )],
            1 => self.packet(source, memory),
            _ => vec![Descriptor::writable(BUFFERS, 4)],
        }
    }

    fn queue(&mut self, source: &mut Source<'_>, _count: usize) -> usize {
        source.pick(&[0, 0, 0, 0, 1, 1, 1, 2])
    }

    fn host(&mut self, source: &mut Source<'_>) {
        while let Ok((peer, _)) = self.service.accept() {
            peer.set_nonblocking(true).unwrap();
            self.peers.push(peer);
            self.accepted += 1;
        }
        if self.peers.len() > MAX_PEERS {
            let count = source.below(self.peers.len() as u64) as usize;
            self.peers.drain(..count);
        }
        match source.u8() % 8 {
            0 | 1 => {
                if let Some(mut client) = self.connect() {
                    let line = match source.u8() % 8 {
                        0 => "CONNECT ".to_owned(),
                        1 => "nonsense\n".to_owned(),
                        2 => "CONNECT 5\nand bytes before the answer".to_owned(),
                        _ => format!("CONNECT {}\n", source.u8() % 8),
                    };
                    let _ = client.write(line.as_bytes());
                    self.peers.push(client);
                }
            }
            action => {
                let count = self.peers.len() as u64;
                if count == 0 {
                    return;
                }
                let at = source.below(count) as usize;
                let peer = &mut self.peers[at];
                match action {
                    2 | 3 => {
                        let len = source.pick(&[1, 100, 10_000, 300_000]);
                        let _ = peer.write(&NOISE[..len]);
                    }
                    4 | 5 => {
                        let mut bytes = vec![0; 50_000];
                        if let Ok(count) = peer.read(&mut bytes) {
                            self.greeted += u64::from(bytes.starts_with(b"OK "));
                            self.received += count as u64;
                        }
                    }
                    6 => {
                        let how = source.pick(&[Shutdown::Read, Shutdown::Write, Shutdown::Both]);
                        let _ = peer.shutdown(how);
                    }
                    _ => drop(self.peers.swap_remove(at)),
                }
            }
        }
    }

    fn calm(&mut self) {
        self.peers.clear();
    }

    fn check(&mut self, driver: &mut Driver) {
        for slot in 0..RX_BUFFERS {
            driver.send(0, vec![Descriptor::writable(RX + slot * 0x2000, HEADER + 4096)]);
        }
        let mut slot = 0;
        let mut next = |driver: &mut Driver| {
            let len = driver.used(0)?;
            let header = driver.get(RX + slot * 0x2000, HEADER as usize);
            slot += 1;
            Some((len, header))
        };
        while next(driver).is_some() {}
        // A client gets through, and its byte too.
        let mut client = self.connect().expect("a place in the backlog");
        client.write_all(b"CONNECT 1024\n!").unwrap();
        driver.handle_host();
        let (len, request) = next(driver).expect("the client's request");
        assert_eq!((len, &request[30..32]), (HEADER, &[1, 0][..]));
        let mut response = request.clone();
        response[..8].copy_from_slice(&request[8..16]);
        response[8..16].copy_from_slice(&request[..8]);
        response[16..20].copy_from_slice(&request[20..24]);
        response[20..24].copy_from_slice(&request[16..20]);
        response[30] = 2;
        poke(&driver.memory, TX, &response);
        assert_eq!(driver.request(1, vec![Descriptor::readable(TX, HEADER)]), Some(0));
        let mut line = [0; 32];
        let count = client.read(&mut line).unwrap();
        assert!(line.starts_with(b"OK ") && line[count - 1] == b'\n');
        let (len, data) = next(driver).expect("the client's byte");
        assert_eq!((len, &data[30..32]), (HEADER + 1, &[5, 0][..]));
        // A reset of the device closes it.
        driver.recover();
        let end = client.read(&mut line);
        assert!(
            !end.is_err_and(|error| error.kind() == ErrorKind::WouldBlock),
            "a reset drops the streams"
        );
    }
}
