//! Packets to the guest.

use std::io;
use std::os::fd::AsFd;

use virtio_queue::QueueT;

use super::buffers::RxBuffers;
use super::packet::{HEADER_LEN, MAX_FRAME};
use super::port::{Port, RX};
use crate::GuestMemory;
use crate::limiter::Gate;
use crate::virtio::device::{Active, DeviceError};
use crate::virtio::used::wants_interrupt;

/// A packet of any length.
const DETOUR_LEN: usize = HEADER_LEN + MAX_FRAME as usize;

/// What receiving waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// A packet: the event loop says when there is one.
    #[default]
    Packets,
    /// Buffers of the guest's: it says when there are some.
    Buffers,
    /// The alarm.
    Alarm,
    /// The next call: the share of the last one was over.
    Turn,
}

/// What became of an attempt to read a packet.
enum Read {
    /// So many bytes are in the guest's buffers.
    Direct(u64),
    /// It is in the detour, and waits for buffers.
    Detour,
    /// It was dropped.
    Dropped,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Receiver {
    state: State,
    pub(super) gate: Gate,
    buffers: RxBuffers,
    /// Bytes that any packet fits into.
    largest: u32,
    /// For a packet that may be larger than the buffers that there are; empty until there is one.
    detour: Vec<u8>,
    /// The length of the packet in `detour`.
    waiting: Option<usize>,
}

impl Receiver {
    pub(super) fn new(gate: Gate) -> Self {
        Self {
            state: State::default(),
            gate,
            buffers: RxBuffers::default(),
            largest: 0,
            detour: Vec::new(),
            waiting: None,
        }
    }

    /// Nothing was received yet, and any packet will fit into `largest` bytes.
    pub(super) fn reset(&mut self, mergeable: bool, largest: u32) {
        self.state = State::default();
        self.buffers.reset(mergeable);
        self.largest = largest;
        self.waiting = None;
    }

    /// Whether word of new buffers, or one more turn, is something to act on.
    pub(super) fn waits_for_buffers(&self) -> bool {
        matches!(self.state, State::Buffers | State::Turn)
    }

    /// Moves packets to the guest. Says whether it wants an interrupt.
    pub(super) fn run(&mut self, port: &mut Port, active: &mut Active<'_>) -> Result<bool, DeviceError> {
        let memory = active.memory;
        let Some(queue) = active
            .queues
            .get_mut(usize::from(RX))
            .filter(|queue| queue.ready())
        else {
            return Ok(false);
        };
        let ring = |source| DeviceError::Queue { queue: RX, source };
        let first = queue.next_used();
        let plain = !port.agreed.guest_checksums();
        let mut begun = false;
        queue.disable_notification(memory).map_err(ring)?;
        self.state = loop {
            // Each round but the first is one after a packet, or after buffers came.
            if std::mem::replace(&mut begun, true) && active.share.is_over() {
                break State::Turn;
            }
            if !self.gate.may_pass(&mut port.alarm) {
                port.counters.rx_limited = port.counters.rx_limited.wrapping_add(1);
                break State::Alarm;
            }
            self.buffers.gather(queue, memory, self.largest)?;
            if self.buffers.room() < self.waiting.map_or(1, |len| len as u64) {
                if self.buffers.room() > 0 && self.buffers.has_all(queue) {
                    // There will never be enough for it.
                    self.waiting = None;
                    port.counters.rx_dropped = port.counters.rx_dropped.wrapping_add(1);
                } else if queue.enable_notification(memory).map_err(ring)? {
                    // Some came just now.
                    queue.disable_notification(memory).map_err(ring)?;
                } else {
                    break State::Buffers;
                }
                continue;
            }
            let len = match self.waiting.take() {
                Some(len) => {
                    let packet = self.detour.get(..len).unwrap_or_default();
                    self.buffers.fill(memory, packet)?;
                    len as u64
                }
                None if self.hear(port) => continue,
                None => match self.read(port, memory)? {
                    Ok(Read::Direct(len)) => len,
                    Ok(Read::Detour) => continue,
                    Ok(Read::Dropped) => {
                        port.counters.rx_dropped = port.counters.rx_dropped.wrapping_add(1);
                        continue;
                    }
                    Err(error) => {
                        if error.kind() != io::ErrorKind::WouldBlock {
                            port.complain("receive", &error);
                        }
                        break State::Packets;
                    }
                },
            };
            self.buffers.deliver(queue, memory, len, plain)?;
            let bytes = len.saturating_sub(HEADER_LEN as u64);
            self.gate.charge(bytes);
            port.counters.rx_packets = port.counters.rx_packets.wrapping_add(1);
            port.counters.rx_bytes = port.counters.rx_bytes.wrapping_add(bytes);
        };
        wants_interrupt(RX, queue, memory, first)
    }

    /// Reads a packet straight into the guest's buffers where any would fit, else into the detour. The inner error is
    /// the host's.
    fn read(&mut self, port: &Port, memory: &GuestMemory) -> Result<io::Result<Read>, DeviceError> {
        let direct = self
            .buffers
            .pieces(memory, self.largest)?
            .filter(|(_, room)| *room >= u64::from(self.largest));
        let Some((mut pieces, room)) = direct else {
            return Ok(self.read_aside(port));
        };
        // What comes in here is too much. A single byte would do.
        let mut beyond = [0; 8];
        Ok(pieces
            .receive(port.link.as_fd(), &mut beyond)
            .and_then(some)
            .map(|len| match len as u64 {
                len if len > room || !is_packet(len) => Read::Dropped,
                len => Read::Direct(len),
            }))
    }

    /// Takes what a neighbour has for the guest into the detour, if he has something.
    fn hear(&mut self, port: &mut Port) -> bool {
        let Some(frame) = port.neighbour.as_mut().and_then(|neighbour| neighbour.give()) else {
            return false;
        };
        self.detour.clear();
        self.detour.resize(HEADER_LEN, 0);
        self.detour.extend(frame);
        self.waiting = Some(self.detour.len());
        true
    }

    fn read_aside(&mut self, port: &Port) -> io::Result<Read> {
        self.detour.resize(DETOUR_LEN, 0);
        let len = nix::unistd::read(&port.link, &mut self.detour)
            .map_err(io::Error::from)
            .and_then(some)?;
        if !is_packet(len as u64) {
            return Ok(Read::Dropped);
        }
        self.waiting = Some(len);
        Ok(Read::Detour)
    }
}

/// There is something behind the header.
fn is_packet(len: u64) -> bool {
    len > HEADER_LEN as u64
}

/// A link that is closed at its other end has no packet, and never will.
fn some(len: usize) -> io::Result<usize> {
    if len == 0 {
        Err(io::ErrorKind::WouldBlock.into())
    } else {
        Ok(len)
    }
}
