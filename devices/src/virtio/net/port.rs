//! What both directions share: the link, what was agreed on, the alarm, and the counters.

use std::io;

use super::features::Agreed;
use super::link::Link;
use super::neighbour::Neighbour;
use crate::limiter::Alarm;

/// The queue of packets to the guest.
pub(super) const RX: u16 = 0;
/// The queue of packets from the guest.
pub(super) const TX: u16 = 1;

/// After so many errors of the host's the log falls silent; the counter goes on.
const LOUD_ERRORS: u64 = 8;

/// More packets than a tap keeps.
const MAX_WAITING: usize = 4096;

/// What happened on a network device since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetCounters {
    /// Packets that the guest received.
    pub rx_packets: u64,
    /// Their bytes, without the header.
    pub rx_bytes: u64,
    /// Packets for the guest that fitted into none of its buffers.
    pub rx_dropped: u64,
    /// How often receiving stopped because of a limit.
    pub rx_limited: u64,
    /// Packets that the guest sent.
    pub tx_packets: u64,
    /// Their bytes, without the header.
    pub tx_bytes: u64,
    /// Packets of the guest's that were none.
    pub tx_malformed: u64,
    /// How often sending stopped because of a limit.
    pub tx_limited: u64,
    /// Packets that the host refused to give or to take.
    pub host_errors: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) id: String,
    pub(super) link: Box<dyn Link>,
    pub(super) neighbour: Option<Box<dyn Neighbour>>,
    pub(super) agreed: Agreed,
    pub(super) alarm: Alarm,
    pub(super) counters: NetCounters,
}

impl Port {
    /// Throws away what came for a driver that is gone: the next one may not understand it.
    pub(super) fn drain(&self) {
        let mut rest = [0; 64];
        for _ in 0..MAX_WAITING {
            if !matches!(nix::unistd::read(&self.link, &mut rest), Ok(1..)) {
                break;
            }
        }
    }

    /// Whether a neighbour has something for the guest.
    pub(super) fn has_answer(&self) -> bool {
        self.neighbour
            .as_ref()
            .is_some_and(|neighbour| neighbour.has_some())
    }

    /// Sees to it that a neighbour is asked again in time.
    pub(super) fn settle(&mut self) {
        if let Some(wait) = self.neighbour.as_mut().and_then(|neighbour| neighbour.wait()) {
            self.alarm.ring_in(wait);
        }
    }

    /// The host refused a packet. A guest that goes on sending would fill the host's log.
    pub(super) fn complain(&mut self, what: &str, error: &io::Error) {
        self.counters.host_errors = self.counters.host_errors.wrapping_add(1);
        let level = match self.counters.host_errors {
            ..=LOUD_ERRORS => log::Level::Warn,
            _ => log::Level::Debug,
        };
        log::log!(level, "network interface {}: {what} a packet: {error}", self.id);
    }
}
