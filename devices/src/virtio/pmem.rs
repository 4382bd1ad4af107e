//! The persistent memory device (virtio 1.2, 5.19): a disk in the guest's address space.
//!
//! The guest reads and writes the host's page cache in place, without this device: the machine maps the file where
//! [`Pmem::placed_at`] says. Here the guest only asks for what it wrote to be made durable.

use std::fs::File;

use super::block::{BlockConfig, BlockError, Disk};
use super::chain::{Buffers, Chain, serve};
use super::device::{Active, DeviceError, Outcome, VirtioDevice};
use crate::GuestMemory;
use crate::published::Published;

const DEVICE_TYPE: u32 = 27;
const QUEUE: u16 = 0;
const QUEUE_SIZES: [u16; 1] = [64];

/// The only request there is (5.19.6).
const FLUSH: u32 = 0;
/// What the guest is told of it (5.19.6.1).
const SUCCESS: u32 = 0;
const FAILURE: u32 = 1;

/// After so many errors of one disk the log falls silent; the counter goes on.
const LOUD_ERRORS: u64 = 8;

/// What happened on such a disk since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PmemCounters {
    /// Flushes that were carried out.
    pub flushes: u64,
    /// Requests that are no flush.
    pub invalid: u64,
    /// Flushes that the host failed.
    pub host_errors: u64,
}

/// The persistent memory device.
#[derive(Debug)]
pub struct Pmem {
    disk: Disk,
    start: u64,
    chain: Chain,
    counters: PmemCounters,
    published: Published<PmemCounters>,
}

impl Pmem {
    /// What the length of a place in the guest's address space is a multiple of: the driver takes no other (a huge page).
    pub const GRAIN: u64 = 2 << 20;

    /// Opens the disk, and locks it as [`Block::open`](super::block::Block::open) does.
    pub fn open(config: &BlockConfig) -> Result<Self, BlockError> {
        Ok(Self {
            disk: Disk::open(config)?,
            start: 0,
            chain: Chain::new(),
            counters: PmemCounters::default(),
            published: Published::default(),
        })
    }

    /// The file that is to be mapped.
    pub fn file(&self) -> &File {
        self.disk.file()
    }

    /// How many bytes of the file there are.
    pub fn size(&self) -> u64 {
        self.disk.size()
    }

    /// How much room it takes in the guest's address space: its size, rounded up.
    pub fn length(&self) -> u64 {
        self.size()
            .checked_next_multiple_of(Self::GRAIN)
            .unwrap_or(u64::MAX)
    }

    /// The same, mapped at this guest address.
    #[must_use]
    pub fn placed_at(self, start: u64) -> Self {
        Self { start, ..self }
    }

    /// What happened, as of its last call.
    pub fn counters(&self) -> Published<PmemCounters> {
        self.published.clone()
    }

    fn serve(&mut self, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        let Self {
            disk,
            chain,
            counters,
            published,
            ..
        } = self;
        let interrupt = serve(QUEUE, active, chain, |chain, memory| {
            let answer = answer(disk, counters, chain.readable(memory));
            respond(chain, memory, answer)
        });
        published.set(*counters);
        Ok(Outcome {
            interrupt: interrupt?,
            config_changed: false,
        })
    }
}

fn answer(disk: &Disk, counters: &mut PmemCounters, request: Buffers<'_>) -> u32 {
    let mut kind = [0; 4];
    if request.read(&mut kind).is_err() || u32::from_le_bytes(kind) != FLUSH {
        counters.invalid = counters.invalid.wrapping_add(1);
        return FAILURE;
    }
    match disk.flush() {
        Ok(()) => {
            counters.flushes = counters.flushes.wrapping_add(1);
            SUCCESS
        }
        Err(error) => {
            counters.host_errors = counters.host_errors.wrapping_add(1);
            let level = match counters.host_errors {
                ..=LOUD_ERRORS => log::Level::Warn,
                _ => log::Level::Debug,
            };
            log::log!(level, "disk {}: flush: {error}", disk.path().display());
            FAILURE
        }
    }
}

/// Without room for an answer there is none.
fn respond(chain: &Chain, memory: &GuestMemory, answer: u32) -> Result<u32, DeviceError> {
    let answer = answer.to_le_bytes();
    chain.writable(memory).write(&answer)?;
    Ok(answer.len() as u32)
}

impl VirtioDevice for Pmem {
    fn device_type(&self) -> u32 {
        DEVICE_TYPE
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        0
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // Place and length (5.19.4).
        let space = [self.start, self.length()].into_iter().flat_map(u64::to_le_bytes);
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        for (to, from) in data.iter_mut().zip(space.skip(skipped)) {
            *to = from;
        }
    }

    fn activate(&mut self, _active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        Ok(Outcome::default())
    }

    fn handle_queue(&mut self, _index: u16, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        self.serve(active)
    }

    /// Called for what the share of a call did not suffice for.
    fn handle_host(&mut self, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        self.serve(active)
    }

    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests;
