//! All streams by their ports, and whose turn it is to tell the guest something: plain data, no descriptors.

use std::collections::{HashMap, VecDeque};

use super::connection::{Connection, Due};
use super::credit::BUF_ALLOC;
use super::packet::{HOST_CID, Header, Op, TYPE_STREAM};

/// Resets that wait for the guest's buffers and belong to no stream. With this many waiting, no more packets are
/// taken from the guest until it makes room (virtio 1.2, 5.10.6.3.2 allows it).
const MAX_RESETS: usize = 256;

/// Ports of the host's end of streams that the host opened begin here, out of the way of services' ports.
const FIRST_HOST_PORT: u32 = 1 << 30;

/// A stream's name. There is one guest and one host, so the ports are enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The host's port.
    pub(super) host: u32,
    /// The guest's port.
    pub(super) guest: u32,
}

/// A stream and the name of its socket.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) connection: Connection,
    /// The shell's name for the socket.
    pub(super) socket: u64,
    /// The key waits in the line of those who have something to tell.
    in_line: bool,
}

/// A turn to tell the guest something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// A packet that belongs to no stream, complete.
    Packet(Header),
    /// This stream's.
    Stream(Key),
}

/// The table of streams.
#[derive(Debug)]
pub(super) struct Muxer {
    cid: u64,
    streams: HashMap<Key, Entry>,
    /// Streams that may have something to tell, each once; whoever had its turn goes to the end.
    line: VecDeque<Key>,
    resets: VecDeque<Header>,
    next_port: u32,
}

impl Muxer {
    /// An empty table for the guest `cid`.
    pub(super) fn new(cid: u64) -> Self {
        Self {
            cid,
            streams: HashMap::new(),
            line: VecDeque::new(),
            resets: VecDeque::new(),
            next_port: FIRST_HOST_PORT,
        }
    }

    /// The number of streams.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.streams.clear();
        self.line.clear();
        self.resets.clear();
    }

    /// The stream of that name.
    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Entry> {
        self.streams.get_mut(&key)
    }

    /// Adds a stream that a host's client opens to the guest's `port`.
    pub(super) fn open_from_host(&mut self, port: u32, socket: u64) -> Key {
        let mut key = Key {
            host: self.next_port,
            guest: port,
        };
        // Ends because there are far fewer streams than ports.
        while self.streams.contains_key(&key) {
            key.host = key.host.checked_add(1).unwrap_or(FIRST_HOST_PORT);
        }
        self.next_port = key.host.checked_add(1).unwrap_or(FIRST_HOST_PORT);
        self.insert(key, Connection::from_host(), socket);
        key
    }

    /// Adds a stream that the guest opened with `request`.
    pub(super) fn open_from_guest(&mut self, request: &Header, socket: u64) -> Key {
        let key = key_of(request);
        self.insert(key, Connection::from_guest(request), socket);
        key
    }

    fn insert(&mut self, key: Key, connection: Connection, socket: u64) {
        self.streams.insert(
            key,
            Entry {
                connection,
                socket,
                in_line: false,
            },
        );
        self.stand_in_line(key);
    }

    /// Removes a stream; its socket's name remains to be dealt with.
    pub(super) fn remove(&mut self, key: Key) -> Option<u64> {
        let entry = self.streams.remove(&key)?;
        if entry.in_line {
            // Or a guest that opens and resets one stream over and over would make the line grow.
            self.line.retain(|other| *other != key);
        }
        Some(entry.socket)
    }

    /// The stream may have something to tell the guest.
    pub(super) fn stand_in_line(&mut self, key: Key) {
        if let Some(entry) = self.streams.get_mut(&key)
            && !entry.in_line
        {
            entry.in_line = true;
            self.line.push_back(key);
        }
    }

    /// Has the guest told that there is no such stream (any more).
    pub(super) fn push_reset(&mut self, reset: Header) {
        self.resets.push_back(reset);
    }

    /// Has the guest told that this stream is over.
    pub(super) fn push_reset_of(&mut self, key: Key) {
        let mut header = self.header(key, Op::Reset);
        header.buf_alloc = 0;
        self.resets.push_back(header);
    }

    /// Whether a packet of the guest's may be taken: there is room for the reset that it may need.
    pub(super) fn has_room(&self) -> bool {
        self.resets.len() < MAX_RESETS
    }

    /// Whether somebody may have something to tell.
    pub(super) fn has_turn(&self) -> bool {
        !self.resets.is_empty() || !self.line.is_empty()
    }

    /// The next turn. A stream leaves the line with it and is put back by [`Muxer::stand_in_line`].
    pub(super) fn next_turn(&mut self) -> Option<Turn> {
        if let Some(reset) = self.resets.pop_front() {
            return Some(Turn::Packet(reset));
        }
        while let Some(key) = self.line.pop_front() {
            if let Some(entry) = self.streams.get_mut(&key) {
                entry.in_line = false;
                return Some(Turn::Stream(key));
            }
        }
        None
    }

    /// What stream `key` must tell the guest.
    pub(super) fn due(&self, key: Key, readable: bool) -> Option<Due> {
        self.streams.get(&key)?.connection.due(readable)
    }

    /// The header of a packet that leaves for the guest now.
    pub(super) fn tell(&mut self, key: Key, op: Op, flags: u32, payload: u32) -> Option<Header> {
        let fwd_cnt = self.streams.get_mut(&key)?.connection.telling(op, payload);
        Some(Header {
            flags,
            len: payload,
            fwd_cnt,
            ..self.header(key, op)
        })
    }

    fn header(&self, key: Key, op: Op) -> Header {
        Header {
            src_cid: HOST_CID,
            dst_cid: self.cid,
            src_port: key.host,
            dst_port: key.guest,
            kind: TYPE_STREAM,
            op: op.number(),
            buf_alloc: BUF_ALLOC,
            ..Header::default()
        }
    }
}

/// The stream that a packet of the guest's is about.
pub(super) fn key_of(header: &Header) -> Key {
    Key {
        host: header.dst_port,
        guest: header.src_port,
    }
}

#[cfg(test)]
mod tests;
