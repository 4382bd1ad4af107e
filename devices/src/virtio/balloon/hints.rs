//! Free page hinting (virtio 1.2, 5.5.6.5): the machine asks, and the guest names once all that it does not use.
//!
//! A round goes so: the machine sets a command that was not there before; the guest answers with the same number, with
//! pages, and with [`STOP`] when it has named all. It keeps those pages aside until the machine says [`DONE`], so that
//! only what is named between its answer and that is free for certain.

/// The guest is to name nothing; the guest has named everything.
pub(super) const STOP: u32 = 0;
/// The guest may use again what it has named.
pub(super) const DONE: u32 = 1;
/// The first number of a round.
const FIRST: u32 = 2;

/// Where the two sides are, as the API tells it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HintingStatus {
    /// What the machine said last: 0 nothing yet, 1 that the guest may go on with its pages, else a round's number.
    pub host: u32,
    /// What the guest said last: 0 that it has named all, else a round's number.
    pub guest: Option<u32>,
}

/// Where the two sides are, and what follows when one of them says something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Hints {
    status: HintingStatus,
    /// The latest round.
    round: u32,
    /// The round ends when the guest has named all; else when the machine says so.
    acknowledge: bool,
}

impl Hints {
    pub(super) fn status(&self) -> HintingStatus {
        self.status
    }

    /// The machine begins a round, in the place of one that may still go on.
    pub(super) fn start(&mut self, acknowledge: bool) {
        self.round = self.round.wrapping_add(1).max(FIRST);
        self.status.host = self.round;
        self.acknowledge = acknowledge;
    }

    /// The machine ends the round.
    pub(super) fn stop(&mut self) {
        self.status.host = DONE;
    }

    /// The guest said `command`.
    pub(super) fn hear(&mut self, command: u32) {
        if command == STOP && self.are_wanted() && self.acknowledge {
            self.stop();
        }
        self.status.guest = Some(command);
    }

    /// Whether a page that the guest names now is one that it keeps aside.
    pub(super) fn are_wanted(&self) -> bool {
        self.status.host >= FIRST && self.status.guest == Some(self.status.host)
    }

    /// A driver begins anew: it knows of no round.
    pub(super) fn reset(&mut self) {
        self.status = HintingStatus::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(hints: &Hints) -> (u32, Option<u32>) {
        (hints.status().host, hints.status().guest)
    }

    #[test]
    fn pages_are_wanted_between_the_guests_answer_and_the_end() {
        let mut hints = Hints::default();
        assert!(!hints.are_wanted());
        // Nobody asked.
        hints.hear(0);
        hints.hear(2);
        assert!(!hints.are_wanted());
        hints.hear(1);
        hints.start(true);
        assert!(!hints.are_wanted(), "the guest has not heard of it yet");
        hints.hear(2);
        assert!(hints.are_wanted());
        hints.hear(STOP);
        assert_eq!(status(&hints), (DONE, Some(STOP)));
        assert!(!hints.are_wanted());
    }

    #[test]
    fn a_round_is_the_machines_to_end_where_it_asked_for_that() {
        let mut hints = Hints::default();
        hints.start(false);
        hints.hear(2);
        hints.hear(STOP);
        assert_eq!(status(&hints), (2, Some(STOP)));
        assert!(!hints.are_wanted());
        hints.stop();
        assert_eq!(status(&hints), (DONE, Some(STOP)));
        // An end in the middle: what is named behind it is not taken.
        hints.start(true);
        hints.hear(3);
        hints.stop();
        assert!(!hints.are_wanted());
    }

    #[test]
    fn a_round_has_a_number_that_none_before_it_had() {
        let mut hints = Hints::default();
        hints.start(true);
        hints.hear(2);
        hints.start(true);
        assert_eq!(status(&hints), (3, Some(2)));
        assert!(!hints.are_wanted(), "those are the last round's");
        hints.reset();
        hints.start(true);
        assert_eq!(status(&hints), (4, None));
        hints.round = u32::MAX;
        hints.start(true);
        assert_eq!(status(&hints), (FIRST, None));
    }
}
