//! The machine's end of a balloon.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::config::BalloonConfig;
use super::hints::{HintingStatus, Hints};
use super::statistics::BalloonStatistics;
use crate::published::Published;

/// What happened since the balloon was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BalloonCounters {
    /// Pages that the guest put into the balloon.
    pub inflated: u64,
    /// Pages that the guest took out of it.
    pub deflated: u64,
    /// Bytes that the guest said it does not use.
    pub reported: u64,
    /// Bytes that the guest named when it was asked what it does not use.
    pub hinted: u64,
    /// Pages that are not the guest's, or too many for one request.
    pub ignored: u64,
    /// What the host could not take back.
    pub host_errors: u64,
}

/// By which the machine sets a balloon's target and reads what the guest says. Any thread may use it; the device learns
/// of it on the event loop's. Copies are one handle.
#[derive(Debug, Clone)]
pub struct BalloonHandle(Arc<Shared>);

/// What both ends know.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) target: AtomicU32,
    /// By the driver's word.
    pub(super) actual: AtomicU32,
    /// In milliseconds.
    interval: AtomicU64,
    statistics: Mutex<BalloonStatistics>,
    hints: Mutex<Hints>,
    pub(super) counters: Published<BalloonCounters>,
    /// Readable when `target` or `hints` has changed. It is watched edge-triggered, and never read.
    pub(super) wake: EventFd,
}

impl BalloonHandle {
    pub(super) fn new(config: &BalloonConfig) -> io::Result<Self> {
        let interval = config.statistics_interval.unwrap_or(Duration::MAX);
        Ok(Self(Arc::new(Shared {
            target: AtomicU32::new(config.pages),
            actual: AtomicU32::new(0),
            interval: AtomicU64::new(milliseconds(interval)),
            statistics: Mutex::default(),
            hints: Mutex::default(),
            counters: Published::default(),
            wake: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        })))
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0
    }

    /// How many pages of 4 KiB the guest should do without.
    pub fn target(&self) -> u32 {
        self.0.target.load(Ordering::Relaxed)
    }

    /// Sets the target; the guest is told at once, and follows as far as it can.
    pub fn set_target(&self, pages: u32) -> io::Result<()> {
        self.0.target.store(pages, Ordering::Release);
        self.0.wake.write(1)
    }

    /// How many pages the guest says it does without. It may lie; what the host has back, the host knows best.
    pub fn actual(&self) -> u32 {
        self.0.actual.load(Ordering::Relaxed)
    }

    /// What the guest said last of its memory.
    pub fn statistics(&self) -> BalloonStatistics {
        *self.0.statistics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the guest for all pages that it does not use, which go back to the host; it keeps them aside until it hears
    /// that they have been taken: where `acknowledge`, as soon as it has named all, else by [`Self::stop_hinting`].
    /// Of use only where hinting was offered.
    pub fn start_hinting(&self, acknowledge: bool) -> io::Result<()> {
        self.0.hints().start(acknowledge);
        self.0.wake.write(1)
    }

    /// Ends the round; the guest may use its pages again.
    pub fn stop_hinting(&self) -> io::Result<()> {
        self.0.hints().stop();
        self.0.wake.write(1)
    }

    /// Where the round is.
    pub fn hinting_status(&self) -> HintingStatus {
        self.0.hints().status()
    }

    /// The guest said `command` about hints.
    pub(super) fn hear(&self, command: u32) {
        self.0.hints().hear(command);
    }

    /// Whether a page that the guest names now is one that it keeps aside.
    pub(super) fn hints_are_wanted(&self) -> bool {
        self.0.hints().are_wanted()
    }

    /// What happened, as of the last call of the device.
    pub fn counters(&self) -> BalloonCounters {
        self.0.counters.get()
    }

    /// How often the guest is asked, from the next answer on. Of use only where statistics were switched on at the start.
    pub fn set_statistics_interval(&self, interval: Duration) {
        self.0.interval.store(milliseconds(interval), Ordering::Relaxed);
    }
}

impl Shared {
    pub(super) fn interval(&self) -> Duration {
        Duration::from_millis(self.interval.load(Ordering::Relaxed))
    }

    pub(super) fn hints(&self) -> MutexGuard<'_, Hints> {
        self.hints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_statistics(&self, statistics: BalloonStatistics) {
        *self.statistics.lock().unwrap_or_else(PoisonError::into_inner) = statistics;
    }
}

fn milliseconds(interval: Duration) -> u64 {
    u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1)
}
