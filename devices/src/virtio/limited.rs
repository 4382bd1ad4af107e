//! A device's only queue, where a limit holds requests back until its alarm rings.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use super::chain::{Chain, serve_while};
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
    /// A request waits for the alarm, or for another turn.
    behind: bool,
}

/// What came of a request.
pub(super) struct Answer {
    /// Bytes that were written to the chain.
    pub(super) written: u32,
    /// Bytes that count towards the limit.
    pub(super) moved: u64,
}

/// What came of serving the queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Served {
    /// The driver wants to be told.
    pub(super) interrupt: bool,
    /// The limit held a request back.
    pub(super) limited: bool,
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
        let mut limited = false;
        let interrupt = serve_while(QUEUE, active, chain, |chain, memory| {
            if !gate.may_pass(alarm) {
                limited = true;
                return Ok(None);
            }
            let Answer { written, moved } = answer(chain, memory)?;
            gate.charge(moved);
            Ok(Some(written))
        })?;
        self.behind = limited || active.share.was_cut_short();
        Ok(Served { interrupt, limited })
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
