//! How scarce things are for the owner, from what the host shows.

use super::ladder::Scarcity;

/// The reservation is watched as it is eaten up, at most this much of it: who has reserved a lot need not fear a burst.
const WATCHED_MAX: u64 = 4 << 30;

/// To take back a microVM's memory takes this long, in milliseconds: to notice, to end its process, and for the kernel to
/// free it all. Memory that will not last so long is critical, whatever is left of it.
const REACTION_MS: u64 = 600;

/// What the host shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signals {
    /// Memory that can be had without swapping, in bytes.
    pub available: u64,
    /// How fast the owner takes it, in bytes a second; 0 where nobody does.
    pub sinking: u64,
    /// What the owner has reserved, in bytes.
    pub reserve: u64,
    /// The owner's processes wait for memory.
    pub memory_stall: bool,
    /// The owner's processes wait for disks.
    pub io_stall: bool,
    /// The microVMs' share of the disks can be squeezed.
    pub io_squeezable: bool,
}

/// How scarce things are. `before` is what they were at the last look: a level is left only when there is an eighth more
/// than what it begins at, so that a value on the edge does not swing.
///
/// When all that is offered is lent, the reservation and the margin are what is still available. So memory grows scarce
/// when the owner eats into the reservation; at a quarter of it there is no more time to wait. Nor is there while it sinks
/// so fast that it will be gone before anything could be taken back.
pub fn classify(signals: &Signals, before: Scarcity) -> Scarcity {
    let watched = signals.reserve.min(WATCHED_MAX);
    let gone_soon =
        u128::from(signals.available) * 1_000 < u128::from(signals.sinking) * u128::from(REACTION_MS);
    let below = |level: Scarcity, edge: u64| {
        let edge = if before >= level { edge + edge / 8 } else { edge };
        signals.available < edge
    };
    let memory = if gone_soon || below(Scarcity::Critical, watched / 4) {
        Scarcity::Critical
    } else if below(Scarcity::Scarce, watched / 2) {
        Scarcity::Scarce
    } else if below(Scarcity::Tight, watched) {
        // Waiting for memory proves that it is short only where it is also scanty: a service may bound itself.
        if signals.memory_stall {
            Scarcity::Scarce
        } else {
            Scarcity::Tight
        }
    } else if signals.memory_stall {
        Scarcity::Tight
    } else {
        Scarcity::Calm
    };
    let io = match (signals.io_stall, signals.io_squeezable) {
        (false, _) => Scarcity::Calm,
        (true, true) => Scarcity::Tight,
        (true, false) => Scarcity::Starved,
    };
    memory.max(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn signals(available: u64) -> Signals {
        Signals {
            available: available * MIB,
            sinking: 0,
            reserve: 1024 * MIB,
            memory_stall: false,
            io_stall: false,
            io_squeezable: true,
        }
    }

    #[test]
    fn memory_grows_scarce_as_the_reservation_is_eaten_up() {
        for (available, scarcity) in [
            (4000, Scarcity::Calm),
            (1024, Scarcity::Calm),
            (1023, Scarcity::Tight),
            (511, Scarcity::Scarce),
            (255, Scarcity::Critical),
            (0, Scarcity::Critical),
        ] {
            assert_eq!(
                classify(&signals(available), Scarcity::Calm),
                scarcity,
                "{available}"
            );
        }
        let large = Signals {
            reserve: 64 << 30,
            ..signals(5000)
        };
        assert_eq!(classify(&large, Scarcity::Calm), Scarcity::Calm);
    }

    #[test]
    fn what_will_not_last_is_critical_at_once() {
        for (available, sinking, scarcity) in [
            (4000, 4000, Scarcity::Calm),
            (4000, 7000, Scarcity::Critical),
            (600, 900, Scarcity::Tight),
            (600, 1001, Scarcity::Critical),
            (0, 0, Scarcity::Critical),
        ] {
            let signals = Signals {
                sinking: sinking * MIB,
                ..signals(available)
            };
            assert_eq!(
                classify(&signals, Scarcity::Calm),
                scarcity,
                "{available} {sinking}"
            );
        }
    }

    #[test]
    fn an_edge_has_a_width() {
        for (available, before, scarcity) in [
            (1100, Scarcity::Tight, Scarcity::Tight),
            (1152, Scarcity::Tight, Scarcity::Calm),
            (280, Scarcity::Critical, Scarcity::Critical),
            (288, Scarcity::Critical, Scarcity::Scarce),
            (1200, Scarcity::Critical, Scarcity::Calm),
        ] {
            assert_eq!(
                classify(&signals(available), before),
                scarcity,
                "{available} {before:?}"
            );
        }
    }

    #[test]
    fn waiting_counts_by_what_can_be_done_about_it() {
        let stalled = |available, memory_stall, io_stall, io_squeezable| {
            let signals = Signals {
                memory_stall,
                io_stall,
                io_squeezable,
                ..signals(available)
            };
            classify(&signals, Scarcity::Calm)
        };
        assert_eq!(stalled(4000, true, false, true), Scarcity::Tight);
        assert_eq!(stalled(1000, true, false, true), Scarcity::Scarce);
        assert_eq!(stalled(4000, false, true, true), Scarcity::Tight);
        assert_eq!(stalled(4000, false, true, false), Scarcity::Starved);
        assert_eq!(stalled(100, true, true, true), Scarcity::Critical);
    }
}
