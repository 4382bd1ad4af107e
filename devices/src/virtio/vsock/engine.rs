//! Packets on one side, sockets on the other: carries out what the state machines decide. Knows no queues.

use std::io;
use std::os::fd::RawFd;

use super::connection::{Due, Farewell, Reaction};
use super::host::{Host, Ready};
use super::muxer::{Key, Muxer, Turn, key_of};
use super::packet::{HOST_CID, Header, Op, TYPE_STREAM};
use super::stream::{FirstLine, Role};
use super::{MAX_STREAMS, Payload};

/// The most payload that is put into one packet for the guest, and moved at a time from it.
const CHUNK: usize = 64 * 1024;

/// The device without its queues.
#[derive(Debug)]
pub(super) struct Engine {
    cid: u64,
    muxer: Muxer,
    host: Host,
    /// Payload on its way, either way. Allocated while the driver is there.
    scratch: Vec<u8>,
    ready: Vec<Ready>,
}

impl Engine {
    /// An engine for the guest `cid`.
    pub(super) fn new(cid: u64, host: Host) -> Self {
        Self {
            cid,
            muxer: Muxer::new(cid),
            host,
            scratch: Vec::new(),
            ready: Vec::new(),
        }
    }

    /// See [`Host::fd`].
    pub(super) fn fd(&self) -> RawFd {
        self.host.fd()
    }

    /// Gets ready for packets.
    pub(super) fn start(&mut self) {
        self.scratch = vec![0; CHUNK];
    }

    /// Drops all streams and forgets all packets; the listener stays.
    pub(super) fn reset(&mut self) {
        self.muxer.clear();
        self.host.close_all();
        self.scratch = Vec::new();
        self.ready = Vec::new();
    }

    /// Drops all streams, of which the guest is about to hear in another way.
    pub(super) fn drop_streams(&mut self) {
        self.muxer.clear();
        self.host.close_all();
    }

    /// Whether a packet of the guest's may be handed in.
    pub(super) fn has_room(&self) -> bool {
        self.muxer.has_room()
    }

    /// Whether there may be a packet for the guest.
    pub(super) fn has_packet(&self) -> bool {
        self.muxer.has_turn()
    }

    /// Takes a packet of the guest's. `payload` holds at least `header.len` bytes.
    pub(super) fn receive<P: Payload>(&mut self, header: &Header, payload: P) -> Result<(), P::Error> {
        if header.src_cid != self.cid {
            // Not even the guest's own: nobody waits for an answer.
            log::debug!("vsock: a packet in the name of CID {} is dropped", header.src_cid);
            return Ok(());
        }
        let op = match Op::parse(header.op) {
            Some(op) if header.kind == TYPE_STREAM && header.dst_cid == HOST_CID => op,
            Some(Op::Reset) => return Ok(()),
            _ => {
                self.muxer.push_reset(header.reset());
                return Ok(());
            }
        };
        let key = key_of(header);
        let Some(entry) = self.muxer.get_mut(key) else {
            match op {
                Op::Request => self.connect(header),
                Op::Reset => {}
                _ => self.muxer.push_reset(header.reset()),
            }
            return Ok(());
        };
        let socket = entry.socket;
        match entry.connection.receive(op, header) {
            Reaction::Nothing => {}
            Reaction::Accepted => self.greet(key, socket),
            Reaction::Deliver => self.deliver(key, socket, header.len, payload)?,
            Reaction::EndToHost => self.end_to_host_if_drained(key, socket),
            Reaction::EndToGuest => {
                if let Some(stream) = self.host.get_mut(socket) {
                    stream.end_reading();
                }
            }
            Reaction::Finished => {
                self.muxer.push_reset_of(key);
                self.let_go(key);
            }
            Reaction::Gone => self.let_go(key),
            Reaction::Violation(reason) => {
                log::debug!("vsock: the guest's port {} is reset: {reason}", key.guest);
                self.muxer.push_reset_of(key);
                self.drop_stream(key);
            }
        }
        self.muxer.stand_in_line(key);
        if self.host.can_accept_again() {
            // An error shows up again with the next event.
            let _ = self.poll();
        }
        Ok(())
    }

    /// The guest opens a stream to the host.
    fn connect(&mut self, request: &Header) {
        if self.host.streams() >= MAX_STREAMS {
            log::debug!("vsock: {MAX_STREAMS} streams are open, a request of the guest's is refused");
            return self.muxer.push_reset(request.reset());
        }
        match self.host.connect(request.dst_port) {
            Ok(socket) => {
                let key = self.muxer.open_from_guest(request, socket);
                self.host.promote(socket, Role::Bound(key));
            }
            Err(error) => {
                log::debug!(
                    "vsock: the guest's request for port {} is refused: {error}",
                    request.dst_port
                );
                self.muxer.push_reset(request.reset());
            }
        }
    }

    /// The guest accepted the client's stream.
    fn greet(&mut self, key: Key, socket: u64) {
        if let Some(stream) = self.host.get_mut(socket)
            && stream.greet(key.host).is_err()
        {
            self.refused(key, socket);
        }
    }

    fn deliver<P: Payload>(
        &mut self,
        key: Key,
        socket: u64,
        len: u32,
        mut payload: P,
    ) -> Result<(), P::Error> {
        let mut left = len;
        while left > 0 {
            let size = self.scratch.len().min(left as usize);
            let Some(chunk) = self.scratch.get_mut(..size).filter(|chunk| !chunk.is_empty()) else {
                break;
            };
            payload.take(chunk)?;
            left = left.saturating_sub(count(size));
            let Some(stream) = self.host.get_mut(socket) else {
                break;
            };
            match stream.send(chunk) {
                Ok(sent) => self.forwarded(key, sent),
                Err(_) => {
                    self.refused(key, socket);
                    break;
                }
            }
        }
        Ok(())
    }

    fn forwarded(&mut self, key: Key, bytes: usize) {
        if let Some(entry) = self.muxer.get_mut(key) {
            entry.connection.forwarded(count(bytes));
        }
    }

    /// The host's end does not read any more.
    fn refused(&mut self, key: Key, socket: u64) {
        if let Some(entry) = self.muxer.get_mut(key) {
            entry.connection.host_refused();
        }
        if let Some(stream) = self.host.get_mut(socket) {
            stream.discard();
        }
        self.muxer.stand_in_line(key);
    }

    fn end_to_host_if_drained(&mut self, key: Key, socket: u64) {
        if let Some(stream) = self.host.get_mut(socket)
            && stream.is_drained()
            && let Some(entry) = self.muxer.get_mut(key)
            && entry.connection.drained()
        {
            stream.end_writing();
        }
    }

    /// The guest is done with a stream: what it sent still goes out.
    fn let_go(&mut self, key: Key) {
        let Some(socket) = self.muxer.remove(key) else {
            return;
        };
        match self.host.get_mut(socket) {
            Some(stream) if !stream.is_drained() => {
                stream.end_reading();
                self.host.promote(socket, Role::Lingering);
            }
            _ => self.host.close(socket),
        }
    }

    /// Ends a stream without ceremony.
    fn drop_stream(&mut self, key: Key) {
        if let Some(socket) = self.muxer.remove(key) {
            self.host.close(socket);
        }
    }

    /// Takes all that became ready on the host's side.
    pub(super) fn poll(&mut self) -> io::Result<()> {
        let mut ready = std::mem::take(&mut self.ready);
        let result = loop {
            let more = self.host.poll(&mut ready);
            for event in ready.iter() {
                self.on_ready(*event);
            }
            match more {
                Ok(more) if more || self.host.can_accept_again() => {}
                Ok(_) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.ready = ready;
        result
    }

    fn on_ready(&mut self, event: Ready) {
        let Some(stream) = self.host.get_mut(event.socket) else {
            return;
        };
        match stream.role {
            Role::Pending => self.on_pending(event),
            Role::Bound(key) => self.on_bound(key, event),
            Role::Lingering => {
                // Nobody else would ever hear of the error.
                if event.hung_up || stream.flush().is_err() || stream.is_drained() {
                    self.host.close(event.socket);
                }
            }
        }
    }

    fn on_pending(&mut self, event: Ready) {
        let socket = event.socket;
        let Some(stream) = self.host.get_mut(socket).filter(|stream| stream.readable) else {
            return;
        };
        if event.hung_up {
            // Nobody is left to hear the answer.
            return self.host.close(socket);
        }
        match stream.first_line() {
            FirstLine::Incomplete => {}
            FirstLine::Connect(_) if self.host.streams() >= MAX_STREAMS => {
                log::debug!("vsock: {MAX_STREAMS} streams are open, a client is refused");
                self.host.close(socket);
            }
            FirstLine::Connect(port) => {
                let key = self.muxer.open_from_host(port, socket);
                self.host.promote(socket, Role::Bound(key));
            }
            FirstLine::Bad => {
                log::debug!("vsock: a client is dropped, its first line is no CONNECT with a port");
                self.host.close(socket);
            }
        }
    }

    fn on_bound(&mut self, key: Key, event: Ready) {
        if event.writable
            && let Some(stream) = self.host.get_mut(event.socket)
            && !stream.is_drained()
        {
            match stream.flush() {
                Ok(sent) => {
                    self.forwarded(key, sent);
                    self.end_to_host_if_drained(key, event.socket);
                }
                Err(_) => self.refused(key, event.socket),
            }
        }
        if event.hung_up {
            self.on_hang_up(key, event.socket);
        }
        self.muxer.stand_in_line(key);
    }

    fn on_hang_up(&mut self, key: Key, socket: u64) {
        let Some(entry) = self.muxer.get_mut(key) else {
            return;
        };
        match entry.connection.host_gone() {
            Farewell::Forget => self.drop_stream(key),
            Farewell::Reset => {
                self.muxer.push_reset_of(key);
                self.drop_stream(key);
            }
            Farewell::Shutdown => {
                if let Some(stream) = self.host.get_mut(socket) {
                    stream.discard();
                }
            }
        }
    }

    /// The next packet for the guest, whose payload is at most `room` bytes long.
    pub(super) fn next_packet(&mut self, room: u32) -> Option<(Header, &[u8])> {
        loop {
            let key = match self.muxer.next_turn()? {
                Turn::Packet(header) => return Some((header, &[])),
                Turn::Stream(key) => key,
            };
            if let Some((header, len)) = self.packet_of(key, room) {
                // It goes to the end of the line, so that one busy stream does not hold up the others.
                self.muxer.stand_in_line(key);
                return Some((header, self.scratch.get(..len).unwrap_or_default()));
            }
        }
    }

    fn packet_of(&mut self, key: Key, room: u32) -> Option<(Header, usize)> {
        let socket = self.muxer.get_mut(key)?.socket;
        loop {
            let stream = self.host.get_mut(socket)?;
            match self.muxer.due(key, stream.readable && room > 0)? {
                Due::Control(op, flags) => return Some((self.muxer.tell(key, op, flags, 0)?, 0)),
                Due::Data(credit) => {
                    let max = (room.min(credit) as usize).min(self.scratch.len());
                    // Without a byte read there is something else to say, or nothing.
                    match stream.receive(self.scratch.get_mut(..max)?) {
                        None => {}
                        Some(0) => {
                            stream.readable = false;
                            self.muxer.get_mut(key)?.connection.host_ended();
                        }
                        Some(len) => return Some((self.muxer.tell(key, Op::Data, 0, count(len))?, len)),
                    }
                }
            }
        }
    }

    /// Streams that the guest and the host share now.
    #[cfg(test)]
    pub(super) fn streams(&self) -> usize {
        self.muxer.len()
    }

    /// Descriptors in use for streams, those included that only the host still sees.
    #[cfg(test)]
    pub(super) fn sockets(&self) -> usize {
        self.host.streams()
    }
}

/// Lengths are bounded by the credit and by [`CHUNK`], far below 4 GiB.
fn count(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
