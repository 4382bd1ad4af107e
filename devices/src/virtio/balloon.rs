//! The memory balloon (virtio 1.2, 5.5): memory that the guest does without goes back to the host.
//!
//! The machine sets a target; the guest's driver takes that many pages from its own kernel and names them here
//! ("inflates"), and takes them back when the target falls ("deflates") or, where that was agreed on, when it runs out
//! of memory. With free page reporting the guest names pages that it happens not to use, without being asked, and with free
//! page hinting all of them, once, when it is asked. What is
//! named is given back to the host by whoever made the memory ([`Reclaim`]); a page that the guest touches again is a new
//! one, of zeroes.
//!
//! `hints`, `pages` and `statistics` are pure. Nothing here trusts the guest: whatever it names is its own memory, and only it
//! loses what was there.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::Ordering;
use std::time::Instant;

use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryBackend};

use self::handle::Shared;
use self::pages::{MAX_PAGES, PAGE, Runs};
use super::chain::{Chain, serve};
use super::device::{Active, DeviceError, Outcome, VirtioDevice};
use crate::limiter::Alarm;
use crate::{GuestMemory, GuestSlice};

mod config;
mod handle;
mod hints;
mod pages;
mod statistics;

pub use config::BalloonConfig;
pub use handle::{BalloonCounters, BalloonHandle};
pub use hints::HintingStatus;
pub use statistics::BalloonStatistics;

const DEVICE_TYPE: u32 = 5;

/// The features of 5.5.3; virtio-bindings has none of the balloon's names.
const STATS_VQ: u64 = 1 << 1;
const DEFLATE_ON_OOM: u64 = 1 << 2;
const FREE_PAGE_HINT: u64 = 1 << 3;
const PAGE_POISON: u64 = 1 << 4;
const PAGE_REPORTING: u64 = 1 << 5;

const QUEUE_SIZE: u16 = 256;
/// Inflate, deflate, and those of [`OPTIONAL`]: as many as are offered.
const QUEUE_SIZES: [u16; 5] = [QUEUE_SIZE; 5];

const INFLATE: u16 = 0;
const DEFLATE: u16 = 1;
/// Where it was agreed on.
const STATISTICS: u16 = 2;

/// After so many errors of the host's the log falls silent; the counter goes on.
const LOUD_ERRORS: u64 = 8;

/// Gives guest memory back to the host.
pub trait Reclaim: Send {
    /// Gives the whole pages in `slice` back; from then on they read as zeroes.
    fn reclaim(&self, slice: &GuestSlice<'_>) -> io::Result<()>;
}

/// What a queue is for. Which it is depends on what was agreed on: queues that were not have no number (5.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Inflate,
    Deflate,
    Statistics,
    Hinting,
    Reporting,
}

/// The queues that come with a feature, in their order.
const OPTIONAL: [(u64, Role); 3] = [
    (STATS_VQ, Role::Statistics),
    (FREE_PAGE_HINT, Role::Hinting),
    (PAGE_REPORTING, Role::Reporting),
];

/// The balloon.
pub struct Balloon {
    handle: BalloonHandle,
    offered: u64,
    queues: usize,
    agreed: u64,
    /// The target that the guest has been told of.
    told: u32,
    /// The command about hints that it has been told of.
    told_hints: u32,
    /// With what the guest fills its free pages, by its own word.
    poison: [u8; 4],
    chain: Chain,
    /// The guest's buffer for statistics, while it waits here for the next time.
    statistics: Chain,
    /// When it goes back to the guest.
    due: Option<Instant>,
    alarm: Alarm,
    reclaimer: Reclaimer,
}

struct Reclaimer {
    reclaim: Box<dyn Reclaim>,
    counters: BalloonCounters,
}

impl Balloon {
    /// A balloon whose memory goes back by `reclaim`. Fails where there is no timer and no event for it.
    pub fn new(config: &BalloonConfig, reclaim: Box<dyn Reclaim>) -> io::Result<Self> {
        let mut offered = PAGE_POISON;
        if config.deflate_on_oom {
            offered |= DEFLATE_ON_OOM;
        }
        if config.statistics_interval.is_some() {
            offered |= STATS_VQ;
        }
        if config.hinting {
            offered |= FREE_PAGE_HINT;
        }
        if config.reporting {
            offered |= PAGE_REPORTING;
        }
        Ok(Self {
            handle: BalloonHandle::new(config)?,
            offered,
            queues: queues(offered),
            agreed: 0,
            told: config.pages,
            told_hints: hints::STOP,
            poison: [0; 4],
            chain: Chain::new(),
            statistics: Chain::new(),
            due: None,
            alarm: Alarm::new()?,
            reclaimer: Reclaimer {
                reclaim,
                counters: BalloonCounters::default(),
            },
        })
    }

    /// By which the machine sets the target and reads what the guest says.
    pub fn handle(&self) -> BalloonHandle {
        self.handle.clone()
    }

    /// What happened so far.
    pub fn counters(&self) -> BalloonCounters {
        self.reclaimer.counters
    }

    fn shared(&self) -> &Shared {
        self.handle.shared()
    }

    fn role(&self, index: u16) -> Option<Role> {
        match index {
            INFLATE => Some(Role::Inflate),
            DEFLATE => Some(Role::Deflate),
            _ => OPTIONAL
                .iter()
                .filter(|(feature, _)| self.agreed & feature != 0)
                .nth(usize::from(index.checked_sub(2)?))
                .map(|(_, role)| *role),
        }
    }

    /// Takes the guest's statistics, and keeps the buffer until the next time (5.5.6.3).
    fn take_statistics(&mut self, index: u16, active: &mut Active<'_>) -> Result<bool, DeviceError> {
        let memory = active.memory;
        let Some(queue) = queue(active.queues, index) else {
            return Ok(false);
        };
        let ring = |source| DeviceError::Queue { queue: index, source };
        let mut answered = false;
        loop {
            while self.chain.next(index, queue, memory)? {
                // There is one buffer. A driver that sends another has the first one back.
                if self.due.take().is_some() {
                    self.statistics.complete(queue, memory, 0)?;
                    answered = true;
                }
                let statistics = statistics::parse(self.chain.readable(memory))?;
                self.handle.shared().set_statistics(statistics);
                std::mem::swap(&mut self.statistics, &mut self.chain);
                let interval = self.handle.shared().interval();
                let now = Instant::now();
                self.due = Some(now.checked_add(interval).unwrap_or(now));
                self.alarm.ring_in(interval);
                if active.share.is_over() {
                    break;
                }
            }
            if !queue.enable_notification(memory).map_err(ring)? || active.share.was_cut_short() {
                break;
            }
        }
        Ok(answered && wants_interrupt(index, queue, memory)?)
    }

    /// Takes over what the machine says of hints; says whether the guest has to hear of it.
    fn tell_hints(&mut self) -> bool {
        let command = self.handle.hinting_status().host;
        std::mem::replace(&mut self.told_hints, command) != command
    }

    /// Hands the statistics buffer back, if its time has come: the guest fills it anew.
    fn ask_for_statistics(&mut self, active: &mut Active<'_>) -> Result<bool, DeviceError> {
        const INDEX: u16 = STATISTICS;
        let Some(due) = self.due else {
            return Ok(false);
        };
        let now = Instant::now();
        if now < due {
            self.alarm.ring_in(due.saturating_duration_since(now));
            return Ok(false);
        }
        let memory = active.memory;
        let Some(queue) = queue(active.queues, INDEX) else {
            return Ok(false);
        };
        self.due = None;
        self.statistics.complete(queue, memory, 0)?;
        wants_interrupt(INDEX, queue, memory)
    }
}

/// How many queues a set of features has.
fn queues(features: u64) -> usize {
    OPTIONAL
        .iter()
        .filter(|(feature, _)| features & feature != 0)
        .count()
        .saturating_add(2)
}

fn queue(queues: &mut [Queue], index: u16) -> Option<&mut Queue> {
    queues.get_mut(usize::from(index)).filter(|queue| queue.ready())
}

fn wants_interrupt(index: u16, queue: &mut Queue, memory: &GuestMemory) -> Result<bool, DeviceError> {
    queue
        .needs_notification(memory)
        .map_err(|source| DeviceError::Queue { queue: index, source })
}

impl Reclaimer {
    /// The pages whose numbers are in `chain` are in the balloon.
    fn inflate(&mut self, chain: &Chain, memory: &GuestMemory) -> Result<(), DeviceError> {
        let mut rest = chain.readable(memory);
        let mut left = MAX_PAGES;
        let mut numbers = [0; pages::AT_ONCE];
        while left > 0 && rest.len() >= 4 {
            let count = rest
                .len()
                .checked_div(4)
                .unwrap_or(0)
                .min(left)
                .min(pages::AT_ONCE as u32);
            let Some((now, later)) = rest.split_at(count.saturating_mul(4)) else {
                break;
            };
            rest = later;
            left = left.saturating_sub(count);
            let numbers = numbers.get_mut(..count as usize).unwrap_or_default();
            pages::read(now, numbers)?;
            for (first, count) in Runs::of(numbers) {
                self.inflate_run(first, count, memory);
            }
        }
        self.ignore(u64::from(rest.len() / 4));
        Ok(())
    }

    fn inflate_run(&mut self, first: u32, count: u32, memory: &GuestMemory) {
        let start = GuestAddress(u64::from(first).saturating_mul(PAGE));
        let len = u64::from(count).saturating_mul(PAGE) as usize;
        let mut inside = 0u64;
        for slice in GuestMemoryBackend::get_slices(memory, start, len) {
            let Ok(slice) = slice else {
                // Behind the end of memory.
                break;
            };
            inside = inside.saturating_add(slice.len() as u64 / PAGE);
            self.give_back(&slice);
        }
        self.counters.inflated = self.counters.inflated.wrapping_add(inside);
        self.ignore(u64::from(count).saturating_sub(inside));
    }

    /// The buffers of `chain` are pages that the guest does not use.
    fn report(&mut self, chain: &Chain, memory: &GuestMemory) -> Result<(), DeviceError> {
        let bytes = self.give_all_back(chain, memory)?;
        self.counters.reported = self.counters.reported.wrapping_add(bytes);
        Ok(())
    }

    /// The buffers of `chain` are pages that the guest keeps aside.
    fn hint(&mut self, chain: &Chain, memory: &GuestMemory) -> Result<(), DeviceError> {
        let bytes = self.give_all_back(chain, memory)?;
        self.counters.hinted = self.counters.hinted.wrapping_add(bytes);
        Ok(())
    }

    /// Gives the buffers of `chain` back; says how many bytes they are.
    fn give_all_back(&mut self, chain: &Chain, memory: &GuestMemory) -> Result<u64, DeviceError> {
        let mut bytes = 0u64;
        for slice in chain.writable(memory).slices() {
            let slice = slice?;
            bytes = bytes.saturating_add(slice.len() as u64);
            self.give_back(&slice);
        }
        Ok(bytes)
    }

    fn give_back(&mut self, slice: &GuestSlice<'_>) {
        if let Err(error) = self.reclaim.reclaim(slice) {
            self.counters.host_errors = self.counters.host_errors.wrapping_add(1);
            let level = match self.counters.host_errors {
                ..=LOUD_ERRORS => log::Level::Warn,
                _ => log::Level::Debug,
            };
            log::log!(
                level,
                "balloon: give {} bytes back to the host: {error}",
                slice.len()
            );
        }
    }

    fn ignore(&mut self, pages: u64) {
        self.counters.ignored = self.counters.ignored.wrapping_add(pages);
    }
}

impl VirtioDevice for Balloon {
    fn device_type(&self) -> u32 {
        DEVICE_TYPE
    }

    fn queue_max_sizes(&self) -> &[u16] {
        QUEUE_SIZES.get(..self.queues).unwrap_or(&QUEUE_SIZES)
    }

    fn queues_needed(&self, features: u64) -> usize {
        queues(features & self.offered)
    }

    fn features(&self) -> u64 {
        self.offered
    }

    /// Target, actual size, hinting command, poison value (5.5.4), each 32 bits.
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let actual = self.shared().actual.load(Ordering::Relaxed);
        let [target, actual] = [self.told, actual].map(u32::to_le_bytes);
        let command = self.told_hints.to_le_bytes();
        let space = target.iter().chain(&actual).chain(&command).chain(&self.poison);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (to, from) in data.iter_mut().zip(space.skip(start)) {
            *to = *from;
        }
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let Ok(data) = <[u8; 4]>::try_from(data) else {
            return;
        };
        match offset {
            4 => self
                .shared()
                .actual
                .store(u32::from_le_bytes(data), Ordering::Relaxed),
            12 => self.poison = data,
            _ => {}
        }
    }

    fn activate(&mut self, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        self.agreed = active.features;
        // Linux's driver announces its first buffer before it is ready, when nobody listens yet.
        let interrupt = match self.role(STATISTICS) {
            Some(Role::Statistics) => self.take_statistics(STATISTICS, active)?,
            _ => false,
        };
        Ok(Outcome {
            interrupt,
            config_changed: false,
        })
    }

    fn handle_queue(&mut self, index: u16, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        let poisoned = self.agreed & PAGE_POISON != 0 && self.poison != [0; 4];
        let role = self.role(index);
        let (reclaimer, handle) = (&mut self.reclaimer, &self.handle);
        let interrupt = match role {
            Some(Role::Inflate) => serve(index, active, &mut self.chain, |chain, memory| {
                reclaimer.inflate(chain, memory).map(|()| 0)
            })?,
            Some(Role::Deflate) => serve(index, active, &mut self.chain, |chain, memory| {
                let pages = u64::from(chain.readable(memory).len() / 4);
                reclaimer.counters.deflated = reclaimer.counters.deflated.wrapping_add(pages);
                Ok(0)
            })?,
            Some(Role::Reporting) => serve(index, active, &mut self.chain, |chain, memory| {
                // The guest wants to find its pages as it left them, and they would be zeroes.
                if !poisoned {
                    reclaimer.report(chain, memory)?;
                }
                Ok(0)
            })?,
            Some(Role::Hinting) => serve(index, active, &mut self.chain, |chain, memory| {
                let command = chain.readable(memory);
                if command.len() >= 4 {
                    let mut number = [0];
                    pages::read(command, &mut number)?;
                    handle.hear(number[0]);
                }
                if !poisoned && handle.hints_are_wanted() {
                    reclaimer.hint(chain, memory)?;
                }
                Ok(0)
            })?,
            Some(Role::Statistics) => self.take_statistics(index, active)?,
            None => false,
        };
        self.shared().counters.set(self.reclaimer.counters);
        Ok(Outcome {
            interrupt,
            // The guest's last word of a round can be answered at once.
            config_changed: self.tell_hints(),
        })
    }

    fn host_fds(&self) -> Vec<RawFd> {
        vec![self.shared().wake.as_raw_fd(), self.alarm.as_fd().as_raw_fd()]
    }

    fn handle_host(&mut self, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        let target = self.shared().target.load(Ordering::Acquire);
        let config_changed = (target != self.told) | self.tell_hints();
        self.told = target;
        let interrupt = self.ask_for_statistics(active)?;
        Ok(Outcome {
            interrupt,
            config_changed,
        })
    }

    fn reset(&mut self) {
        self.agreed = 0;
        self.poison = [0; 4];
        self.due = None;
        self.alarm.stop();
        // The driver that comes next has an empty balloon.
        self.shared().actual.store(0, Ordering::Relaxed);
        self.shared().hints().reset();
        self.told_hints = hints::STOP;
        self.told = self.shared().target.load(Ordering::Acquire);
    }
}

#[cfg(test)]
mod tests;
