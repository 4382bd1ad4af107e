//! Packets from the guest.

use std::io;
use std::os::fd::AsFd;

use virtio_queue::{QueueOwnedT, QueueT};

use super::header;
use super::neighbour::HEAD;
use super::packet::HEADER_LEN;
use super::port::{Port, TX};
use crate::GuestMemory;
use crate::limiter::Gate;
use crate::sys::Pieces;
use crate::virtio::chain::{Buffers, Chain};
use crate::virtio::device::{Active, DeviceError};
use crate::virtio::used::wants_interrupt;

/// What sending waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// The guest's word.
    #[default]
    Guest,
    /// The alarm.
    Alarm,
    /// The next call: the share of the last one was over.
    Turn,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Sender {
    state: State,
    pub(super) gate: Gate,
    chain: Chain,
    /// For a packet in more pieces than one system call takes; empty until there is one.
    detour: Vec<u8>,
}

impl Sender {
    pub(super) fn new(gate: Gate) -> Self {
        Self {
            state: State::default(),
            gate,
            chain: Chain::new(),
            detour: Vec::new(),
        }
    }

    pub(super) fn reset(&mut self) {
        self.state = State::default();
    }

    /// Whether there is something to send that the guest will not tell of again.
    pub(super) fn is_behind(&self) -> bool {
        self.state != State::Guest
    }

    /// Moves packets from the guest. Says whether it wants an interrupt.
    pub(super) fn run(&mut self, port: &mut Port, active: &mut Active<'_>) -> Result<bool, DeviceError> {
        let memory = active.memory;
        let Some(queue) = active
            .queues
            .get_mut(usize::from(TX))
            .filter(|queue| queue.ready())
        else {
            return Ok(false);
        };
        let ring = |source| DeviceError::Queue { queue: TX, source };
        let first = queue.next_used();
        queue.disable_notification(memory).map_err(ring)?;
        self.state = loop {
            if !self.chain.next(TX, queue, memory)? {
                if !queue.enable_notification(memory).map_err(ring)? {
                    break State::Guest;
                }
                // Some came just now.
                queue.disable_notification(memory).map_err(ring)?;
                continue;
            }
            if !self.gate.may_pass(&mut port.alarm) {
                // The guest need not tell of more until the alarm has rung.
                queue.go_to_previous_position();
                port.counters.tx_limited = port.counters.tx_limited.wrapping_add(1);
                break State::Alarm;
            }
            let bytes = send(&self.chain, &mut self.detour, port, memory)?;
            self.gate.charge(bytes);
            self.chain.complete(queue, memory, 0)?;
            if active.share.is_over() {
                break State::Turn;
            }
        };
        wants_interrupt(TX, queue, memory, first)
    }
}

/// Sends the packet in `chain`, or drops it; returns the length of its frame.
fn send(
    chain: &Chain,
    detour: &mut Vec<u8>,
    port: &mut Port,
    memory: &GuestMemory,
) -> Result<u64, DeviceError> {
    let Some((header, frame)) = checked(chain, port, memory)? else {
        port.counters.tx_malformed = port.counters.tx_malformed.wrapping_add(1);
        return Ok(0);
    };
    let bytes = u64::from(frame.len());
    if let Some(neighbour) = &mut port.neighbour
        && neighbour.is_for_it(start_of(&frame, &mut [0; HEAD])?)
    {
        detour.clear();
        detour.resize(frame.len() as usize, 0);
        frame.read(detour)?;
        neighbour.take(detour);
        port.counters.tx_packets = port.counters.tx_packets.wrapping_add(1);
        port.counters.tx_bytes = port.counters.tx_bytes.wrapping_add(bytes);
        return Ok(bytes);
    }
    let mut pieces = Pieces::new();
    let mut fits = true;
    for slice in frame.slices() {
        fits = fits && pieces.push(&slice?);
    }
    let sent = if fits {
        pieces.send(port.link.as_fd(), &header)
    } else {
        detour.clear();
        detour.extend(header);
        detour.resize(HEADER_LEN.saturating_add(frame.len() as usize), 0);
        frame.read(detour.get_mut(HEADER_LEN..).unwrap_or_default())?;
        nix::unistd::write(&port.link, detour).map_err(io::Error::from)
    };
    match sent {
        Ok(_) => {
            port.counters.tx_packets = port.counters.tx_packets.wrapping_add(1);
            port.counters.tx_bytes = port.counters.tx_bytes.wrapping_add(bytes);
        }
        Err(error) => port.complain("send", &error),
    }
    Ok(bytes)
}

/// The frame's first bytes, as many as there are and fit into `head`.
fn start_of<'a>(frame: &Buffers<'_>, head: &'a mut [u8; HEAD]) -> Result<&'a [u8], DeviceError> {
    let length = HEAD.min(frame.len() as usize);
    let head = head.get_mut(..length).unwrap_or_default();
    frame.read(head)?;
    Ok(head)
}

/// The packet's header, as the host may see it, and its frame.
fn checked<'a>(
    chain: &'a Chain,
    port: &Port,
    memory: &'a GuestMemory,
) -> Result<Option<([u8; HEADER_LEN], Buffers<'a>)>, DeviceError> {
    let Some((head, frame)) = chain.readable(memory).split_at(HEADER_LEN as u32) else {
        return Ok(None);
    };
    let mut header = [0; HEADER_LEN];
    head.read(&mut header)?;
    Ok(header::outgoing(&header, frame.len(), port.agreed).map(|header| (header, frame)))
}
