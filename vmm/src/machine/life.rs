//! A machine's life after its start, as one value: asked to end or not, and how it ended.

use std::time::{Duration, Instant};

use secovia_devices::bus::Effect;
use secovia_vmm_api::Exit;

use super::error::MachineError;
use crate::kvm::Stop;
use crate::vcpu::thread::Ending;

/// Where the machine stands.
#[derive(Debug)]
pub(super) enum Life {
    /// The guest runs and nobody wants it otherwise.
    Running,
    /// The power button was pressed.
    Asked {
        /// The guest may take until then.
        until: Instant,
    },
    /// The end.
    Over(Result<Exit, MachineError>),
}

/// What can happen.
#[derive(Debug)]
pub(super) enum Event {
    /// A signal that asks the machine to end.
    Signal,
    /// Time has passed.
    Time,
    /// The guest has ended.
    Ended(Ending),
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing.
    None,
    /// Press the power button.
    PressButton,
}

impl Life {
    /// What follows from `event` at the time `now`.
    pub(super) fn on(self, event: Event, now: Instant, grace: Duration) -> (Self, Action) {
        match (self, event) {
            (over @ Self::Over(_), _) => (over, Action::None),
            (_, Event::Ended(ending)) => (Self::Over(exit(ending)), Action::None),
            (Self::Running, Event::Signal) => match now.checked_add(grace) {
                Some(until) => (Self::Asked { until }, Action::PressButton),
                None => (Self::Over(Ok(Exit::Forced)), Action::None),
            },
            (Self::Asked { .. }, Event::Signal) => (Self::Over(Ok(Exit::Forced)), Action::None),
            (Self::Asked { until }, Event::Time) if until <= now => {
                (Self::Over(Ok(Exit::Forced)), Action::None)
            }
            (life, Event::Time) => (life, Action::None),
        }
    }

    /// How long it may take until time alone changes something.
    pub(super) fn remaining(&self, now: Instant) -> Option<Duration> {
        match self {
            Self::Asked { until } => Some(until.saturating_duration_since(now)),
            Self::Running | Self::Over(_) => None,
        }
    }
}

fn exit(ending: Ending) -> Result<Exit, MachineError> {
    match ending {
        Ending::Effect(Effect::Shutdown) => Ok(Exit::GuestShutdown),
        Ending::Effect(Effect::Reset | Effect::None) | Ending::Stop(Stop::Reset) => Ok(Exit::GuestReset),
        Ending::Effect(Effect::Panic) => Ok(Exit::GuestPanic),
        Ending::Stop(Stop::Broken(reason)) | Ending::Failed(reason) => Err(MachineError::Guest(reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    fn asked(now: Instant) -> Life {
        let (life, action) = Life::Running.on(Event::Signal, now, GRACE);
        assert_eq!(action, Action::PressButton);
        life
    }

    #[test]
    fn a_signal_presses_the_button_and_the_guest_may_follow() {
        let now = Instant::now();
        let life = asked(now);
        assert_eq!(life.remaining(now), Some(GRACE));
        let (life, _) = life.on(Event::Ended(Ending::Effect(Effect::Shutdown)), now, GRACE);
        assert!(matches!(life, Life::Over(Ok(Exit::GuestShutdown))));
    }

    #[test]
    fn a_guest_that_does_not_follow_is_ended_in_time_and_not_before() {
        let now = Instant::now();
        let (life, _) = asked(now).on(Event::Time, now + GRACE - Duration::from_millis(1), GRACE);
        assert!(matches!(life, Life::Asked { .. }));
        let (life, _) = life.on(Event::Time, now + GRACE, GRACE);
        assert!(matches!(life, Life::Over(Ok(Exit::Forced))));
    }

    #[test]
    fn a_second_signal_ends_at_once() {
        let now = Instant::now();
        let (life, action) = asked(now).on(Event::Signal, now, GRACE);
        assert!(matches!(life, Life::Over(Ok(Exit::Forced))));
        assert_eq!(action, Action::None);
    }

    #[test]
    fn every_ending_has_its_status() {
        let now = Instant::now();
        for (ending, expected) in [
            (Ending::Effect(Effect::Reset), Exit::GuestReset),
            (Ending::Stop(Stop::Reset), Exit::GuestReset),
            (Ending::Effect(Effect::Panic), Exit::GuestPanic),
        ] {
            let (life, _) = Life::Running.on(Event::Ended(ending), now, GRACE);
            assert!(matches!(life, Life::Over(Ok(exit)) if exit == expected));
        }
        let broken = Ending::Stop(Stop::Broken("InternalError".into()));
        let (life, _) = Life::Running.on(Event::Ended(broken), now, GRACE);
        assert!(matches!(life, Life::Over(Err(MachineError::Guest(_)))));
    }

    #[test]
    fn nothing_changes_the_end() {
        let now = Instant::now();
        let over = Life::Over(Ok(Exit::GuestPanic));
        let (life, _) = over.on(Event::Ended(Ending::Effect(Effect::Reset)), now, GRACE);
        assert!(matches!(life, Life::Over(Ok(Exit::GuestPanic))));
    }
}
