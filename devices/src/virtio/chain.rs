//! Descriptor chains, checked whole before a byte is touched.
//!
//! A [`Chain`] is a buffer that a device keeps and refills for each request, so that the hot path allocates
//! nothing. After [`Chain::next`] said that there is a request, its readable and writable parts lie inside of the
//! guest's memory, in the right order, and their lengths do not overflow.

use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{ByteValued, GuestAddress, GuestMemoryBackend};

use super::device::{Active, DeviceError};
use crate::{GuestMemory, GuestSlice};

/// One descriptor's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    address: GuestAddress,
    len: u32,
}

/// The request that a device works on.
#[derive(Debug, Default)]
pub struct Chain {
    queue: u16,
    head: u16,
    /// Readable segments first, none of them empty.
    segments: Vec<Segment>,
    /// The index of the first writable segment.
    split: usize,
    readable: u32,
    writable: u32,
}

impl Chain {
    /// An empty chain, to be filled by [`Chain::next`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next request from queue `index`; `false` if there is none or the driver has stopped the queue.
    ///
    /// # Errors
    /// The ring or the chain breaks virtio 1.2, 2.7: an index that jumps, a loop, a chain longer than the queue, a
    /// descriptor outside of memory, a writable descriptor before a readable one, 4 GiB or more in total.
    pub fn next(&mut self, index: u16, queue: &mut Queue, memory: &GuestMemory) -> Result<bool, DeviceError> {
        if !queue.ready() {
            return Ok(false);
        }
        let max_len = usize::from(queue.max_size());
        let ring = |source| DeviceError::Queue { queue: index, source };
        let Some(descriptors) = queue.iter(memory).map_err(ring)?.next() else {
            return Ok(false);
        };
        self.queue = index;
        self.head = descriptors.head_index();
        self.fill(descriptors, max_len, memory)
            .map_err(|reason| DeviceError::Malformed { queue: index, reason })?;
        Ok(true)
    }

    /// Walks the descriptors. The iterator ends early, without a word, at anything that it finds broken; such an end
    /// shows in that the last descriptor names a next one.
    fn fill(
        &mut self,
        descriptors: impl Iterator<Item = Descriptor>,
        max_len: usize,
        memory: &GuestMemory,
    ) -> Result<(), &'static str> {
        self.segments.clear();
        self.split = 0;
        self.readable = 0;
        self.writable = 0;
        let mut count = 0usize;
        let mut more = true;
        for descriptor in descriptors {
            count = count.saturating_add(1);
            if count > max_len {
                return Err("the chain is longer than the queue");
            }
            more = descriptor.has_next();
            let len = descriptor.len();
            let total = if descriptor.is_write_only() {
                &mut self.writable
            } else if self.writable > 0 {
                return Err("a readable descriptor follows a writable one");
            } else {
                &mut self.readable
            };
            *total = total
                .checked_add(len)
                .ok_or("the chain is 4 GiB long or longer")?;
            if len == 0 {
                continue;
            }
            // A 32-bit length always fits: vm-memory builds for 64-bit hosts only.
            if !GuestMemoryBackend::check_range(memory, descriptor.addr(), len as usize) {
                return Err("a descriptor lies outside of memory");
            }
            self.segments.push(Segment {
                address: descriptor.addr(),
                len,
            });
            if !descriptor.is_write_only() {
                self.split = self.segments.len();
            }
        }
        if more {
            return Err("the chain is empty, broken or a loop");
        }
        if self.readable.checked_add(self.writable).is_none() {
            return Err("the chain is 4 GiB long or longer");
        }
        Ok(())
    }

    /// The index of the chain's first descriptor, by which the driver knows it.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// What the driver wrote for the device.
    pub fn readable<'a>(&'a self, memory: &'a GuestMemory) -> Buffers<'a> {
        Buffers {
            memory,
            queue: self.queue,
            segments: self.segments.get(..self.split).unwrap_or_default(),
            skip: 0,
            len: self.readable,
        }
    }

    /// The room that the driver left for the answer.
    pub fn writable<'a>(&'a self, memory: &'a GuestMemory) -> Buffers<'a> {
        Buffers {
            memory,
            queue: self.queue,
            segments: self.segments.get(self.split..).unwrap_or_default(),
            skip: 0,
            len: self.writable,
        }
    }

    /// Hands the chain back to the driver, with the number of bytes that were written into its writable part.
    pub fn complete(&self, queue: &mut Queue, memory: &GuestMemory, written: u32) -> Result<(), DeviceError> {
        complete(self.queue, queue, memory, self.head, written)
    }

    /// An error that blames this chain.
    pub fn malformed(&self, reason: &'static str) -> DeviceError {
        DeviceError::Malformed {
            queue: self.queue,
            reason,
        }
    }
}

/// A run of bytes in a chain: a part of its readable or of its writable half.
///
/// All of it was found inside of memory, so that an error from the methods means that the memory itself changed.
#[derive(Debug, Clone, Copy)]
pub struct Buffers<'a> {
    memory: &'a GuestMemory,
    queue: u16,
    /// Holds at least `skip + len` bytes.
    segments: &'a [Segment],
    /// Bytes to leave out, less than the first segment's length (if there is one).
    skip: u32,
    len: u32,
}

impl<'a> Buffers<'a> {
    /// The number of bytes.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first `mid` bytes and the rest; `None` if there are fewer.
    pub fn split_at(self, mid: u32) -> Option<(Self, Self)> {
        let rest_len = self.len.checked_sub(mid)?;
        let mut segments = self.segments;
        let mut skip = mid.checked_add(self.skip)?;
        while let Some((first, rest)) = segments.split_first() {
            match skip.checked_sub(first.len) {
                Some(left) => {
                    skip = left;
                    segments = rest;
                }
                None => break,
            }
        }
        let rest = Self {
            segments,
            skip,
            len: rest_len,
            ..self
        };
        Some((Self { len: mid, ..self }, rest))
    }

    /// Where in the guest's memory it lies: addresses and lengths, in order, none of them empty.
    pub fn pieces(&self) -> impl Iterator<Item = (GuestAddress, usize)> + use<'a> {
        let mut skip = self.skip;
        let mut left = self.len;
        self.segments.iter().map_while(move |segment| {
            let len = segment.len.saturating_sub(skip).min(left);
            let start = segment.address.0.saturating_add(u64::from(skip));
            skip = 0;
            left = left.saturating_sub(len);
            (len > 0).then_some((GuestAddress(start), len as usize))
        })
    }

    /// The pieces of host memory behind it, in order.
    pub fn slices(&self) -> impl Iterator<Item = Result<GuestSlice<'a>, DeviceError>> + use<'a> {
        let memory = self.memory;
        let queue = self.queue;
        self.pieces()
            .flat_map(move |(start, len)| GuestMemoryBackend::get_slices(memory, start, len))
            .map(move |slice| slice.map_err(|_| outside(queue)))
    }

    /// Fills `data` from the start of the bytes.
    ///
    /// # Errors
    /// There are fewer bytes.
    pub fn read(&self, data: &mut [u8]) -> Result<(), DeviceError> {
        let mut left = data;
        for slice in self.slices() {
            if left.is_empty() {
                break;
            }
            let copied = slice?.copy_to(left);
            left = left.get_mut(copied..).unwrap_or_default();
        }
        if left.is_empty() {
            Ok(())
        } else {
            Err(self.short())
        }
    }

    /// Puts `data` at the start of the bytes.
    ///
    /// # Errors
    /// There are fewer bytes; then nothing is written.
    pub fn write(&self, data: &[u8]) -> Result<(), DeviceError> {
        if (self.len as usize) < data.len() {
            return Err(self.short());
        }
        let mut left = data;
        for slice in self.slices() {
            if left.is_empty() {
                break;
            }
            let slice = slice?;
            let (now, later) = left.split_at_checked(slice.len()).unwrap_or((left, &[]));
            slice.copy_from(now);
            left = later;
        }
        Ok(())
    }

    /// Reads a structure from the start of the bytes.
    pub fn read_obj<T: ByteValued>(&self) -> Result<T, DeviceError> {
        let mut value = T::zeroed();
        self.read(value.as_mut_slice())?;
        Ok(value)
    }

    /// Writes a structure at the start of the bytes.
    pub fn write_obj<T: ByteValued>(&self, value: T) -> Result<(), DeviceError> {
        self.write(value.as_slice())
    }

    fn short(&self) -> DeviceError {
        DeviceError::Malformed {
            queue: self.queue,
            reason: "the chain is shorter than the request",
        }
    }
}

fn outside(queue: u16) -> DeviceError {
    DeviceError::Malformed {
        queue,
        reason: "a buffer left the guest's memory",
    }
}

/// Hands the chain that begins at `head` back to the driver of queue `index`, with the number of bytes that were written
/// into its writable part.
pub fn complete(
    index: u16,
    queue: &mut Queue,
    memory: &GuestMemory,
    head: u16,
    written: u32,
) -> Result<(), DeviceError> {
    queue
        .add_used(memory, head, written)
        .map_err(|source| DeviceError::Queue { queue: index, source })
}

/// Serves the waiting requests of queue `index`, all of them or as many as the call's share allows: `answer` gets each
/// chain and returns how many bytes it wrote. Says whether the driver wants an interrupt.
///
/// Notifications are switched off meanwhile, and the queue is looked at once more after they are on again, so
/// that no request is left lying.
pub fn serve(
    index: u16,
    active: &mut Active<'_>,
    chain: &mut Chain,
    mut answer: impl FnMut(&Chain, &GuestMemory) -> Result<u32, DeviceError>,
) -> Result<bool, DeviceError> {
    serve_while(index, active, chain, |chain, memory| {
        answer(chain, memory).map(Turn::Answered)
    })
}

/// What a device does with a request whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It is answered, with so many bytes written.
    Answered(u32),
    /// It is begun, and answered by [`complete`] when it is done.
    Begun,
    /// It waits.
    Waits,
}

/// As [`serve`], until a request has to wait: that one is put back, and notifications stay off. The device calls
/// again of its own accord.
pub fn serve_while(
    index: u16,
    active: &mut Active<'_>,
    chain: &mut Chain,
    mut answer: impl FnMut(&Chain, &GuestMemory) -> Result<Turn, DeviceError>,
) -> Result<bool, DeviceError> {
    let memory = active.memory;
    let Some(queue) = active.queues.get_mut(usize::from(index)) else {
        return Ok(false);
    };
    if !queue.ready() {
        return Ok(false);
    }
    let ring = |source| DeviceError::Queue { queue: index, source };
    let mut served = false;
    'serve: loop {
        queue.disable_notification(memory).map_err(ring)?;
        while !active.share.was_cut_short() && chain.next(index, queue, memory)? {
            match answer(chain, memory)? {
                Turn::Answered(written) => {
                    chain.complete(queue, memory, written)?;
                    served = true;
                }
                Turn::Begun => {}
                Turn::Waits => {
                    queue.go_to_previous_position();
                    break 'serve;
                }
            }
            active.share.is_over();
        }
        // Switched on also where something is left: all that the next call needs to know is in the queue.
        let more = queue.enable_notification(memory).map_err(ring)?;
        if !more || active.share.was_cut_short() {
            break;
        }
    }
    if !served {
        return Ok(false);
    }
    queue.needs_notification(memory).map_err(ring)
}

#[cfg(test)]
mod tests;
