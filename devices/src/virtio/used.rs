//! Answers that the driver must see all at once.
//!
//! `Queue::add_used` shows each answer at once. A packet that lies in several buffers must not be seen half
//! (virtio 1.2, 5.1.6.4): its answers are staged here, and shown together.

use std::sync::atomic::{Ordering, fence};

use virtio_queue::{Error, Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::device::DeviceError;
use crate::GuestMemory;

/// Flags and index come before the used ring's entries; each entry is a head and a length of 32 bits (2.7.8).
const HEADER_LEN: u64 = 4;
const ENTRY_LEN: u64 = 8;
/// The driver's wish for no interrupts, where EVENT_IDX was not agreed on (2.7.7).
const NO_INTERRUPT: u16 = 1;

/// Answers on one queue that are not shown yet.
pub(super) struct Staged<'a> {
    index: u16,
    queue: &'a mut Queue,
    memory: &'a GuestMemory,
    count: u16,
}

impl<'a> Staged<'a> {
    /// No answers, for queue `index`.
    pub(super) fn new(index: u16, queue: &'a mut Queue, memory: &'a GuestMemory) -> Self {
        Self {
            index,
            queue,
            memory,
            count: 0,
        }
    }

    /// Adds the answer for the chain that begins at `head`.
    pub(super) fn add(&mut self, head: u16, written: u32) -> Result<(), DeviceError> {
        let size = self.queue.size();
        let slot = self
            .queue
            .next_used()
            .wrapping_add(self.count)
            .checked_rem(size)
            .filter(|_| head < size)
            .ok_or_else(|| self.ring(Error::InvalidDescriptorIndex))?;
        let offset = u64::from(slot)
            .saturating_mul(ENTRY_LEN)
            .saturating_add(HEADER_LEN);
        let entry = u64::from(head) | u64::from(written) << 32;
        self.memory
            .write_slice(&entry.to_le_bytes(), self.at(self.queue.used_ring(), offset)?)
            .map_err(|error| self.ring(Error::GuestMemory(error)))?;
        self.count = self.count.wrapping_add(1);
        Ok(())
    }

    /// How many answers there are.
    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// Shows the answers to the driver.
    pub(super) fn show(self) -> Result<(), DeviceError> {
        let next = self.queue.next_used().wrapping_add(self.count);
        self.queue.set_next_used(next);
        self.memory
            .store(
                next.to_le(),
                self.at(self.queue.used_ring(), 2)?,
                Ordering::Release,
            )
            .map_err(|error| self.ring(Error::GuestMemory(error)))
    }

    fn at(&self, base: u64, offset: u64) -> Result<GuestAddress, DeviceError> {
        base.checked_add(offset)
            .map(GuestAddress)
            .ok_or_else(|| self.ring(Error::AddressOverflow))
    }

    fn ring(&self, source: Error) -> DeviceError {
        DeviceError::Queue {
            queue: self.index,
            source,
        }
    }
}

/// Whether the driver wants to hear of the answers since `old` (the queue's `next_used` then). For queues on which all
/// answers are [`Staged`]: `Queue::needs_notification` does not know of those.
pub(super) fn wants_interrupt(
    index: u16,
    queue: &Queue,
    memory: &GuestMemory,
    old: u16,
) -> Result<bool, DeviceError> {
    let new = queue.next_used();
    if new == old {
        return Ok(false);
    }
    // The answers are written before the driver's wish is read, and it does so the other way round.
    fence(Ordering::SeqCst);
    let load = |offset: u64| -> Result<u16, Error> {
        let address = queue
            .avail_ring()
            .checked_add(offset)
            .ok_or(Error::AddressOverflow)?;
        memory
            .load::<u16>(GuestAddress(address), Ordering::Relaxed)
            .map(u16::from_le)
            .map_err(Error::GuestMemory)
    };
    let wanted = if queue.event_idx_enabled() {
        let offset = u64::from(queue.size()).saturating_mul(2).saturating_add(4);
        load(offset).map(|event| new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old))
    } else {
        load(0).map(|flags| flags & NO_INTERRUPT == 0)
    };
    wanted.map_err(|source| DeviceError::Queue { queue: index, source })
}
