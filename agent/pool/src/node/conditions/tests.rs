use secovia_agent_api::{Health, Labels, LadderView, OfferLine};

use super::*;

fn look() -> Look {
    let line = |resource: &str| OfferLine {
        resource: resource.into(),
        offered: 1,
        lent: 0,
        rule: "spare".into(),
        capacity: 4,
        reserve: 1,
        owner: 1,
        margin: 1,
        schedule: None,
        cap: None,
    };
    Look {
        health: Health {
            status: HealthStatus::Ok,
            problems: Vec::new(),
            running: 0,
        },
        offer: Offer {
            lending: true,
            lines: vec![line("cpu"), line("memory"), line("disk")],
            ladder: LadderView {
                rung: "open".into(),
                ordered_by: None,
                scarcity: "calm".into(),
            },
            measured_s: 100,
            problem: None,
            labels: Labels::default(),
        },
    }
}

/// Whether a condition holds, and why, when a healthy agent's answer is changed so.
fn told(kind: &str, change: impl FnOnce(&mut Look)) -> (bool, &'static str) {
    let mut look = look();
    change(&mut look);
    let all = conditions(Seen::Speaks(&look));
    let found = all.iter().find(|condition| condition.kind == kind).unwrap();
    (found.holds, found.reason)
}

#[test]
fn readiness_is_earned() {
    assert_eq!(told("Ready", |_| ()), (true, "AgentReady"));
    assert_eq!(
        told("Ready", |look| look.health.status = HealthStatus::Starting),
        (false, "AgentStarting")
    );
    assert_eq!(
        told("Ready", |look| look.offer.lending = false),
        (false, "NothingLent")
    );
    assert_eq!(
        told("Ready", |look| look.offer.lines[1].rule = "not_measured".into()),
        (false, "NotMeasured")
    );
    assert_eq!(
        told("Ready", |look| look.offer.problem = Some("no /proc".into())),
        (false, "NotMeasured")
    );
    assert_eq!(conditions(Seen::Silent)[0].reason, "AgentSilent");
}

#[test]
fn what_is_wrong_is_said_by_a_node_that_works() {
    let mut look = look();
    look.health.status = HealthStatus::Degraded;
    look.health.problems = vec!["no cgroups".into(), "no Landlock".into()];
    let ready = &conditions(Seen::Speaks(&look))[0];
    assert!(ready.holds);
    assert_eq!(ready.message, "no cgroups; no Landlock");
}

#[test]
fn pressure_is_the_owners() {
    assert_eq!(told("MemoryPressure", |_| ()), (false, "OwnerHasMemory"));
    assert_eq!(
        told("MemoryPressure", |look| look.offer.ladder.scarcity =
            "scarce".into()),
        (true, "OwnerNeedsMemory")
    );
    assert_eq!(told("DiskPressure", |_| ()), (false, "DiskSpare"));
    assert_eq!(
        told("DiskPressure", |look| look.offer.lines[2].offered = 0),
        (true, "NoDiskSpare")
    );
    // What was reclaimed is not short.
    let reclaimed = |look: &mut Look| {
        look.offer.lines[2].offered = 0;
        look.offer.lines[2].rule = "reclaimed".into();
    };
    assert_eq!(told("DiskPressure", reclaimed), (false, "DiskSpare"));
}

#[test]
fn a_condition_keeps_the_time_of_its_last_change() {
    let look = look();
    let well = conditions(Seen::Speaks(&look));
    let at = |second| Timestamp::from_second(second).unwrap();
    let first = stamped(&well, &[], at(10));
    let second = stamped(&well, &first, at(20));
    let third = stamped(&conditions(Seen::Silent), &second, at(30));
    for (conditions, since, heard) in [(&first, 10, 10), (&second, 10, 20), (&third, 30, 30)] {
        assert_eq!(conditions[0].last_transition_time, Some(Time(at(since))));
        assert_eq!(conditions[0].last_heartbeat_time, Some(Time(at(heard))));
    }
    // What did not change with it keeps its own.
    assert_eq!(third[3].last_transition_time, Some(Time(at(10))));
}
