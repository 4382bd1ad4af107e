use super::*;

const BACKOFF: Backoff = Backoff {
    first_ms: 1_000,
    max_ms: 60_000,
    stable_ms: 30_000,
};

const NOW: u64 = 1_000_000;

fn life(state: State) -> Life {
    Life {
        state,
        ..Life::new(RestartPolicy::No, false)
    }
}

fn stopping(cause: Cause, outcome: Option<Outcome>, deadline_ms: u64) -> State {
    State::Stopping {
        cause,
        outcome,
        deadline_ms,
    }
}

fn failed(reason: &str) -> Outcome {
    Outcome::Failed(Failure::new(reason))
}

fn gone() -> Event {
    Event::VmmGone {
        reason: "signal 9".into(),
    }
}

/// Moves without a restart policy: state, event, next state, steps.
#[test]
fn every_move() {
    let request = |outcome, at| stopping(Cause::Request, outcome, at);
    let workload = |outcome, at| stopping(Cause::Workload, outcome, at);
    let ended = Event::WorkloadEnded { code: 7 };
    let start_failed = Event::StartFailed(Failure::new("no kernel"));
    let stop = Event::Stop { grace_ms: 5_000 };
    let killed = Some(Outcome::Exited(137));
    let early = Some(failed("ended on request before its workload started"));
    let drained = NOW + DRAIN_MS + POWER_OFF_MS;
    let graced = NOW + 5_000 + POWER_OFF_MS;
    let kill = || vec![Step::KillVmm];
    let clean = || vec![Step::CleanUp];
    let shutdown = |grace_ms, at_ms| vec![Step::Shutdown { grace_ms }, Step::Wake { at_ms }];

    let table = [
        (State::Created, Event::Start, State::Starting, vec![Step::Launch]),
        (
            State::Exited { code: 1 },
            Event::Start,
            State::Starting,
            vec![Step::Launch],
        ),
        (State::Starting, Event::WorkloadStarted, State::Running, vec![]),
        (
            State::Starting,
            start_failed.clone(),
            workload(Some(failed("no kernel")), NOW),
            kill(),
        ),
        (State::Starting, stop.clone(), request(early.clone(), NOW), kill()),
        (State::Starting, Event::Kill, request(early, NOW), kill()),
        (
            State::Starting,
            gone(),
            State::Failed(Failure::new("signal 9")),
            clean(),
        ),
        (
            State::Running,
            ended.clone(),
            workload(Some(Outcome::Exited(7)), drained),
            shutdown(0, drained),
        ),
        (
            State::Starting,
            ended.clone(),
            workload(Some(Outcome::Exited(7)), drained),
            shutdown(0, drained),
        ),
        (
            State::Running,
            stop.clone(),
            request(None, graced),
            shutdown(5_000, graced),
        ),
        (State::Running, Event::Kill, request(killed.clone(), NOW), kill()),
        (
            State::Running,
            gone(),
            State::Failed(Failure::new("signal 9")),
            clean(),
        ),
        (
            request(None, graced),
            ended.clone(),
            request(Some(Outcome::Exited(7)), graced),
            vec![],
        ),
        (
            request(Some(Outcome::Exited(7)), graced),
            gone(),
            State::Exited { code: 7 },
            clean(),
        ),
        (
            request(None, graced),
            gone(),
            State::Failed(Failure::new(
                "the machine ended without telling its workload's status: signal 9",
            )),
            clean(),
        ),
        (
            request(None, graced),
            Event::Kill,
            request(killed.clone(), NOW),
            kill(),
        ),
        (request(None, NOW), Event::Woken, request(killed, NOW), kill()),
        (
            request(None, NOW + 1),
            Event::Woken,
            request(None, NOW + 1),
            vec![Step::Wake { at_ms: NOW + 1 }],
        ),
        (
            workload(Some(Outcome::Exited(7)), drained),
            stop.clone(),
            request(Some(Outcome::Exited(7)), graced),
            vec![Step::Wake { at_ms: graced }],
        ),
        (
            request(None, NOW + 10),
            stop,
            request(None, NOW + 10),
            vec![Step::Wake { at_ms: NOW + 10 }],
        ),
        (
            workload(Some(failed("no kernel")), NOW),
            gone(),
            State::Failed(Failure::new("no kernel")),
            clean(),
        ),
    ];
    for (state, event, next, steps) in table {
        let (moved, todo) = advance(&life(state.clone()), &event, NOW, &BACKOFF);
        assert_eq!((moved.state, todo), (next, steps), "{state:?} {event:?}");
    }
}

/// What comes late, or to a VM that it does not concern, moves nothing.
#[test]
fn late_events_change_nothing() {
    let at_rest = [
        State::Created,
        State::Exited { code: 0 },
        State::Failed(Failure::new("x")),
    ];
    let events = [
        Event::Stop { grace_ms: 0 },
        Event::Kill,
        Event::Reclaim { within_ms: 0 },
        Event::WorkloadStarted,
        Event::StartFailed(Failure::new("late")),
        Event::WorkloadEnded { code: 1 },
        gone(),
        Event::Woken,
    ];
    for state in at_rest {
        for event in &events {
            let life = life(state.clone());
            assert_eq!(
                advance(&life, event, NOW, &BACKOFF),
                (life.clone(), vec![]),
                "{event:?}"
            );
        }
    }
    for state in [State::Running, State::Starting] {
        for event in [Event::Start, Event::Woken] {
            let life = life(state.clone());
            assert_eq!(
                advance(&life, &event, NOW, &BACKOFF),
                (life.clone(), vec![]),
                "{event:?}"
            );
        }
    }
    let once = life(stopping(Cause::Workload, Some(Outcome::Exited(7)), NOW));
    for event in [
        Event::WorkloadEnded { code: 1 },
        Event::Start,
        Event::WorkloadStarted,
    ] {
        assert_eq!(
            advance(&once, &event, NOW, &BACKOFF),
            (once.clone(), vec![]),
            "{event:?}"
        );
    }
}

fn run_ends(policy: RestartPolicy, restarts: u32, outcome: Outcome, cause: Cause) -> (Life, Vec<Step>) {
    let life = Life {
        policy,
        restarts,
        started_ms: Some(NOW - 10),
        ..life(stopping(cause, Some(outcome), NOW))
    };
    advance(&life, &gone(), NOW, &BACKOFF)
}

#[test]
fn the_policy_decides_after_a_run() {
    let never = RestartPolicy::No;
    let on_failure = RestartPolicy::OnFailure { max_retries: None };
    let twice = RestartPolicy::OnFailure { max_retries: Some(2) };
    let always = RestartPolicy::Always;
    let table = [
        (never, 0, Outcome::Exited(1), false),
        (on_failure, 0, Outcome::Exited(0), false),
        (on_failure, 90, Outcome::Exited(1), true),
        (on_failure, 0, failed("x"), true),
        (twice, 1, Outcome::Exited(1), true),
        (twice, 2, Outcome::Exited(1), false),
        (always, 0, Outcome::Exited(0), true),
    ];
    for (policy, restarts, outcome, again) in table {
        let (life, steps) = run_ends(policy, restarts, outcome.clone(), Cause::Workload);
        assert_eq!(
            matches!(life.state, State::BackOff { .. }),
            again,
            "{policy} {restarts} {outcome:?}"
        );
        assert_eq!(steps.first(), Some(&Step::CleanUp));
        let (life, _) = run_ends(policy, restarts, outcome, Cause::Request);
        assert!(
            !matches!(life.state, State::BackOff { .. }),
            "a request is the last word"
        );
    }
}

#[test]
fn the_wait_grows_is_capped_and_forgotten_after_a_stable_run() {
    let mut life = Life::new(RestartPolicy::Always, false);
    let mut waits = Vec::new();
    let mut now = NOW;
    (life, _) = advance(&life, &Event::Start, now, &BACKOFF);
    for _ in 0..8 {
        (life, _) = advance(&life, &Event::WorkloadStarted, now, &BACKOFF);
        (life, _) = advance(&life, &Event::WorkloadEnded { code: 1 }, now, &BACKOFF);
        (life, _) = advance(&life, &gone(), now, &BACKOFF);
        let State::BackOff { until_ms, .. } = life.state else {
            panic!("{life:?}");
        };
        waits.push(until_ms - now);
        let (early, steps) = advance(&life, &Event::Woken, until_ms - 1, &BACKOFF);
        assert_eq!(
            (early, steps),
            (life.clone(), vec![Step::Wake { at_ms: until_ms }])
        );
        now = until_ms;
        (life, _) = advance(&life, &Event::Woken, now, &BACKOFF);
    }
    assert_eq!(
        waits,
        [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]
    );
    (life, _) = advance(&life, &Event::WorkloadStarted, now, &BACKOFF);
    let (life, _) = advance(&life, &gone(), now + BACKOFF.stable_ms, &BACKOFF);
    let State::BackOff { until_ms, .. } = life.state else {
        panic!("{life:?}");
    };
    assert_eq!((until_ms - now - BACKOFF.stable_ms, life.restarts), (1_000, 0));
}

#[test]
fn a_stop_ends_the_waiting_too() {
    let waiting = Life {
        auto_remove: true,
        ..life(State::BackOff {
            until_ms: NOW + 5,
            last: Outcome::Exited(3),
        })
    };
    let (next, steps) = advance(&waiting, &Event::Stop { grace_ms: 0 }, NOW, &BACKOFF);
    assert_eq!(
        (next.state, steps),
        (State::Exited { code: 3 }, vec![Step::Remove])
    );
    let (next, steps) = advance(&waiting, &Event::Start, NOW, &BACKOFF);
    assert_eq!((next.state, steps), (State::Starting, vec![Step::Launch]));
}

#[test]
fn a_vm_for_one_run_is_removed_when_it_rests_and_not_before() {
    let life = |policy| Life {
        policy,
        auto_remove: true,
        ..life(State::Running)
    };
    let (_, steps) = advance(&life(RestartPolicy::No), &gone(), NOW, &BACKOFF);
    assert_eq!(steps, [Step::CleanUp, Step::Remove]);
    let (_, steps) = advance(&life(RestartPolicy::Always), &gone(), NOW, &BACKOFF);
    assert!(!steps.contains(&Step::Remove));
}

/// Any sequence of events keeps the promises: a launch only from rest, an end only after the VMM is gone.
#[test]
fn no_sequence_breaks_the_promises() {
    let events = [
        Event::Start,
        Event::Stop { grace_ms: 1 },
        Event::Kill,
        Event::WorkloadStarted,
        Event::StartFailed(Failure::new("x")),
        Event::WorkloadEnded { code: 1 },
        Event::Reclaim { within_ms: 700 },
        Event::Reclaim { within_ms: 0 },
        Event::Deferred,
        gone(),
        Event::Woken,
    ];
    let mut seed = 1u64;
    for policy in [RestartPolicy::No, RestartPolicy::Always] {
        let mut life = Life::new(policy, false);
        let mut vmm = false;
        let mut now = NOW;
        for _ in 0..20_000 {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let event = &events[(seed >> 33) as usize % events.len()];
            // A VMM can only vanish where there is one.
            if matches!(event, Event::VmmGone { .. }) && !vmm {
                continue;
            }
            now += 500;
            let (next, steps) = advance(&life, event, now, &BACKOFF);
            vmm &= !matches!(event, Event::VmmGone { .. });
            for step in steps {
                match step {
                    Step::Launch => {
                        assert!(!vmm, "two VMMs: {life:?} {event:?}");
                        vmm = true;
                    }
                    Step::CleanUp | Step::Remove => assert!(!vmm, "{life:?} {event:?}"),
                    Step::Shutdown { .. } | Step::KillVmm => assert!(vmm, "{life:?} {event:?}"),
                    Step::Wake { .. } => {}
                }
            }
            let claims = matches!(
                next.state,
                State::Starting | State::Running | State::Stopping { .. }
            );
            assert_eq!(claims, vmm, "{life:?} {event:?} {next:?}");
            life = next;
        }
    }
}

/// The owner takes a VM back: it goes in time, and comes back by its policy, whatever its status was.
#[test]
fn a_reclaim_is_in_time_and_no_failure() {
    let reclaim = Event::Reclaim { within_ms: 10_000 };
    for (policy, again) in [
        (RestartPolicy::No, false),
        (RestartPolicy::Always, true),
        (RestartPolicy::OnFailure { max_retries: Some(0) }, true),
    ] {
        let running = Life {
            policy,
            ..life(State::Running)
        };
        let (stopping, steps) = advance(&running, &reclaim, NOW, &BACKOFF);
        let asked = vec![
            Step::Shutdown { grace_ms: 5_000 },
            Step::Wake { at_ms: NOW + 10_000 },
        ];
        assert_eq!(steps, asked);
        // Once more, and shorter.
        let sooner = Event::Reclaim { within_ms: 2_000 };
        let (stopping, steps) = advance(&stopping, &sooner, NOW, &BACKOFF);
        assert_eq!(steps, [Step::Wake { at_ms: NOW + 2_000 }]);
        let (_, steps) = advance(&stopping, &Event::Reclaim { within_ms: 0 }, NOW, &BACKOFF);
        assert_eq!(steps, [Step::KillVmm]);
        let (stopping, steps) = advance(&stopping, &Event::Woken, NOW + 2_000, &BACKOFF);
        assert_eq!(steps, [Step::KillVmm]);
        let (ended, _) = advance(&stopping, &gone(), NOW + 2_001, &BACKOFF);
        match ended.state {
            State::BackOff { until_ms, .. } => assert!(again && until_ms == NOW + 2_001),
            State::Failed(failure) => {
                assert!(!again && failure.reason.contains("the owner took"), "{failure:?}")
            }
            other => panic!("{other:?}"),
        }
    }
    let (_, steps) = advance(&life(State::Starting), &reclaim, NOW, &BACKOFF);
    assert_eq!(steps, [Step::KillVmm], "nothing runs yet that deserves grace");
}

/// What is to start and finds no room waits for it, and the waiting is no failure either.
#[test]
fn a_start_without_room_is_put_off() {
    for (state, waits) in [
        (State::Created, false),
        (State::Exited { code: 3 }, true),
        (State::Failed(Failure::new("x")), true),
    ] {
        let (next, steps) = advance(&life(state.clone()), &Event::Deferred, NOW, &BACKOFF);
        assert_eq!(
            matches!(next.state, State::BackOff { until_ms: NOW, .. }),
            waits,
            "{state:?}"
        );
        assert_eq!(steps.len(), usize::from(waits));
        if waits {
            let (rests, _) = advance(&next, &Event::Kill, NOW, &BACKOFF);
            assert_eq!(rests.state, state);
        }
    }
}

#[test]
fn the_last_run_is_known_while_the_next_one_goes_on() {
    let backoff = Backoff {
        first_ms: 100,
        max_ms: 1_000,
        stable_ms: 10_000,
    };
    let mut life = Life::new(RestartPolicy::Always, false);
    let mut at = |event: Event, now_ms: u64| {
        life = advance(&life, &event, now_ms, &backoff).0;
        life.clone()
    };
    assert_eq!(at(Event::Start, 1).starts, 1);
    at(Event::WorkloadStarted, 2);
    at(Event::WorkloadEnded { code: 7 }, 5);
    assert_eq!(at(gone(), 6).starts, 1);
    let second = at(Event::Woken, 200);
    let run = Run {
        started_ms: Some(2),
        ended_ms: 6,
        outcome: Outcome::Exited(7),
    };
    assert_eq!((second.starts, second.last_run.clone()), (2, Some(run)));
    // A long run forgives those before it, and is still the third of all.
    at(Event::WorkloadStarted, 300);
    at(Event::WorkloadEnded { code: 0 }, 50_000);
    at(gone(), 50_001);
    let third = at(Event::Woken, 60_000);
    assert_eq!((third.restarts, third.starts), (1, 3));
}
