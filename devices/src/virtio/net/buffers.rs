//! Buffers for received packets: taken from the queue before the packet is, because it is read straight into them.

use std::collections::VecDeque;

use virtio_queue::{Queue, QueueT};

use super::packet::{HEADER_LEN, NUM_BUFFERS};
use super::port::RX;
use crate::GuestMemory;
use crate::sys::Pieces;
use crate::virtio::chain::Chain;
use crate::virtio::device::DeviceError;
use crate::virtio::used::Staged;

/// Buffers that the driver gave and that are not answered yet, oldest first.
#[derive(Debug, Default)]
pub(super) struct RxBuffers {
    held: VecDeque<Chain>,
    /// Chains that are done with, kept for their memory.
    spare: Vec<Chain>,
    /// Bytes in `held`.
    room: u64,
    /// A packet may use all buffers, not only the first.
    mergeable: bool,
}

impl RxBuffers {
    /// Gives up all buffers; the next ones are used as `mergeable` says.
    pub(super) fn reset(&mut self, mergeable: bool) {
        self.spare.extend(self.held.drain(..));
        self.room = 0;
        self.mergeable = mergeable;
    }

    /// Takes buffers from the queue until one packet has `wanted` bytes, or as many as there are.
    pub(super) fn gather(
        &mut self,
        queue: &mut Queue,
        memory: &GuestMemory,
        wanted: u32,
    ) -> Result<(), DeviceError> {
        while self.room() < u64::from(wanted) && (self.mergeable || self.held.is_empty()) {
            let mut chain = self.spare.pop().unwrap_or_default();
            if !chain.next(RX, queue, memory)? {
                self.spare.push(chain);
                break;
            }
            let room = chain.writable(memory).len();
            if room < HEADER_LEN as u32 {
                return Err(chain.malformed("a receive buffer has no room for a header"));
            }
            self.room = self.room.saturating_add(u64::from(room));
            self.held.push_back(chain);
        }
        Ok(())
    }

    /// The bytes that the next packet may have.
    pub(super) fn room(&self) -> u64 {
        self.room
    }

    /// Whether the driver has no buffer left that it could add.
    pub(super) fn has_all(&self, queue: &Queue) -> bool {
        !self.mergeable || self.held.len() >= usize::from(queue.size())
    }

    /// The memory that a packet of up to `wanted` bytes is read into, and how much there is of it; `None` if it is in
    /// too many pieces for one system call.
    pub(super) fn pieces<'a>(
        &'a self,
        memory: &'a GuestMemory,
        wanted: u32,
    ) -> Result<Option<(Pieces<'a>, u64)>, DeviceError> {
        let mut pieces = Pieces::new();
        let mut room = 0u64;
        for chain in &self.held {
            for slice in chain.writable(memory).slices() {
                let slice = slice?;
                if !pieces.push(&slice) {
                    return Ok(None);
                }
                room = room.saturating_add(slice.len() as u64);
            }
            if room >= u64::from(wanted) {
                break;
            }
        }
        Ok(Some((pieces, room)))
    }

    /// Copies a packet into the buffers.
    pub(super) fn fill(&self, memory: &GuestMemory, packet: &[u8]) -> Result<(), DeviceError> {
        let mut left = packet;
        for chain in &self.held {
            let room = chain.writable(memory);
            let (now, later) = left.split_at_checked(room.len() as usize).unwrap_or((left, &[]));
            room.write(now)?;
            left = later;
            if left.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Hands the buffers that hold a packet of `len` bytes to the driver, and says in its header how many they are.
    /// `plain`: the driver takes no word of checksums (5.1.6.4.1).
    pub(super) fn deliver(
        &mut self,
        queue: &mut Queue,
        memory: &GuestMemory,
        len: u64,
        plain: bool,
    ) -> Result<(), DeviceError> {
        let mut staged = Staged::new(RX, queue, memory);
        let mut left = len;
        for chain in &self.held {
            let room = chain.writable(memory).len();
            let written = u32::try_from(left).unwrap_or(u32::MAX).min(room);
            staged.add(chain.head(), written)?;
            left = left.saturating_sub(u64::from(written));
            if left == 0 {
                break;
            }
        }
        let count = staged.count();
        if let Some(first) = self.held.front() {
            let header = first.writable(memory);
            if plain {
                header.write(&[0])?;
            }
            if let Some((_, number)) = header.split_at(NUM_BUFFERS) {
                number.write(&count.to_le_bytes())?;
            }
        }
        staged.show()?;
        for chain in self.held.drain(..usize::from(count).min(self.held.len())) {
            self.room = self.room.saturating_sub(u64::from(chain.writable(memory).len()));
            self.spare.push(chain);
        }
        Ok(())
    }
}
