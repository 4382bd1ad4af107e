use super::*;
use crate::capacity::policy::{Measure, Reclaim, Schedule};

const GIB: u64 = 1 << 30;

const HOST: Amounts = Amounts {
    cpu: 4_000,
    memory: 8 * GIB,
    disk: 100 * GIB,
};

fn lending() -> Policy {
    let lending = Lending {
        reserve: Amounts {
            cpu: 1_000,
            memory: 2 * GIB,
            disk: 10 * GIB,
        },
        cap: Amounts::UNLIMITED,
        schedule: Schedule::always(),
        measure: Measure {
            window_ms: 3_600_000,
            warm_up_ms: 1_000,
            margin_percent: 1,
        },
    };
    Policy {
        lending: Some(lending),
        ..Policy::none()
    }
}

fn id(number: u8) -> VmId {
    format!("{number:016x}").parse().unwrap()
}

fn claim(cpu: u64, memory: u64) -> Claim {
    Claim {
        active: Amounts { cpu, memory, disk: 0 },
        resting: Amounts::NONE,
    }
}

fn open(dir: &Path, policy: Policy) -> Arc<Desk> {
    Arc::new(Desk::open(dir, 1 << 20, policy, HOST, [], 1).unwrap())
}

fn words(desk: &Desk) -> Vec<String> {
    let kind = |record: AuditRecord| {
        serde_json::to_value(&record.event).unwrap()["kind"]
            .as_str()
            .unwrap()
            .to_string()
    };
    desk.records(None).unwrap().into_iter().map(kind).collect()
}

#[test]
fn without_a_policy_the_machines_memory_is_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let desk = open(dir.path(), Policy::none());
    desk.admit(id(1), "one", claim(400_000, 6 * GIB))
        .unwrap()
        .commit();
    let error = desk.admit(id(2), "two", claim(1, 3 * GIB)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("too little memory (it needs 3072 MiB, 2048 MiB is free)"),
        "{error}"
    );
    assert!(desk.show(0).lines.is_empty());
    desk.rest(id(1));
    desk.admit(id(2), "two", claim(1, 3 * GIB)).unwrap().commit();
}

#[test]
fn what_is_lent_stays_within_the_offer_and_is_on_record() {
    let dir = tempfile::tempdir().unwrap();
    let desk = open(dir.path(), lending());
    let error = desk.admit(id(1), "one", claim(1, GIB)).unwrap_err();
    assert!(
        matches!(error, AdmissionError::Refused(_)),
        "nothing was measured yet: {error}"
    );
    let quiet = Amounts {
        cpu: 100,
        memory: GIB,
        disk: GIB,
    };
    desk.measured(HOST, Some((quiet, 2_000)));
    let offered = desk.show(0).lines[1].offered;
    assert!(offered < 5 * GIB && offered > 4 * GIB, "{offered}");
    drop(desk.admit(id(1), "one", claim(1_000, 4 * GIB)).unwrap());
    assert_eq!(desk.lent(), Amounts::NONE, "no record stood for it");
    desk.admit(id(1), "one", claim(1_000, 4 * GIB)).unwrap().commit();
    assert!(desk.admit(id(2), "two", claim(1_000, GIB)).is_err());
    desk.not_measured("no /proc".into());
    assert_eq!(desk.show(0).lines[0].rule, "not_measured");
    assert!(desk.admit(id(2), "two", claim(1, 1)).is_err());
    desk.release(id(1));
    desk.release(id(1));
    assert_eq!(
        words(&desk),
        [
            "agent_started",
            "policy_applied",
            "admitted",
            "returned",
            "admitted",
            "returned"
        ]
    );
    assert_eq!(desk.verify().unwrap().broken, None);
}

#[test]
fn an_order_outlives_the_agent_and_ends_by_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let desk = open(dir.path(), lending());
    assert_eq!(desk.order(0), None);
    assert_eq!(desk.order_reclaim(None, 7), Reclaim::default().deadline_ms);
    drop(desk);
    let desk = open(dir.path(), lending());
    let order = desk.order(now_ms()).unwrap();
    assert!(order.by == By::Owner && order.within_ms <= 30_000, "{order:?}");
    assert_eq!(
        desk.order(u64::MAX).unwrap().within_ms,
        0,
        "time went on meanwhile"
    );
    assert_eq!(
        desk.order(0).unwrap().within_ms,
        30_000,
        "a clock set back gives no more time"
    );
    let error = desk.admit(id(1), "one", claim(1, 1)).unwrap_err().to_string();
    assert!(error.contains("`secovia release`"), "{error}");
    let shown = desk.show(0);
    assert_eq!(
        (shown.lines[2].rule.as_str(), shown.ladder.ordered_by.as_deref()),
        ("reclaimed", Some("owner"))
    );
    desk.order_release(7).unwrap();
    assert_eq!(
        desk.show(0).ladder.ordered_by,
        None,
        "whatever the ladder saw of it"
    );
    drop(desk);
    let desk = open(dir.path(), lending());
    assert_eq!(desk.order(0), None);
    assert_eq!(words(&desk)[2..4], ["reclaim_ordered", "agent_started"]);
}

#[test]
fn what_was_measured_outlives_the_agent() {
    let dir = tempfile::tempdir().unwrap();
    let desk = open(dir.path(), lending());
    desk.measured(
        HOST,
        Some((
            Amounts {
                memory: GIB,
                ..Amounts::NONE
            },
            5_000,
        )),
    );
    desk.keep_usage();
    drop(desk);
    let desk = open(dir.path(), lending());
    assert_eq!(desk.show(0).measured_s, 5);
    assert!(desk.admit(id(1), "one", claim(1, 1)).is_ok());
}

#[test]
fn the_schedule_wants_it_back_when_no_window_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[reserve]\ncpu = 1\nmemory = \"1G\"\ndisk = \"1G\"\n[schedule]\ntime_zone = \"UTC\"\n\
        [[schedule.window]]\ndays = [\"thu\"]\nfrom = \"00:00\"\nto = \"01:00\"\n[reclaim]\ndeadline_s = 9\n";
    let config = crate::config::Config::parse(Path::new("agent.toml"), text).unwrap();
    let desk = open(dir.path(), Policy::none());
    desk.apply(config.policy);
    // 1970-01-01 was a Thursday.
    assert_eq!(desk.order(1_800_000), None);
    let order = Order {
        by: By::Schedule,
        within_ms: 9_000,
    };
    assert_eq!(desk.order(3_600_000), Some(order));
    assert_eq!(words(&desk).last().unwrap(), "policy_applied");
}
