//! The network device (virtio 1.2, 5.1) on a tap interface of the host.
//!
//! A packet goes between the guest's memory and the tap by one system call, which copies it once; its checksum and its
//! cutting into segments are left to whoever needs them last ("offloads"). `packet`, `header` and `features` are pure;
//! `receive` (with `buffers`) and `send` are the two directions, `port` is what they share; `tap` is the host's end.
//!
//! # Who does what
//! The guest's packets are sent by the vCPU that announces them; what is left when its share is over, and what a limit
//! holds back, the event loop sends. Packets to the guest are read by the event loop.
//!
//! A [`Neighbour`] inside of this process may share the guest's cable: what the guest sends him goes to him and not to
//! the tap, and what he sends is received like any packet.
//!
//! # System calls
//! Sending: one for each packet (writev). Receiving: one for each packet (readv), and for each run of packets one more
//! that finds nothing, the event loop's wait, its look whether work was left, and the interrupt. With a limit, one timer
//! setting each time it holds.
//!
//! # What is dropped, and counted
//! A packet of the guest's that is no packet (no header, too short, too long, asks for what was not agreed on), or that
//! the host refuses (the tap is down); a packet to the guest that fits into none of its buffers. While the guest gives no
//! buffers, packets wait in the tap, whose own queue is bounded.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use virtio_bindings::virtio_net::VIRTIO_NET_S_LINK_UP;

use self::features::Agreed;
use self::port::{Port, RX, TX};
use self::receive::Receiver;
use self::send::Sender;
use self::tap::Tap;
use super::device::{Active, DeviceError, Outcome, VirtioDevice};
use crate::limiter::{Alarm, Gate, LimitHandle};
use crate::published::Published;

mod buffers;
mod config;
mod features;
mod header;
mod link;
mod neighbour;
mod packet;
mod port;
mod receive;
mod send;
mod tap;

pub use config::{NetConfig, NetError};
pub use link::Link;
pub use neighbour::Neighbour;
pub use port::NetCounters;

const DEVICE_TYPE: u32 = 1;
const QUEUE_SIZES: [u16; 2] = [256; 2];

/// The machine's end of a network device. Any thread may use it.
#[derive(Debug, Clone)]
pub struct NetHandle {
    /// What the guest may receive.
    pub rx_limit: LimitHandle,
    /// What the guest may send.
    pub tx_limit: LimitHandle,
    /// What happened, as of the device's last call.
    pub counters: Published<NetCounters>,
}

/// The network device.
#[derive(Debug)]
pub struct Net {
    published: Published<NetCounters>,
    port: Port,
    receiver: Receiver,
    sender: Sender,
    offered: u64,
    config_space: [u8; CONFIG_LEN],
    mtu: Option<u16>,
    /// A driver has used the link.
    used: bool,
}

impl Net {
    /// Opens the tap interface.
    pub fn open(config: &NetConfig) -> Result<Self, NetError> {
        let tap = Tap::open(&config.tap)?;
        Self::new(config, Box::new(tap)).map_err(|source| NetError::SetUp {
            tap: config.tap.clone(),
            operation: "make a timer for its limits",
            source,
        })
    }

    /// Puts somebody beside the guest on its cable.
    #[must_use]
    pub fn with_neighbour(mut self, neighbour: Box<dyn Neighbour>) -> Self {
        self.port.neighbour = Some(neighbour);
        self
    }

    /// A device on any link. Fails where there is no timer for its limits.
    pub fn new(config: &NetConfig, link: Box<dyn Link>) -> io::Result<Self> {
        let port = Port {
            id: config.id.clone(),
            link,
            neighbour: None,
            agreed: Agreed::default(),
            alarm: Alarm::new()?,
            counters: NetCounters::default(),
        };
        Ok(Self {
            published: Published::default(),
            port,
            receiver: Receiver::new(Gate::new(&config.rx_limit)),
            sender: Sender::new(Gate::new(&config.tx_limit)),
            offered: features::offered(config),
            config_space: config_space(config),
            mtu: config.mtu,
            used: false,
        })
    }

    /// Moves packets from the guest, and what a neighbour answers.
    fn send(&mut self, active: &mut Active<'_>) -> Result<bool, DeviceError> {
        let sent = self.sender.run(&mut self.port, active)?;
        let answered = self.port.has_answer() && self.receiver.run(&mut self.port, active)?;
        Ok(sent || answered)
    }

    /// What happened so far.
    pub fn counters(&self) -> NetCounters {
        self.port.counters
    }

    /// By which the machine changes its limits.
    pub fn handle(&self) -> NetHandle {
        NetHandle {
            rx_limit: self.receiver.gate.handle(),
            tx_limit: self.sender.gate.handle(),
            counters: self.published.clone(),
        }
    }
}

/// Address, status, number of queue pairs, MTU.
const CONFIG_LEN: usize = 12;

/// The configuration space (5.1.4), little-endian.
fn config_space(config: &NetConfig) -> [u8; CONFIG_LEN] {
    let mut space = [0; CONFIG_LEN];
    let (mac, rest) = space.split_at_mut(6);
    mac.copy_from_slice(&config.mac.unwrap_or_default());
    let [status, _, _, _, mtu @ ..] = rest else {
        return space;
    };
    *status = VIRTIO_NET_S_LINK_UP as u8;
    mtu.copy_from_slice(&config.mtu.unwrap_or_default().to_le_bytes());
    space
}

fn interrupt(interrupt: bool) -> Outcome {
    Outcome {
        interrupt,
        config_changed: false,
    }
}

impl VirtioDevice for Net {
    fn device_type(&self) -> u32 {
        DEVICE_TYPE
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        self.offered
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (to, from) in data.iter_mut().zip(self.config_space.iter().skip(start)) {
            *to = *from;
        }
    }

    fn activate(&mut self, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        let agreed = Agreed(active.features);
        self.used = true;
        self.port.agreed = agreed;
        self.receiver
            .reset(agreed.mergeable(), agreed.largest_packet(self.mtu));
        self.port
            .link
            .set_offloads(agreed.tap_offloads())
            .map_err(|source| DeviceError::Host {
                operation: "tell the tap which packets the driver takes",
                source,
            })?;
        Ok(Outcome::default())
    }

    fn handle_queue(&mut self, index: u16, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        let outcome = match index {
            RX if self.receiver.waits_for_buffers() => {
                self.receiver.run(&mut self.port, active).map(interrupt)
            }
            TX => self.send(active).map(interrupt),
            _ => Ok(Outcome::default()),
        };
        self.port.settle();
        self.published.set(self.port.counters);
        outcome
    }

    fn host_fds(&self) -> Vec<RawFd> {
        vec![
            self.port.link.as_fd().as_raw_fd(),
            self.port.alarm.as_fd().as_raw_fd(),
        ]
    }

    fn handle_host(&mut self, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        let received = self.receiver.run(&mut self.port, active)?;
        let sent = self.sender.is_behind() && self.send(active)?;
        self.port.settle();
        self.published.set(self.port.counters);
        Ok(interrupt(received || sent))
    }

    fn reset(&mut self) {
        self.port.alarm.stop();
        self.port.agreed = Agreed::default();
        self.receiver.reset(false, 0);
        self.sender.reset();
        if let Some(neighbour) = &mut self.port.neighbour {
            neighbour.reset();
        }
        if std::mem::take(&mut self.used) {
            if let Err(error) = self.port.link.set_offloads(0) {
                log::debug!("network interface {}: switch offloads off: {error}", self.port.id);
            }
            self.port.drain();
        }
    }
}

#[cfg(test)]
mod tests;
