use secovia_agent_api::{Health, Labels, LadderView, OfferLine};

use super::*;
use crate::node::view::has_room;

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
    let all = conditions(Seen::Speaks(&look), true);
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
    assert_eq!(conditions(Seen::Silent, true)[0].reason, "AgentSilent");
    let unseen = &conditions(Seen::Speaks(&look()), false)[0];
    assert_eq!((unseen.holds, unseen.reason), (false, "PodsUnknown"));
}

#[test]
fn a_node_has_room_as_long_as_the_least_pod_fits() {
    let room = |cpu: (u64, u64), memory_mib: (u64, u64)| {
        let mut offer = look().offer;
        (offer.lines[0].offered, offer.lines[0].lent) = cpu;
        (offer.lines[1].offered, offer.lines[1].lent) = (memory_mib.0 << 20, memory_mib.1 << 20);
        has_room(&offer)
    };
    assert!(room((10, 0), (320, 0)));
    assert!(room((500, 490), (1_024, 704)));
    assert!(!room((0, 0), (1_024, 0)), "no CPU is lent");
    assert!(!room((500, 495), (1_024, 0)));
    assert!(!room((500, 0), (1_024, 705)));
    assert!(!room((500, 0), (300, 600)), "less is offered than was");
}

#[test]
fn what_is_wrong_is_said_by_a_node_that_works() {
    let mut look = look();
    look.health.status = HealthStatus::Degraded;
    look.health.problems = vec!["no cgroups".into(), "no Landlock".into()];
    let ready = &conditions(Seen::Speaks(&look), true)[0];
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
    let well = conditions(Seen::Speaks(&look), true);
    let at = |second| Timestamp::from_second(second).unwrap();
    let first = stamped(&well, &[], at(10));
    let second = stamped(&well, &first, at(20));
    let third = stamped(&conditions(Seen::Silent, true), &second, at(30));
    for (conditions, since, heard) in [(&first, 10, 10), (&second, 10, 20), (&third, 30, 30)] {
        assert_eq!(conditions[0].last_transition_time, Some(Time(at(since))));
        assert_eq!(conditions[0].last_heartbeat_time, Some(Time(at(heard))));
    }
    // What did not change with it keeps its own.
    assert_eq!(third[3].last_transition_time, Some(Time(at(10))));
}
