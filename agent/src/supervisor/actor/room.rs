//! A VM's part of the machine: it is asked for before a start and given back when the VM rests, and a VM stands still when
//! the owner needs what it has.

use std::time::Duration;

use super::{Actor, Alarm, Event, State, Step};
use crate::clock::now_ms;
use crate::lending::desk::{Admission, AdmissionError, claim};

/// How long a VM that finds no room waits until it asks again.
const ROOM_AGAIN: Duration = Duration::from_secs(2);

impl Actor {
    /// Asks for what the VM needs to be active.
    pub(super) fn room(&self) -> Result<Admission, AdmissionError> {
        let claim = claim(&self.record.spec);
        tokio::task::block_in_place(|| self.context.desk.admit(self.record.id, &self.record.name, claim))
    }

    /// Starts a VM that rests, or lets it wait for room.
    pub(super) async fn start_or_wait(&mut self) {
        match self.room() {
            Ok(admission) => self.start_with(admission, Event::Start, now_ms()).await,
            Err(error) => {
                log::info!("{} ({}) waits: {error}", self.record.id, self.record.name);
                self.happen(Event::Deferred).await;
            }
        }
    }

    /// The time has come that the VM waited for; where it is to start, there must be room too.
    pub(super) async fn wake(&mut self, time_ms: u64) {
        let due = match self.record.life.state {
            State::BackOff { until_ms, .. } => time_ms >= until_ms,
            _ => false,
        };
        if !due {
            return self.happen_at(Event::Woken, time_ms).await;
        }
        match self.room() {
            Ok(admission) => self.start_with(admission, Event::Woken, time_ms).await,
            Err(error) => {
                log::debug!("{} ({}) waits: {error}", self.record.id, self.record.name);
                self.alarm = Some(Alarm::at(now_ms().saturating_add(ROOM_AGAIN.as_millis() as u64)));
            }
        }
    }

    async fn start_with(&mut self, admission: Admission, event: Event, time_ms: u64) {
        let steps: Vec<Step> = self.settle(&event, time_ms).await;
        admission.commit();
        self.carry_out(steps).await;
    }

    /// Makes the VMM stand still, or go on. Without one there is nothing to do.
    pub(super) fn stand_still(&mut self, on: bool) {
        let Some(running) = &self.vmm else {
            self.paused = false;
            return;
        };
        // Of whoever is on the way out, nothing stands still.
        let on = on && !matches!(self.record.life.state, State::Stopping { .. });
        let frozen = match self.context.launcher.cgroups.freeze(self.record.id, on) {
            Some(Ok(())) => Ok(()),
            // It may have been started without a group.
            Some(Err(_)) | None => running.vmm.freeze(on),
        };
        match frozen {
            Ok(()) => self.paused = on,
            Err(error) => log::warn!(
                "{} {} ({}): {error}",
                if on { "pause" } else { "resume" },
                self.record.id,
                self.record.name
            ),
        }
    }
}
