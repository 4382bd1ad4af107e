//! A device's only queue, where a limit holds requests back until its alarm rings.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use virtio_queue::QueueT;

use super::chain::{Chain, Turn, complete, serve_while};
use super::device::{Active, DeviceError};
use crate::GuestMemory;
use crate::limiter::{Alarm, Gate, LimitHandle, LimiterConfig};

/// The only queue.
const QUEUE: u16 = 0;

/// The queue's limit, and whether a request waits in it.
#[derive(Debug)]
pub(super) struct LimitedQueue {
    chain: Chain,
    gate: Gate,
    alarm: Alarm,
    /// A request waits: for the alarm, for room, or for another turn.
    behind: bool,
}

/// What came of a request.
pub(super) enum Answer {
    /// It is answered.
    Now {
        /// Bytes that were written to the chain.
        written: u32,
        /// Bytes that count towards the limit.
        moved: u64,
    },
    /// It is begun, and answered later.
    Later {
        /// Bytes that count towards the limit.
        moved: u64,
    },
    /// There is no room for it. The device serves the queue again when there is.
    Full,
}

/// What came of serving the queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Served {
    /// The driver wants to be told.
    pub(super) interrupt: bool,
    /// The limit held a request back.
    pub(super) limited: bool,
    /// There was no room for a request.
    pub(super) full: bool,
}

impl LimitedQueue {
    /// A queue with full buckets. Fails where there is no timer for them.
    pub(super) fn new(limit: &LimiterConfig) -> io::Result<Self> {
        Ok(Self {
            chain: Chain::new(),
            gate: Gate::new(limit),
            alarm: Alarm::new()?,
            behind: false,
        })
    }

    /// By which the limit is changed.
    pub(super) fn limit(&self) -> LimitHandle {
        self.gate.handle()
    }

    /// Serves what waits, as far as the limit allows.
    pub(super) fn serve(
        &mut self,
        active: &mut Active<'_>,
        mut answer: impl FnMut(&Chain, &GuestMemory) -> Result<Answer, DeviceError>,
    ) -> Result<Served, DeviceError> {
        let Self {
            chain, gate, alarm, ..
        } = self;
        let (mut limited, mut full) = (false, false);
        let interrupt = serve_while(QUEUE, active, chain, |chain, memory| {
            if !gate.may_pass(alarm) {
                limited = true;
                return Ok(Turn::Waits);
            }
            let (turn, moved) = match answer(chain, memory)? {
                Answer::Now { written, moved } => (Turn::Answered(written), moved),
                Answer::Later { moved } => (Turn::Begun, moved),
                Answer::Full => {
                    full = true;
                    return Ok(Turn::Waits);
                }
            };
            gate.charge(moved);
            Ok(turn)
        })?;
        self.behind = limited || full || active.share.was_cut_short();
        Ok(Served {
            interrupt,
            limited,
            full,
        })
    }

    /// Answers requests that were begun: `next` gives the head of each, and how many bytes were written to it. Says
    /// whether the driver wants to be told. Where it has taken the queue back its memory is not touched any more, and
    /// `next` gets none.
    pub(super) fn answer(
        active: &mut Active<'_>,
        mut next: impl FnMut(Option<&GuestMemory>) -> Result<Option<(u16, u32)>, DeviceError>,
    ) -> Result<bool, DeviceError> {
        let memory = active.memory;
        let Some(queue) = active.queues.get_mut(usize::from(QUEUE)) else {
            return Ok(false);
        };
        let theirs = queue.ready().then_some(memory);
        let mut answered = false;
        while let Some((head, written)) = next(theirs)? {
            if queue.ready() {
                complete(QUEUE, queue, memory, head, written)?;
                answered = true;
            }
        }
        if !answered {
            return Ok(false);
        }
        queue
            .needs_notification(memory)
            .map_err(|source| DeviceError::Queue { queue: QUEUE, source })
    }

    /// Whether there is something to serve although the driver says nothing.
    pub(super) fn is_behind(&self) -> bool {
        self.behind
    }

    /// What becomes readable when the alarm rings.
    pub(super) fn alarm_fd(&self) -> RawFd {
        self.alarm.as_fd().as_raw_fd()
    }

    /// Waits for nothing any more. What is in the buckets stays.
    pub(super) fn reset(&mut self) {
        self.alarm.stop();
        self.behind = false;
    }
}
