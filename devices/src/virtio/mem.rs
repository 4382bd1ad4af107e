//! Memory that comes and goes while the guest runs (virtio 1.2, 5.15): a region of blocks, none of which is the guest's
//! at first.
//!
//! The machine says how much of the region the guest should have; the guest's driver asks for blocks ("plugs") until it
//! has that, and gives some back ("unplugs") where it has more. A block that it gave back is zeroes, and the host's again.
//!
//! All of the region is in the guest's address space from the start. A guest that keeps to the rules touches plugged
//! blocks only; one that does not can take as much of the host's memory as the region is long, which is what the region's
//! owner has agreed to. A limit below that is the control group's.
//!
//! `blocks` is pure.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::Ordering;

use vm_memory::{GuestAddress, GuestMemoryBackend};

use self::blocks::{Blocks, Run, State};
use self::handle::Shared;
use super::balloon::Reclaim;
use super::chain::{Buffers, Chain, serve};
use super::device::{Active, DeviceError, Outcome, VirtioDevice};
use crate::GuestMemory;

mod blocks;
mod handle;

pub use handle::{MemCounters, MemHandle};

const DEVICE_TYPE: u32 = 24;
const QUEUE: u16 = 0;
const QUEUE_SIZES: [u16; 1] = [64];

/// The driver does not read blocks that are not plugged (5.15.3). One that did would read zeroes.
const UNPLUGGED_INACCESSIBLE: u64 = 1 << 1;

/// What can be asked for (5.15.6.1): a type of 16 bits, and at 8 an address and at 16 a count of blocks where it has them.
const PLUG: u16 = 0;
const UNPLUG: u16 = 1;
const UNPLUG_ALL: u16 = 2;
const STATE: u16 = 3;
const REQUEST_LEN: usize = 24;

/// What is answered: a type of 16 bits, and at 8 the state where it was asked for.
const RESPONSE_LEN: usize = 10;

/// After so many errors of the host's the log falls silent; the counter goes on.
const LOUD_ERRORS: u64 = 8;

/// Where a region lies and what it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemConfig {
    /// Where the guest sees it: a multiple of `block`.
    pub start: u64,
    /// In bytes, a multiple of `block`.
    pub length: u64,
    /// The size of a block in bytes, a power of two, at least a page.
    pub block: u64,
}

/// What is answered to a request (5.15.6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Ack,
    /// With the state that was asked for.
    State(State),
    /// More than is the guest's.
    Nack,
    /// The host cannot now.
    Busy,
    /// Against the rules.
    Error,
}

/// The memory device.
pub struct Mem {
    config: MemConfig,
    blocks: Blocks,
    handle: MemHandle,
    /// How much the guest should have, as it has been told.
    told: u64,
    chain: Chain,
    keeper: Keeper,
}

/// Gives back what the guest gave back.
struct Keeper {
    reclaim: Box<dyn Reclaim>,
    counters: MemCounters,
}

impl Mem {
    /// A region whose blocks go back by `reclaim`. Fails where there is no event for it.
    pub fn new(config: MemConfig, reclaim: Box<dyn Reclaim>) -> io::Result<Self> {
        let count = config.length.checked_div(config.block).unwrap_or(0);
        Ok(Self {
            config,
            blocks: Blocks::new(config.start, config.block, count),
            handle: MemHandle::new()?,
            told: 0,
            chain: Chain::new(),
            keeper: Keeper {
                reclaim,
                counters: MemCounters::default(),
            },
        })
    }

    /// By which the machine says how much the guest should have, and sees how much it has.
    pub fn handle(&self) -> MemHandle {
        self.handle.clone()
    }

    fn shared(&self) -> &Shared {
        self.handle.shared()
    }

    fn serve(&mut self, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        let Self {
            blocks,
            told,
            chain,
            keeper,
            handle,
            ..
        } = self;
        let interrupt = serve(QUEUE, active, chain, |chain, memory| {
            let answer = keeper.answer(blocks, *told, chain.readable(memory), memory);
            handle.shared().plugged.store(blocks.plugged(), Ordering::Release);
            respond(chain, memory, answer)
        });
        handle.shared().counters.set(keeper.counters);
        Ok(Outcome {
            interrupt: interrupt?,
            config_changed: false,
        })
    }
}

impl Keeper {
    fn answer(
        &mut self,
        blocks: &mut Blocks,
        requested: u64,
        request: Buffers<'_>,
        memory: &GuestMemory,
    ) -> Answer {
        let counters = &mut self.counters;
        let mut bytes = [0; REQUEST_LEN];
        if request.read(&mut bytes).is_err() {
            counters.invalid = counters.invalid.wrapping_add(1);
            return Answer::Error;
        }
        // Padding stands between and behind.
        let [k0, k1, _, _, _, _, _, _, address @ .., n0, n1, _, _, _, _, _, _] = bytes;
        let run = blocks.run(u64::from_le_bytes(address), u16::from_le_bytes([n0, n1]));
        match (u16::from_le_bytes([k0, k1]), run) {
            (PLUG, Some(run)) => {
                let answer = plug(blocks, requested, &run);
                let bytes = match answer {
                    Answer::Ack => run.length(),
                    _ => 0,
                };
                counters.plugged.count(bytes);
                answer
            }
            (UNPLUG, Some(run)) => self.unplug(blocks, &run, memory),
            (UNPLUG_ALL, _) => self.unplug_all(blocks, memory),
            (STATE, Some(run)) => Answer::State(blocks.state(&run)),
            _ => {
                counters.invalid = counters.invalid.wrapping_add(1);
                Answer::Error
            }
        }
    }

    fn unplug(&mut self, blocks: &mut Blocks, run: &Run, memory: &GuestMemory) -> Answer {
        let answer = match blocks.state(run) {
            State::Plugged if self.give_back(run.start(), run.length(), memory) => {
                blocks.set(run, false);
                Answer::Ack
            }
            State::Plugged => Answer::Busy,
            State::Unplugged | State::Mixed => Answer::Error,
        };
        let bytes = match answer {
            Answer::Ack => run.length(),
            _ => 0,
        };
        self.counters.unplugged.count(bytes);
        answer
    }

    fn unplug_all(&mut self, blocks: &mut Blocks, memory: &GuestMemory) -> Answer {
        let bytes = blocks.plugged();
        let (start, length) = blocks.extent();
        if !self.give_back(start, length, memory) {
            self.counters.unplugged.count(0);
            return Answer::Busy;
        }
        blocks.clear();
        self.counters.unplugged.count(bytes);
        Answer::Ack
    }

    /// Says whether all of it is the host's again.
    fn give_back(&mut self, start: u64, length: u64, memory: &GuestMemory) -> bool {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        for slice in GuestMemoryBackend::get_slices(memory, GuestAddress(start), length) {
            let given = match slice {
                Ok(slice) => self.reclaim.reclaim(&slice),
                Err(error) => Err(io::Error::other(error)),
            };
            if let Err(error) = given {
                self.counters.host_errors = self.counters.host_errors.wrapping_add(1);
                let level = match self.counters.host_errors {
                    ..=LOUD_ERRORS => log::Level::Warn,
                    _ => log::Level::Debug,
                };
                log::log!(
                    level,
                    "hotplug memory: give {length} bytes at {start:#x} back: {error}"
                );
                return false;
            }
        }
        true
    }
}

fn plug(blocks: &mut Blocks, requested: u64, run: &Run) -> Answer {
    let fits = blocks
        .plugged()
        .checked_add(run.length())
        .is_some_and(|plugged| plugged <= requested);
    match blocks.state(run) {
        State::Plugged | State::Mixed => Answer::Error,
        State::Unplugged if !fits => Answer::Nack,
        State::Unplugged => {
            blocks.set(run, true);
            Answer::Ack
        }
    }
}

/// Without room for an answer there is none.
fn respond(chain: &Chain, memory: &GuestMemory, answer: Answer) -> Result<u32, DeviceError> {
    let (kind, state) = match answer {
        Answer::Ack => (0u8, 0u8),
        Answer::State(State::Plugged) => (0, 0),
        Answer::State(State::Unplugged) => (0, 1),
        Answer::State(State::Mixed) => (0, 2),
        Answer::Nack => (1, 0),
        Answer::Busy => (2, 0),
        Answer::Error => (3, 0),
    };
    let bytes: [u8; RESPONSE_LEN] = [kind, 0, 0, 0, 0, 0, 0, 0, state, 0];
    chain.writable(memory).write(&bytes)?;
    Ok(bytes.len() as u32)
}

impl VirtioDevice for Mem {
    fn device_type(&self) -> u32 {
        DEVICE_TYPE
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        UNPLUGGED_INACCESSIBLE
    }

    /// Block size, node (none), start, length, usable length (all of it), plugged, requested (5.15.4): 64 bits each, but for
    /// the node, which padding makes as long.
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let MemConfig { start, length, block } = self.config;
        let plugged = self.blocks.plugged();
        let space = [block, 0, start, length, length, plugged, self.told];
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        let space = space.into_iter().flat_map(u64::to_le_bytes).skip(skipped);
        for (to, from) in data.iter_mut().zip(space) {
            *to = from;
        }
    }

    fn activate(&mut self, _active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        Ok(Outcome::default())
    }

    fn handle_queue(&mut self, _index: u16, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        self.serve(active)
    }

    fn host_fds(&self) -> Vec<RawFd> {
        vec![self.shared().wake.as_raw_fd()]
    }

    fn handle_host(&mut self, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        let requested = self.shared().requested.load(Ordering::Acquire);
        let config_changed = requested != self.told;
        self.told = requested;
        // What the share of a call did not suffice for.
        let outcome = self.serve(active)?;
        Ok(Outcome {
            config_changed,
            ..outcome
        })
    }

    /// Blocks stay as they are: the driver that comes next asks for their state (5.15.5).
    fn reset(&mut self) {
        self.told = self.shared().requested.load(Ordering::Acquire);
    }
}

#[cfg(test)]
mod tests;
