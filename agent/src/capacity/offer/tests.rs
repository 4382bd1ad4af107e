use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::capacity::policy::{Measure, Schedule, Window};

const GIB: u64 = 1 << 30;

fn amounts(cpu: u64, memory: u64, disk: u64) -> Amounts {
    Amounts { cpu, memory, disk }
}

fn lending() -> Lending {
    Lending {
        reserve: amounts(500, GIB, 10 * GIB),
        cap: Amounts::UNLIMITED,
        schedule: Schedule::always(),
        measure: Measure {
            window_ms: 3_600_000,
            warm_up_ms: 10_000,
            margin_percent: 10,
        },
    }
}

fn used(amounts: Amounts) -> Usage {
    let mut usage = Usage::default();
    usage.record(amounts, 20_000, 3_600_000);
    usage
}

fn inputs<'a>(lending: &'a Lending, usage: &'a Usage) -> Inputs<'a> {
    Inputs {
        capacity: amounts(4_000, 16 * GIB, 100 * GIB),
        usage,
        lending,
        now_ms: 0,
        reclaimed: false,
    }
}

#[test]
fn the_formula_holds_for_each_resource() {
    let (lending, usage) = (lending(), used(amounts(1_024, 2 * GIB, 20 * GIB)));
    let offer = offer(&inputs(&lending, &usage));
    // The percentile is the top of its bucket: 1/32 above at most.
    assert_eq!(offer.cpu.offered, 4_000 - 500 - offer.cpu.owner - 400);
    assert!((1_024..=1_056).contains(&offer.cpu.owner), "{offer:?}");
    assert_eq!(
        offer.memory.offered,
        15 * GIB - offer.memory.owner - offer.memory.margin
    );
    assert_eq!(offer.disk.offered, 90 * GIB - offer.disk.owner - 10 * GIB);
    for line in [offer.cpu, offer.memory, offer.disk] {
        assert_eq!((line.rule, line.schedule, line.cap), (Rule::Spare, None, None));
    }
}

#[test]
fn the_rule_that_binds_is_named() {
    let usage = used(amounts(100, GIB, GIB));
    let day = |cap| Schedule {
        zone: TimeZone::UTC,
        windows: vec![Window {
            days: vec![Weekday::Thursday],
            from: 0,
            to: 60,
            cap,
        }],
    };
    // 1970-01-01 was a Thursday.
    let scheduled = Lending {
        schedule: day(amounts(250, u64::MAX, u64::MAX)),
        ..lending()
    };
    let offered = offer(&inputs(&scheduled, &usage));
    assert_eq!((offered.cpu.offered, offered.cpu.rule), (250, Rule::Schedule));
    assert_eq!(offered.memory.rule, Rule::Spare);
    let mut late = inputs(&scheduled, &usage);
    late.now_ms = 3_600_000;
    assert_eq!(offer(&late).amounts(), Amounts::NONE);

    let capped = Lending {
        cap: amounts(u64::MAX, GIB, u64::MAX),
        ..lending()
    };
    let offered = offer(&inputs(&capped, &usage));
    assert_eq!((offered.memory.offered, offered.memory.rule), (GIB, Rule::Cap));

    let lending = lending();
    let mut reclaimed = inputs(&lending, &usage);
    reclaimed.reclaimed = true;
    assert_eq!(offer(&reclaimed).amounts(), Amounts::NONE);
    assert_eq!(offer(&reclaimed).disk.rule, Rule::Reclaimed);
}

#[test]
fn nothing_is_offered_that_was_not_measured() {
    let lending = lending();
    let mut usage = Usage::default();
    for sample in 0..2 {
        let offered = offer(&inputs(&lending, &usage));
        assert_eq!(
            (offered.amounts(), offered.cpu.rule),
            (Amounts::NONE, Rule::NotMeasured),
            "{sample}"
        );
        usage.record(amounts(1, 1, 1), 5_000, 3_600_000);
    }
    assert_eq!(offer(&inputs(&lending, &usage)).cpu.rule, Rule::Spare);
}

#[test]
fn memory_in_use_now_counts_before_the_percentile_does() {
    let lending = lending();
    let mut usage = Usage::default();
    for _ in 0..100 {
        usage.record(amounts(100, GIB, GIB), 1_000, 3_600_000);
    }
    usage.record(amounts(4_000, 9 * GIB, 2 * GIB), 1_000, 3_600_000);
    let offered = offer(&inputs(&lending, &usage));
    assert!(
        offered.memory.owner >= 9 * GIB && offered.disk.owner >= 2 * GIB,
        "{offered:?}"
    );
    assert!(
        offered.cpu.owner < 200,
        "a moment's CPU time is a matter of weight: {offered:?}"
    );
}

fn any_amounts() -> impl Strategy<Value = Amounts> {
    let any = prop_oneof![0u64..1 << 40, Just(0), Just(u64::MAX)];
    (any.clone(), any.clone(), any).prop_map(|(cpu, memory, disk)| amounts(cpu, memory, disk))
}

proptest! {
    /// The reservation is never lent, nor what the owner uses, nor more than a cap allows.
    #[test]
    fn the_reservation_is_never_lent(
        capacity in any_amounts(), reserve in any_amounts(), cap in any_amounts(),
        uses in prop::collection::vec(any_amounts(), 0..20), percent in 1u64..50, now_ms in any::<u64>(),
    ) {
        let lending = Lending { reserve, cap, ..lending() };
        let lending = Lending { measure: Measure { margin_percent: percent, ..lending.measure }, ..lending };
        let mut usage = Usage::default();
        for used in &uses {
            usage.record(*used, 5_000, 3_600_000);
        }
        let inputs = Inputs { capacity, usage: &usage, lending: &lending, now_ms, reclaimed: false };
        let offered = offer(&inputs).amounts();
        prop_assert!(offered.fits(cap));
        prop_assert!(offered.fits(capacity.minus(reserve)));
        if offered != Amounts::NONE {
            let now = usage.last().unwrap();
            prop_assert!(offered.memory <= capacity.memory.saturating_sub(reserve.memory).saturating_sub(now.memory));
        }
    }
}
