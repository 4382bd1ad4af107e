use secovia_guest_protocol::Check;

use super::*;

const GOOD: ExitStatus = ExitStatus::Exited(0);
const BAD: ExitStatus = ExitStatus::Exited(3);

fn life(policy: PodRestart, is_init: bool) -> Life {
    Life::new(policy, is_init, 0, [None; 3])
}

fn probe(success: u32, failure: u32) -> ProbeSpec {
    ProbeSpec {
        check: Check::Tcp { host: None, port: 1 },
        initial_delay_ms: 0,
        period_ms: 1,
        timeout_ms: 1,
        success,
        failure,
    }
}

#[test]
fn who_is_started_again_is_for_the_policy_to_say() {
    use PodRestart::{Always, Never, OnFailure};
    for (policy, is_init, status, again) in [
        (Always, false, GOOD, true),
        (Always, false, BAD, true),
        (OnFailure, false, GOOD, false),
        (OnFailure, false, BAD, true),
        (OnFailure, false, ExitStatus::Signaled(9), true),
        (Never, false, BAD, false),
        (Always, true, GOOD, false),
        (Always, true, BAD, true),
        (OnFailure, true, BAD, true),
        (Never, true, BAD, false),
    ] {
        let mut life = life(policy, is_init);
        life.begin(0, 5);
        let next = life.end(status, None, true, false, (1, 6));
        assert_eq!(next != Next::Over, again, "{policy:?} {is_init} {status:?}");
        assert_eq!(life.outcome().is_none(), again);
        let end = ContainerEnd {
            status,
            reason: None,
            started_ms: Some(5),
            ended_ms: 6,
        };
        let report = life.report();
        match again {
            true => assert_eq!(
                (report.state, report.last),
                (ContainerState::BackOff {}, Some(end))
            ),
            false => assert_eq!((report.state, report.last), (ContainerState::Ended(end), None)),
        }
    }
}

#[test]
fn the_waits_double_up_to_a_bound_and_begin_anew_after_a_long_run() {
    let mut life = life(PodRestart::Always, false);
    let mut now = 0;
    let mut waits = Vec::new();
    for run in 0..9 {
        assert_eq!(life.begin(now, 0), run);
        now += if run == 7 { STABLE_MS } else { 1_000 };
        match life.end(BAD, None, true, false, (now, 0)) {
            Next::Again { after_ms } => waits.push(after_ms / 1_000),
            Next::Over => panic!("it is always started again"),
        }
    }
    assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 0, 10]);
    assert_eq!(life.report().restarts, 8);
}

#[test]
fn what_was_counted_before_goes_on() {
    let mut life = Life::new(PodRestart::Always, false, 4, [None; 3]);
    assert_eq!(life.report().restarts, 4);
    assert_eq!(life.begin(0, 0), 4);
    life.end(BAD, None, true, false, (0, 0));
    assert_eq!(life.begin(0, 0), 5);
}

#[test]
fn at_the_guests_end_nobody_is_started_again() {
    let mut running = life(PodRestart::Always, false);
    running.begin(0, 0);
    assert_eq!(running.end(BAD, None, true, true, (0, 0)), Next::Over);
    let mut waiting = life(PodRestart::Always, false);
    waiting.begin(0, 0);
    waiting.end(BAD, None, true, false, (0, 0));
    waiting.give_up();
    assert_eq!(waiting.outcome(), Some(BAD));
}

#[test]
fn probes_say_whether_it_is_up_alive_and_ready() {
    // What is heard, then: started, ready, and whether the container has to be ended.
    type Row = (Kind, bool, bool, bool, bool);
    use Kind::{Liveness, Readiness, Startup};
    type Table<'a> = (&'a str, [Option<ProbeSpec>; 3], &'a [Row]);
    let tables: [Table<'_>; 4] = [
        (
            "readiness comes and goes, and ends nothing",
            [None, None, Some(probe(2, 2))],
            &[
                (Readiness, true, true, false, false),
                (Readiness, true, true, true, false),
                (Readiness, false, true, true, false),
                (Readiness, true, true, true, false),
                (Readiness, false, true, true, false),
                (Readiness, false, true, false, false),
            ],
        ),
        (
            "a liveness probe ends it at its threshold",
            [None, Some(probe(1, 3)), None],
            &[
                (Liveness, false, true, true, false),
                (Liveness, false, true, true, false),
                (Liveness, true, true, true, false),
                (Liveness, false, true, true, false),
                (Liveness, false, true, true, false),
                (Liveness, false, true, true, true),
            ],
        ),
        (
            "until it is up it is not ready",
            [Some(probe(1, 3)), None, Some(probe(1, 1))],
            &[
                (Startup, false, false, false, false),
                (Startup, false, false, false, false),
                (Startup, true, true, false, false),
                (Readiness, true, true, true, false),
            ],
        ),
        (
            "a startup probe ends it too",
            [Some(probe(1, 2)), None, None],
            &[
                (Startup, false, false, false, false),
                (Startup, false, false, false, true),
            ],
        ),
    ];
    for (what, probes, rows) in tables {
        let [startup, liveness, readiness] = &probes;
        let probes = [startup.as_ref(), liveness.as_ref(), readiness.as_ref()];
        let mut life = Life::new(PodRestart::Always, false, 0, probes);
        assert!(!life.report().ready, "{what}: it does not run");
        assert!(!life.hear(Liveness, false), "{what}: it does not run");
        life.begin(0, 0);
        for (row, (kind, good, started, ready, end)) in rows.iter().enumerate() {
            assert!(life.wants(*kind), "{what}, row {row}");
            assert_eq!(life.hear(*kind, *good), *end, "{what}, row {row}");
            let report = life.report();
            assert_eq!(
                (report.started, report.ready),
                (*started, *ready),
                "{what}, row {row}"
            );
        }
        // A new run begins with no answers.
        life.end(BAD, None, true, false, (0, 0));
        assert!(!life.report().ready, "{what}: it has ended");
        life.begin(0, 0);
        let (starts, asks) = (probes[0].is_some(), probes[2].is_some());
        let report = life.report();
        assert_eq!(
            (report.started, report.ready),
            (!starts, !starts && !asks),
            "{what}"
        );
    }
}

#[test]
fn an_init_container_is_ready_when_it_succeeded() {
    let mut life = life(PodRestart::Always, true);
    life.begin(0, 0);
    assert!(!life.report().ready);
    life.end(GOOD, None, true, false, (0, 0));
    assert!(life.report().ready);
}
