//! The life of one VM as a plain value: a state, the events that move it, and the steps that a move asks for.
//!
//! Nothing here reads a clock, opens a file or spawns a process: the supervisor hands in the time with each event,
//! writes the new state down, and only then carries the steps out. That order is the promise that the agent can be
//! killed at any moment: what it did is never more than what it wrote.

mod backoff;
mod state;
#[cfg(test)]
mod tests;

pub use backoff::Backoff;
pub use state::{Cause, Failure, Life, Outcome, Run, State};

use secovia_agent_api::RestartPolicy;

/// How long a guest may take to power off once its workload is gone.
pub const POWER_OFF_MS: u64 = 10_000;

/// How long attach sessions may take to read what a workload wrote last, before its guest is powered off.
pub const DRAIN_MS: u64 = 60_000;

/// The status that a shell shows for a process that SIGKILL ended.
const KILLED: i32 = 137;

/// What happened to a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Someone asks for a start.
    Start,
    /// Someone asks for a stop.
    Stop {
        /// How long the workload may take.
        grace_ms: u64,
    },
    /// Someone asks for an end without grace.
    Kill,
    /// The owner needs the machine.
    Reclaim {
        /// How long the guest may take until it is ended by force; 0 for at once.
        within_ms: u64,
    },
    /// It is to start, and there is no room for it now.
    Deferred,
    /// The guest spawned its workload.
    WorkloadStarted,
    /// The guest could not be brought to run its workload.
    StartFailed(Failure),
    /// The workload ended.
    WorkloadEnded {
        /// Its status, 0 to 255.
        code: i32,
    },
    /// The VMM is gone (or never came to be).
    VmmGone {
        /// How it ended, for people.
        reason: String,
    },
    /// A time that [`Step::Wake`] asked for has come.
    Woken,
}

/// What the supervisor has to do after a move, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Start a VMM and bring its guest to run the workload.
    Launch,
    /// Ask the guest to end its workload and power off.
    Shutdown {
        /// How long the workload may take.
        grace_ms: u64,
    },
    /// End the VMM by force.
    KillVmm,
    /// Remove what the VMM left: runtime files, control group.
    CleanUp,
    /// Come back with [`Event::Woken`] at this time (Unix time in milliseconds).
    Wake {
        /// When.
        at_ms: u64,
    },
    /// Remove the VM with its record.
    Remove,
}

/// The next life and the steps that lead there. An event that does not concern the present state changes nothing.
pub fn advance(life: &Life, event: &Event, now_ms: u64, backoff: &Backoff) -> (Life, Vec<Step>) {
    match &life.state {
        State::Created | State::Exited { .. } | State::Failed(_) => at_rest(life, event, now_ms),
        State::BackOff { until_ms, last } => backing_off(life, event, *until_ms, last, now_ms),
        State::Starting | State::Running => alive(life, event, now_ms, backoff),
        State::Stopping {
            cause,
            outcome,
            deadline_ms,
        } => stopping(life, event, (*cause, outcome, *deadline_ms), now_ms, backoff),
    }
}

fn at_rest(life: &Life, event: &Event, now_ms: u64) -> (Life, Vec<Step>) {
    match event {
        Event::Start => launch(life, 0),
        Event::Deferred => deferred(life, now_ms),
        Event::Stop { .. }
        | Event::Kill
        | Event::Reclaim { .. }
        | Event::WorkloadStarted
        | Event::StartFailed(_)
        | Event::WorkloadEnded { .. }
        | Event::VmmGone { .. }
        | Event::Woken => unchanged(life),
    }
}

/// One that rests waits for room from now on; one that never ran goes on resting.
fn deferred(life: &Life, now_ms: u64) -> (Life, Vec<Step>) {
    let last = match &life.state {
        State::Exited { code } => Outcome::Exited(*code),
        State::Failed(failure) => Outcome::Failed(failure.clone()),
        State::Created
        | State::Starting
        | State::Running
        | State::Stopping { .. }
        | State::BackOff { .. } => return unchanged(life),
    };
    let state = State::BackOff {
        until_ms: now_ms,
        last,
    };
    let next = Life {
        state,
        ..life.clone()
    };
    (next, vec![Step::Wake { at_ms: now_ms }])
}

fn backing_off(life: &Life, event: &Event, until_ms: u64, last: &Outcome, now_ms: u64) -> (Life, Vec<Step>) {
    match event {
        Event::Start => launch(life, 0),
        Event::Woken if now_ms >= until_ms => launch(life, life.restarts.saturating_add(1)),
        Event::Woken => (life.clone(), vec![Step::Wake { at_ms: until_ms }]),
        Event::Stop { .. } | Event::Kill => {
            let next = Life {
                state: last.clone().at_rest(),
                ..life.clone()
            };
            let steps = if life.auto_remove {
                vec![Step::Remove]
            } else {
                Vec::new()
            };
            (next, steps)
        }
        // It holds nothing that the owner could need, and waits for its time anyway.
        Event::Reclaim { .. }
        | Event::Deferred
        | Event::WorkloadStarted
        | Event::StartFailed(_)
        | Event::WorkloadEnded { .. }
        | Event::VmmGone { .. } => unchanged(life),
    }
}

fn alive(life: &Life, event: &Event, now_ms: u64, backoff: &Backoff) -> (Life, Vec<Step>) {
    match event {
        Event::Start | Event::Deferred | Event::Woken => unchanged(life),
        Event::WorkloadStarted => {
            let started_ms = match life.state {
                State::Running => life.started_ms,
                _ => Some(now_ms),
            };
            let next = Life {
                state: State::Running,
                started_ms,
                ..life.clone()
            };
            (next, Vec::new())
        }
        Event::StartFailed(failure) => {
            let outcome = Some(Outcome::Failed(failure.clone()));
            to_stopping(life, Cause::Workload, outcome, now_ms, vec![Step::KillVmm])
        }
        Event::WorkloadEnded { code } => {
            let outcome = Some(Outcome::Exited(*code));
            let deadline_ms = now_ms.saturating_add(DRAIN_MS + POWER_OFF_MS);
            let steps = vec![Step::Shutdown { grace_ms: 0 }, Step::Wake { at_ms: deadline_ms }];
            to_stopping(life, Cause::Workload, outcome, deadline_ms, steps)
        }
        // Nothing runs yet that deserves grace, and the guest may be minutes away from an answer.
        Event::Stop { .. } | Event::Kill if life.state == State::Starting => {
            let failure = Failure::new("ended on request before its workload started");
            let outcome = Some(Outcome::Failed(failure));
            to_stopping(life, Cause::Request, outcome, now_ms, vec![Step::KillVmm])
        }
        Event::Stop { grace_ms } => {
            let deadline_ms = now_ms.saturating_add(*grace_ms).saturating_add(POWER_OFF_MS);
            let steps = vec![
                Step::Shutdown { grace_ms: *grace_ms },
                Step::Wake { at_ms: deadline_ms },
            ];
            to_stopping(life, Cause::Request, None, deadline_ms, steps)
        }
        Event::Reclaim { within_ms } => {
            let deadline_ms = now_ms.saturating_add(*within_ms);
            let steps = match within_ms {
                0 => vec![Step::KillVmm],
                _ if life.state == State::Starting => vec![Step::KillVmm],
                // The workload's share of the time; the rest is for the guest's way down.
                _ => vec![
                    Step::Shutdown {
                        grace_ms: within_ms / 2,
                    },
                    Step::Wake { at_ms: deadline_ms },
                ],
            };
            to_stopping(life, Cause::Reclaim, None, deadline_ms, steps)
        }
        Event::Kill => to_stopping(
            life,
            Cause::Request,
            Some(Outcome::Exited(KILLED)),
            now_ms,
            vec![Step::KillVmm],
        ),
        Event::VmmGone { reason } => end(
            life,
            Outcome::Failed(Failure::new(reason.clone())),
            Cause::Workload,
            now_ms,
            backoff,
        ),
    }
}

fn stopping(
    life: &Life,
    event: &Event,
    (cause, outcome, deadline_ms): (Cause, &Option<Outcome>, u64),
    now_ms: u64,
    backoff: &Backoff,
) -> (Life, Vec<Step>) {
    match event {
        Event::WorkloadStarted => unchanged(life),
        // A start while the last run is on its way out would need two VMMs for one record; the caller is told to wait.
        Event::Start | Event::Deferred => unchanged(life),
        Event::WorkloadEnded { code } if outcome.is_none() => {
            let outcome = Some(Outcome::Exited(*code));
            to_stopping(life, cause, outcome, deadline_ms, Vec::new())
        }
        Event::WorkloadEnded { .. } | Event::StartFailed(_) => unchanged(life),
        // A second stop may shorten the wait, never lengthen it, and silences the restart policy.
        Event::Stop { grace_ms } => {
            let sooner = now_ms.saturating_add(*grace_ms).saturating_add(POWER_OFF_MS);
            let deadline_ms = deadline_ms.min(sooner);
            let steps = vec![Step::Wake { at_ms: deadline_ms }];
            to_stopping(life, Cause::Request, outcome.clone(), deadline_ms, steps)
        }
        Event::Kill => {
            let outcome = outcome.clone().or(Some(Outcome::Exited(KILLED)));
            to_stopping(life, Cause::Request, outcome, now_ms, vec![Step::KillVmm])
        }
        // Whatever it ends for, it ends in time; who wanted that stays.
        Event::Reclaim { within_ms } => {
            let deadline_ms = deadline_ms.min(now_ms.saturating_add(*within_ms));
            let step = match within_ms {
                0 => Step::KillVmm,
                _ => Step::Wake { at_ms: deadline_ms },
            };
            to_stopping(life, cause, outcome.clone(), deadline_ms, vec![step])
        }
        Event::Woken if now_ms >= deadline_ms && cause == Cause::Reclaim => {
            to_stopping(life, cause, outcome.clone(), deadline_ms, vec![Step::KillVmm])
        }
        Event::Woken if now_ms >= deadline_ms => {
            let outcome = outcome.clone().or(Some(Outcome::Exited(KILLED)));
            to_stopping(life, cause, outcome, deadline_ms, vec![Step::KillVmm])
        }
        Event::Woken => (life.clone(), vec![Step::Wake { at_ms: deadline_ms }]),
        Event::VmmGone { reason } => {
            let outcome = outcome.clone().unwrap_or_else(|| {
                let what = match cause {
                    Cause::Reclaim => "the owner took the machine back",
                    Cause::Workload | Cause::Request => {
                        "the machine ended without telling its workload's status"
                    }
                };
                Outcome::Failed(Failure::new(format!("{what}: {reason}")))
            });
            end(life, outcome, cause, now_ms, backoff)
        }
    }
}

fn unchanged(life: &Life) -> (Life, Vec<Step>) {
    (life.clone(), Vec::new())
}

fn launch(life: &Life, restarts: u32) -> (Life, Vec<Step>) {
    let next = Life {
        state: State::Starting,
        restarts,
        starts: life.starts.saturating_add(1),
        started_ms: None,
        ended_ms: None,
        ..life.clone()
    };
    (next, vec![Step::Launch])
}

fn to_stopping(
    life: &Life,
    cause: Cause,
    outcome: Option<Outcome>,
    deadline_ms: u64,
    steps: Vec<Step>,
) -> (Life, Vec<Step>) {
    let state = State::Stopping {
        cause,
        outcome,
        deadline_ms,
    };
    (
        Life {
            state,
            ..life.clone()
        },
        steps,
    )
}

/// The VMM is gone: to rest, or to another try.
fn end(life: &Life, outcome: Outcome, cause: Cause, now_ms: u64, backoff: &Backoff) -> (Life, Vec<Step>) {
    let stable = life
        .started_ms
        .is_some_and(|started| now_ms.saturating_sub(started) >= backoff.stable_ms);
    let restarts = if stable { 0 } else { life.restarts };
    let again = match cause {
        Cause::Request => false,
        Cause::Workload => restarts_after(life.policy, outcome.is_success(), restarts),
        // It was cut short: whoever wants it to go on, whatever its status, wants that now.
        Cause::Reclaim => life.policy != RestartPolicy::No,
    };
    let last_run = Some(Run {
        started_ms: life.started_ms,
        ended_ms: now_ms,
        outcome: outcome.clone(),
    });
    let mut steps = vec![Step::CleanUp];
    let state = if again {
        let delay_ms = match cause {
            Cause::Reclaim => 0,
            Cause::Workload | Cause::Request => backoff.delay_ms(restarts),
        };
        let until_ms = now_ms.saturating_add(delay_ms);
        steps.push(Step::Wake { at_ms: until_ms });
        State::BackOff {
            until_ms,
            last: outcome,
        }
    } else {
        if life.auto_remove {
            steps.push(Step::Remove);
        }
        outcome.at_rest()
    };
    let next = Life {
        state,
        restarts,
        ended_ms: Some(now_ms),
        last_run,
        ..life.clone()
    };
    (next, steps)
}

/// Whether one more start is allowed after `restarts` in a row.
fn restarts_after(policy: RestartPolicy, success: bool, restarts: u32) -> bool {
    match policy {
        RestartPolicy::No => false,
        RestartPolicy::OnFailure { max_retries: None } => !success,
        RestartPolicy::OnFailure {
            max_retries: Some(max),
        } => !success && restarts < max,
        RestartPolicy::Always => true,
    }
}
