//! The device: queues on one side, the [`Engine`] on the other.

use std::os::fd::RawFd;
use std::path::PathBuf;

use virtio_queue::{Queue, QueueOwnedT, QueueT};

use super::engine::Engine;
use super::host::Host;
use super::listener::Listener;
use super::packet::{HEADER_LEN, Header};
use super::{Payload, VsockError};
use crate::GuestMemory;
use crate::published::Published;
use crate::virtio::chain::{Buffers, Chain};
use crate::virtio::device::{Active, DeviceError, Outcome, VirtioDevice};

/// The device type of virtio 1.2, section 5.
const TYPE_VSOCK: u32 = 19;

/// VIRTIO_VSOCK_F_STREAM: stream sockets, and they alone.
const FEATURE_STREAM: u64 = 1 << 0;

/// Packets to the guest.
const RX: u16 = 0;
/// Packets from the guest.
const TX: u16 = 1;
/// Events for the guest.
const EVENT: u16 = 2;

const QUEUE_SIZES: [u16; 3] = [256; 3];

/// VIRTIO_VSOCK_EVENT_TRANSPORT_RESET, the only event there is.
const EVENT_TRANSPORT_RESET: u32 = 0;

/// A vsock device whose host side is a Unix socket; see the module.
#[derive(Debug)]
pub struct Vsock {
    cid: u64,
    engine: Engine,
    chain: Chain,
    /// The guest is still to be told that all streams are gone.
    reset_due: bool,
    counters: VsockCounters,
    published: Published<VsockCounters>,
}

/// What happened on a socket device since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VsockCounters {
    /// Packets that the guest received.
    pub rx_packets: u64,
    /// Bytes of streams in them.
    pub rx_bytes: u64,
    /// Packets that the guest sent.
    pub tx_packets: u64,
    /// Bytes of streams in them.
    pub tx_bytes: u64,
}

impl Vsock {
    /// A device for a guest with the address `cid`; creates the socket `uds_path`, which must not exist. Dropping the
    /// device removes it.
    pub fn new(cid: u64, uds_path: impl Into<PathBuf>) -> Result<Self, VsockError> {
        // 0 and 1 are the hypervisor's and the local address, 2 is the host; an address has 32 bits, of which all
        // ones mean "any" (virtio 1.2, 5.10.4).
        if !(3..u64::from(u32::MAX)).contains(&cid) {
            return Err(VsockError::ReservedCid { cid });
        }
        let listener = Listener::bind(&uds_path.into())?;
        Ok(Self {
            cid,
            engine: Engine::new(cid, Host::new(listener)?),
            chain: Chain::new(),
            reset_due: false,
            counters: VsockCounters::default(),
            published: Published::default(),
        })
    }

    /// What happens, as of the device's last call; for whoever does not have the device.
    pub fn counters(&self) -> Published<VsockCounters> {
        self.published.clone()
    }

    /// Ends all streams and tells the guest with a TRANSPORT_RESET event, after which its driver reads the CID
    /// again. For a machine that was restored elsewhere or a second time: the host's ends of its streams are not
    /// there any more (virtio 1.2, 5.10.6.7).
    pub fn transport_reset(&mut self, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        self.engine.drop_streams();
        self.reset_due = true;
        let interrupt = self.send_event(active)?;
        Ok(Outcome {
            interrupt,
            config_changed: false,
        })
    }

    /// Delivers the event if it is due and the guest left room; else it waits for the guest's next buffer.
    fn send_event(&mut self, active: &mut Active<'_>) -> Result<bool, DeviceError> {
        if !self.reset_due {
            return Ok(false);
        }
        let Some(queue) = active.queues.get_mut(usize::from(EVENT)) else {
            return Ok(false);
        };
        if !self.chain.next(EVENT, queue, active.memory)? {
            return Ok(false);
        }
        let room = self.chain.writable(active.memory);
        room.write(&EVENT_TRANSPORT_RESET.to_le_bytes())?;
        self.chain.complete(queue, active.memory, 4)?;
        self.reset_due = false;
        wants_interrupt(EVENT, queue, active.memory)
    }

    /// Moves packets both ways until nothing moves any more, or the call's share is over.
    fn pump(&mut self, active: &mut Active<'_>, take: bool) -> Result<Outcome, DeviceError> {
        let mut interrupt = false;
        let mut take = take;
        loop {
            if take {
                interrupt |= self.take_packets(active)?;
            }
            let waited = !self.engine.has_room();
            interrupt |= self.give_packets(active)?;
            // The guest's packets waited until resets could go out; now they can.
            take = waited && self.engine.has_room() && !active.share.was_cut_short();
            if !take {
                break;
            }
        }
        self.published.set(self.counters);
        Ok(Outcome {
            interrupt,
            config_changed: false,
        })
    }

    /// Takes the guest's packets.
    fn take_packets(&mut self, active: &mut Active<'_>) -> Result<bool, DeviceError> {
        let memory = active.memory;
        let Some(queue) = active
            .queues
            .get_mut(usize::from(TX))
            .filter(|queue| queue.ready())
        else {
            return Ok(false);
        };
        let mut used = false;
        loop {
            queue.disable_notification(memory).map_err(ring(TX))?;
            while self.engine.has_room()
                && !active.share.was_cut_short()
                && self.chain.next(TX, queue, memory)?
            {
                let bytes = take_packet(&mut self.engine, &self.chain, memory)?;
                self.counters.tx_packets = self.counters.tx_packets.wrapping_add(1);
                self.counters.tx_bytes = self.counters.tx_bytes.wrapping_add(bytes.into());
                self.chain.complete(queue, memory, 0)?;
                used = true;
                active.share.is_over();
            }
            let more = queue.enable_notification(memory).map_err(ring(TX))?;
            // Without room the rest is taken by `pump`, when there is.
            if !more || !self.engine.has_room() || active.share.was_cut_short() {
                break;
            }
        }
        if !used {
            return Ok(false);
        }
        wants_interrupt(TX, queue, memory)
    }

    /// Fills the guest's buffers with packets.
    fn give_packets(&mut self, active: &mut Active<'_>) -> Result<bool, DeviceError> {
        let memory = active.memory;
        let Some(queue) = active
            .queues
            .get_mut(usize::from(RX))
            .filter(|queue| queue.ready())
        else {
            return Ok(false);
        };
        let mut used = false;
        while self.engine.has_packet() && !active.share.was_cut_short() {
            if !self.chain.next(RX, queue, memory)? {
                // Buffers that come later are announced, unless they came just now.
                if queue.enable_notification(memory).map_err(ring(RX))? {
                    continue;
                }
                break;
            }
            let buffer = self.chain.writable(memory).split_at(HEADER_LEN_U32);
            let Some((head, body)) = buffer.filter(|(_, body)| !body.is_empty()) else {
                return Err(self
                    .chain
                    .malformed("a receive buffer has no room for a header and data"));
            };
            let Some((header, payload)) = self.engine.next_packet(body.len()) else {
                // Whoever stood in line had nothing to say after all; the buffer is not used.
                queue.go_to_previous_position();
                break;
            };
            head.write(&header.encode())?;
            body.write(payload)?;
            let written = HEADER_LEN_U32.saturating_add(header.len);
            self.counters.rx_packets = self.counters.rx_packets.wrapping_add(1);
            self.counters.rx_bytes = self.counters.rx_bytes.wrapping_add(header.len.into());
            self.chain.complete(queue, memory, written)?;
            used = true;
            active.share.is_over();
        }
        if !used {
            return Ok(false);
        }
        wants_interrupt(RX, queue, memory)
    }
}

/// [`HEADER_LEN`] as descriptors count.
const HEADER_LEN_U32: u32 = HEADER_LEN as u32;

/// Hands the packet in `chain` to the engine; returns how many bytes of a stream are in it.
fn take_packet(engine: &mut Engine, chain: &Chain, memory: &GuestMemory) -> Result<u32, DeviceError> {
    let Some((head, body)) = chain.readable(memory).split_at(HEADER_LEN_U32) else {
        return Err(chain.malformed("a packet is shorter than its header"));
    };
    let mut bytes = [0; HEADER_LEN];
    head.read(&mut bytes)?;
    let header = Header::parse(&bytes);
    if header.len > body.len() {
        return Err(chain.malformed("a packet is shorter than its header says"));
    }
    engine.receive(&header, GuestPayload(body))?;
    Ok(header.len)
}

/// A packet's payload in the guest's memory.
struct GuestPayload<'a>(Buffers<'a>);

impl Payload for GuestPayload<'_> {
    type Error = DeviceError;

    fn take(&mut self, buffer: &mut [u8]) -> Result<(), DeviceError> {
        self.0.read(buffer)?;
        let taken = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
        if let Some((_, rest)) = self.0.split_at(taken) {
            self.0 = rest;
        }
        Ok(())
    }
}

fn ring(queue: u16) -> impl Fn(virtio_queue::Error) -> DeviceError {
    move |source| DeviceError::Queue { queue, source }
}

fn wants_interrupt(index: u16, queue: &mut Queue, memory: &GuestMemory) -> Result<bool, DeviceError> {
    queue.needs_notification(memory).map_err(ring(index))
}

impl VirtioDevice for Vsock {
    fn device_type(&self) -> u32 {
        TYPE_VSOCK
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        FEATURE_STREAM
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let Ok(offset) = usize::try_from(offset) else {
            return;
        };
        for (to, from) in data
            .iter_mut()
            .zip(self.cid.to_le_bytes().into_iter().skip(offset))
        {
            *to = from;
        }
    }

    fn activate(&mut self, _active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        self.engine.start();
        Ok(Outcome::default())
    }

    fn handle_queue(&mut self, index: u16, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        match index {
            RX => self.pump(active, false),
            TX => self.pump(active, true),
            _ => {
                let interrupt = self.send_event(active)?;
                Ok(Outcome {
                    interrupt,
                    config_changed: false,
                })
            }
        }
    }

    fn host_fds(&self) -> Vec<RawFd> {
        vec![self.engine.fd()]
    }

    fn handle_host(&mut self, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        self.engine.poll().map_err(|source| DeviceError::Host {
            operation: "vsock: poll the host's sockets",
            source,
        })?;
        self.pump(active, false)
    }

    fn reset(&mut self) {
        self.engine.reset();
        self.reset_due = false;
    }
}

#[cfg(test)]
mod tests;
