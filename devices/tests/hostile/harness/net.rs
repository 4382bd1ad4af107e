//! The network device under attack, with a host that sends packets of any kind, and looks at each one that comes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use secovia_devices::GuestMemory;
use secovia_devices::virtio::device::VirtioDevice;
use secovia_devices::virtio::net::{Link, Net, NetConfig};

use super::chain::{Descriptor, poke};
use super::driver::{BUFFERS, Driver};
use super::source::Source;
use super::{Target, limits};

const HEADER: usize = 12;
/// The largest IP packet, with Ethernet's header and a VLAN's tag.
const MAX_FRAME: usize = 65535 + 18;
/// Where received packets go: 16 buffers of 8 KiB.
const RX: u64 = BUFFERS;
/// Where packets for the device are made.
const TX: u64 = 0x1_0000_0000;
/// What the host's packets are made of.
static NOISE: [u8; MAX_FRAME + HEADER] = [b'x'; MAX_FRAME + HEADER];

/// A socket that keeps packets apart, as a tap does.
#[derive(Debug)]
struct Cable(OwnedFd);

impl AsFd for Cable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Link for Cable {
    fn set_offloads(&self, _offloads: u32) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Default)]
pub struct NetTarget {
    host: Option<OwnedFd>,
    /// Packets that came from the guest.
    pub received: u64,
    /// Of those, packets with a checksum or segments left to the host.
    pub offloaded: u64,
}

impl NetTarget {
    /// The next packet from the guest, which the host's kernel would believe.
    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut packet = vec![0; MAX_FRAME + HEADER + 1];
        let len = nix::unistd::read(self.host.as_ref()?, &mut packet).ok()?;
        packet.truncate(len);
        let frame = (len - HEADER) as u32;
        assert!(
            (14..=MAX_FRAME as u32).contains(&frame),
            "a frame of {frame} bytes"
        );
        let field = |at: usize| u32::from(u16::from_le_bytes([packet[at], packet[at + 1]]));
        let (flags, kind) = (packet[0], packet[1]);
        let (hint, segment, start, offset) = (field(2), field(4), field(6), field(8));
        assert_eq!(field(10), 0, "no buffers are counted on the way out");
        match flags {
            0 => assert_eq!((start, offset), (0, 0)),
            1 => assert!(start >= 14 && start + offset + 2 <= frame),
            _ => panic!("flags {flags:#x}"),
        }
        match kind {
            0 => assert_eq!((hint, segment), (0, 0)),
            1 | 3 | 4 | 0x81 | 0x84 => assert!(flags == 1 && segment > 0 && hint <= frame),
            _ => panic!("segments of the kind {kind:#x}"),
        }
        self.received += 1;
        self.offloaded += u64::from(flags);
        Some(packet)
    }

    fn packet(source: &mut Source<'_>, memory: &GuestMemory) -> Vec<Descriptor> {
        let len = source.pick(&[0, 13, 14, 60, 1514, 1514, 4000, 30_000]);
        let mut header = vec![
            source.pick(&[0, 0, 1, 1, 1, 3, 0xff]),
            source.pick(&[0, 0, 0, 1, 3, 4, 0x81, 5, 0xff]),
        ];
        header.extend((if source.one_in(8) { source.u16() } else { 54 }).to_le_bytes());
        header.extend(source.pick(&[0u16, 1448, 1448, 65535]).to_le_bytes());
        header.extend((if source.one_in(8) { source.u16() } else { 34 }).to_le_bytes());
        header.extend((if source.one_in(8) { source.u16() } else { 16 }).to_le_bytes());
        header.extend([0, 0]);
        let at = TX + source.below(0x1000);
        poke(memory, at, &header);
        let head = HEADER as u32;
        match source.u8() % 8 {
            0 => vec![Descriptor::readable(at, head - 1)],
            1 => vec![
                Descriptor::readable(at, 5),
                Descriptor::readable(at + 5, 7),
                Descriptor::readable(at + 12, len),
            ],
            // More pieces than one system call takes.
            2 => (0..100)
                .map(|piece| Descriptor::readable(at + piece * 12, head))
                .collect(),
            3 => vec![
                Descriptor::readable(at, head),
                Descriptor::readable(at + 12, len),
                Descriptor::writable(RX, 64),
            ],
            _ => vec![Descriptor::readable(at, head), Descriptor::readable(at + 12, len)],
        }
    }
}

impl Target for NetTarget {
    fn open(&mut self, source: &mut Source<'_>) -> Box<dyn VirtioDevice> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let (cable, host) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        self.host = Some(host);
        let config = NetConfig {
            id: "hostile".into(),
            tap: "none".into(),
            mac: source.one_in(2).then_some([2, 0, 0, 0, 0, 1]),
            mtu: source.pick(&[None, Some(68), Some(1500), Some(9000), Some(65535)]),
            rx_limit: limits(source),
            tx_limit: limits(source),
        };
        Box::new(Net::new(&config, Box::new(Cable(cable))).unwrap())
    }

    fn request(&mut self, source: &mut Source<'_>, memory: &GuestMemory, queue: u16) -> Vec<Descriptor> {
        if queue == 1 {
            return Self::packet(source, memory);
        }
        let at = RX + source.below(16) * 0x2000;
        let len = source.pick(&[11, 12, 13, 100, 1526, 1530, 4096, 4096, 0x1_0000]);
        match source.u8() % 4 {
            0 => vec![Descriptor::writable(at, 7), Descriptor::writable(at + 7, len)],
            _ => vec![Descriptor::writable(at, len)],
        }
    }

    fn host(&mut self, source: &mut Source<'_>) {
        for _ in 0..source.below(8) {
            let len = source.pick(&[1, 12, 13, 72, 1526, 1526, 5000, 20_000, NOISE.len()]);
            if let Some(host) = &self.host {
                let _ = nix::unistd::write(host, &NOISE[..len]);
            }
        }
        while self.receive().is_some() {}
    }

    fn calm(&mut self) {
        while self.receive().is_some() {}
    }

    fn check(&mut self, driver: &mut Driver) {
        let frame: Vec<u8> = (0..600).map(|at| at as u8).collect();
        let packet = [[0; HEADER].as_slice(), &frame].concat();
        poke(&driver.memory, TX, &packet);
        assert_eq!(driver.request(1, vec![Descriptor::readable(TX, 612)]), Some(0));
        assert_eq!(self.receive().as_ref(), Some(&packet));
        // Behind what came while there was no driver. Any packet fits into one buffer of this length.
        let host = self.host.as_ref().expect("open comes first");
        assert_eq!(nix::unistd::write(host, &packet), Ok(612));
        let buffer = || vec![Descriptor::writable(RX, 0x1_1000)];
        while driver.request(0, buffer()).expect("a packet") != 612 {}
        assert_eq!(driver.get(RX + 10, 2), [1, 0]);
        assert_eq!(driver.get(RX + 12, 600), frame);
    }
}
