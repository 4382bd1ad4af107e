//! A limiter in a device: the clock, and the timer that wakes the device.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::{LimiterConfig, RateLimiter};
use crate::pending::Pending;

/// A timer that makes the event loop call the device.
///
/// Its descriptor is watched edge-triggered and never read: setting the timer takes back that it ran out.
#[derive(Debug)]
pub struct Alarm {
    timer: TimerFd,
    /// When it rings, unless it has rung since.
    due: Option<Instant>,
}

impl Alarm {
    /// A timer that is not set.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            timer: TimerFd::new(
                ClockId::CLOCK_MONOTONIC,
                TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
            )?,
            due: None,
        })
    }

    /// Rings after `wait`, or before that if it was set so. Never at once, so that what else waits gets its turn.
    pub fn ring_in(&mut self, wait: Duration) {
        let now = Instant::now();
        // A century stands for what no clock can show.
        let wait = wait.clamp(Duration::from_nanos(1), Duration::from_secs(100 * 365 * 86400));
        let due = now.checked_add(wait).unwrap_or(now);
        if self.due.is_some_and(|set| now < set && set <= due) {
            return;
        }
        self.due = Some(due);
        if let Err(error) = self.timer.set(
            Expiration::OneShot(TimeSpec::from_duration(wait)),
            TimerSetTimeFlags::empty(),
        ) {
            // The device stands still until its driver or the host stirs it.
            log::error!("set a device's timer to {wait:?}: {error}");
        }
    }

    /// Does not ring any more.
    pub fn stop(&mut self) {
        if self.due.take().is_some_and(|due| Instant::now() < due)
            && let Err(error) = self.timer.unset()
        {
            log::debug!("stop a device's timer: {error}");
        }
    }
}

/// What becomes readable when it rings.
impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

/// By which the machine changes a device's limits while it works. Any thread may use it; the device takes a change over
/// before its next operation. What the old limits hold back learns of it when the machine calls the device
/// (`Transport::again`). Copies are one handle.
#[derive(Debug, Clone, Default)]
pub struct LimitHandle(Arc<Pending<LimiterConfig>>);

impl LimitHandle {
    /// Changes the buckets that `change` names, which are full then; the others stay as they are, with what is in them. A
    /// bucket of no size is no limit any more.
    pub fn change(&self, change: &LimiterConfig) {
        self.0.put(|waiting| {
            let waiting = waiting.unwrap_or_default();
            LimiterConfig {
                bandwidth: change.bandwidth.or(waiting.bandwidth),
                operations: change.operations.or(waiting.operations),
            }
        });
    }
}

/// A limiter with a clock. Where nothing is limited it costs no system call.
#[derive(Debug)]
pub struct Gate {
    limiter: RateLimiter,
    origin: Instant,
    handle: LimitHandle,
}

impl Gate {
    /// A limiter with full buckets.
    pub fn new(config: &LimiterConfig) -> Self {
        Self {
            limiter: RateLimiter::new(config, Duration::ZERO),
            origin: Instant::now(),
            handle: LimitHandle::default(),
        }
    }

    /// By which the limits are changed.
    pub fn handle(&self) -> LimitHandle {
        self.handle.clone()
    }

    /// Whether an operation may start. If not, `alarm` rings when one may.
    pub fn may_pass(&mut self, alarm: &mut Alarm) -> bool {
        if let Some(change) = self.handle.0.take() {
            self.limiter.change(&change, self.origin.elapsed());
        }
        if self.limiter.is_unlimited() {
            return true;
        }
        let wait = self.limiter.wait(self.origin.elapsed());
        if wait.is_zero() {
            return true;
        }
        alarm.ring_in(wait);
        false
    }

    /// Takes what an operation over `bytes` costs, after [`Gate::may_pass`] let it pass.
    pub fn charge(&mut self, bytes: u64) {
        self.limiter.charge(bytes);
    }
}
