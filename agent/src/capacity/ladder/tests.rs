use proptest::prelude::*;

use super::*;

const ALL: Abilities = Abilities {
    squeeze: true,
    pause: true,
};

fn settings() -> Settings {
    Settings {
        rungs: ALL.rungs(),
        hold_ms: 1_000,
        cooldown_ms: 10_000,
    }
}

/// A ladder that is looked at, and remembers what it said.
struct Watched {
    ladder: Ladder,
    now_ms: u64,
    input: Input,
}

impl Watched {
    fn new(active: usize) -> Self {
        Self {
            ladder: Ladder::default(),
            now_ms: 50_000,
            input: Input {
                now_ms: 0,
                scarcity: Scarcity::Calm,
                order: None,
                active,
                ending: 0,
            },
        }
    }

    fn after(&mut self, ms: u64) -> Vec<Effect> {
        self.now_ms += ms;
        self.input.now_ms = self.now_ms;
        let (ladder, effects) = self.ladder.advance(&self.input, &settings());
        self.ladder = ladder;
        effects
    }

    fn rungs_after(&mut self, ms: u64) -> Vec<Rung> {
        let moved = |effect: Effect| match effect {
            Effect::Move { to, .. } => Some(to),
            _ => None,
        };
        self.after(ms).into_iter().filter_map(moved).collect()
    }
}

#[test]
fn scarcity_climbs_rung_by_rung_as_far_as_it_is_bad() {
    for (scarcity, top) in [
        (Scarcity::Calm, Rung::Open),
        (Scarcity::Tight, Rung::Squeeze),
        (Scarcity::Starved, Rung::Pause),
    ] {
        let mut watched = Watched::new(3);
        watched.input.scarcity = scarcity;
        for _ in 0..100 {
            for effect in watched.after(500) {
                assert!(matches!(effect, Effect::Move { .. }), "{effect:?}");
            }
        }
        assert_eq!(watched.ladder.rung(), top);
    }
    let mut watched = Watched::new(3);
    watched.input.scarcity = Scarcity::Scarce;
    assert_eq!(watched.rungs_after(0), [Rung::Closed]);
    assert_eq!(watched.rungs_after(999), []);
    assert_eq!(watched.rungs_after(1), [Rung::Squeeze]);
    assert_eq!(watched.rungs_after(1_000), [Rung::Pause]);
    let effects = watched.after(1_000);
    assert_eq!(effects[1..], [Effect::ShutDownOne { within_ms: 1_000 }]);
    // It goes, and it is not enough: the next. That one stays: it is killed.
    assert_eq!(watched.after(1_000), [Effect::ShutDownOne { within_ms: 1_000 }]);
    watched.input.ending = 1;
    let effects = watched.after(1_000);
    assert_eq!(effects[1..], [Effect::KillOne]);
    assert_eq!(watched.ladder.rung(), Rung::Kill);
    assert_eq!(watched.after(999), []);
    assert_eq!(watched.after(1), [Effect::KillOne]);
    watched.input.active = 0;
    assert_eq!(watched.after(60_000), [], "nobody is left");
}

#[test]
fn at_the_worst_one_is_killed_at_once_and_the_next_when_that_did_not_help() {
    let mut watched = Watched::new(2);
    watched.input.scarcity = Scarcity::Critical;
    let effects = watched.after(0);
    let tos: Vec<_> = effects
        .iter()
        .filter_map(|e| match e {
            Effect::Move { to, .. } => Some(*to),
            _ => None,
        })
        .collect();
    let all = [
        Rung::Closed,
        Rung::Squeeze,
        Rung::Pause,
        Rung::Shutdown,
        Rung::Kill,
    ];
    assert_eq!(tos, all);
    assert_eq!(effects.len(), all.len() + 1, "nobody is asked to shut down");
    assert_eq!(effects.last(), Some(&Effect::KillOne));
    let measures = watched.ladder.measures();
    assert!(measures.paused && measures.cpu == CpuShare::First);
    assert_eq!(watched.after(99), []);
    assert_eq!(watched.after(1), [Effect::KillOne]);
}

#[test]
fn it_climbs_down_after_the_cooldown_and_not_sooner() {
    let mut watched = Watched::new(1);
    watched.input.scarcity = Scarcity::Critical;
    watched.after(0);
    watched.input.scarcity = Scarcity::Calm;
    assert_eq!(watched.rungs_after(5_000), []);
    // One more moment of need begins it anew.
    watched.input.scarcity = Scarcity::Scarce;
    watched.input.ending = 1;
    watched.after(1);
    watched.input.scarcity = Scarcity::Calm;
    assert_eq!(watched.rungs_after(5_000), []);
    assert_eq!(watched.rungs_after(5_000), [Rung::Pause]);
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.extend(watched.rungs_after(5_000));
    }
    assert_eq!(seen, [Rung::Squeeze, Rung::Closed, Rung::Open]);
    assert_eq!(watched.ladder.measures(), Measures::default());
}

#[test]
fn less_scarcity_keeps_the_rung_that_it_needs() {
    let mut watched = Watched::new(1);
    watched.input.scarcity = Scarcity::Critical;
    watched.after(0);
    watched.input.scarcity = Scarcity::Tight;
    for _ in 0..100 {
        watched.after(5_000);
    }
    assert_eq!(watched.ladder.rung(), Rung::Squeeze);
}

#[test]
fn what_the_vmm_is_not_able_to_do_is_no_rung() {
    assert_eq!(
        Abilities::default().rungs(),
        [Rung::Open, Rung::Closed, Rung::Shutdown, Rung::Kill]
    );
    let settings = Settings {
        rungs: Abilities::default().rungs(),
        ..settings()
    };
    let input = Input {
        scarcity: Scarcity::Starved,
        ..Watched::new(1).input
    };
    let (ladder, effects) = Ladder::default().advance(&input, &settings);
    assert_eq!((ladder.rung(), effects.len()), (Rung::Closed, 1));
}

fn order(by: By, within_ms: u64) -> Option<Order> {
    Some(Order { by, within_ms })
}

#[test]
fn an_order_frees_the_machine_in_time_and_stands_until_withdrawn() {
    let mut watched = Watched::new(4);
    watched.input.order = order(By::Owner, 30_000);
    let effects = watched.after(0);
    assert_eq!(effects.last(), Some(&Effect::ShutDownAll { within_ms: 25_000 }));
    assert_eq!(watched.ladder.rung(), Rung::Shutdown);
    watched.input.ending = 4;
    assert_eq!(watched.after(24_999), []);
    assert_eq!(watched.after(1)[1..], [Effect::KillAll]);
    assert_eq!(watched.after(999), []);
    assert_eq!(watched.after(1), [Effect::KillAll], "what was overlooked");
    (watched.input.active, watched.input.ending) = (0, 0);
    assert_eq!(watched.after(3_600_000), []);
    assert!(watched.ladder.measures().closed);
    watched.input.order = None;
    assert_eq!(watched.rungs_after(0), [Rung::Open]);
}

#[test]
fn an_order_at_the_worst_moment_is_kept_too() {
    let mut watched = Watched::new(2);
    watched.input.scarcity = Scarcity::Critical;
    assert_eq!(watched.after(0).last(), Some(&Effect::KillOne));
    watched.input.order = order(By::Owner, 0);
    assert_eq!(
        watched.after(0).last(),
        Some(&Effect::ShutDownAll { within_ms: 0 })
    );
    assert_eq!(watched.after(0).last(), Some(&Effect::KillAll));
}

#[test]
fn an_order_lets_guests_that_stand_still_shut_down() {
    let mut watched = Watched::new(2);
    watched.input.scarcity = Scarcity::Starved;
    for _ in 0..4 {
        watched.after(1_000);
    }
    let measures = watched.ladder.measures();
    assert!(measures.paused && measures.cpu == CpuShare::Spare);
    watched.input.order = order(By::Schedule, 30_000);
    watched.after(10);
    let measures = watched.ladder.measures();
    assert!(measures.closed && !measures.paused && !measures.squeezed);
    assert_eq!(measures.cpu, CpuShare::Fair);
}

#[test]
fn a_person_may_shorten_the_schedules_order_and_not_lengthen_it() {
    let mut watched = Watched::new(1);
    watched.input.order = order(By::Schedule, 30_000);
    watched.after(0);
    watched.input.order = order(By::Owner, 600_000);
    assert_eq!(watched.after(10_000), []);
    assert_eq!(watched.ladder.ordered_by(), Some(By::Owner));
    assert_eq!(watched.after(15_000).last(), Some(&Effect::KillAll));

    let mut watched = Watched::new(1);
    watched.input.order = order(By::Schedule, 30_000);
    watched.after(0);
    watched.input.order = order(By::Owner, 4_000);
    assert_eq!(watched.after(1_000), [Effect::ShutDownAll { within_ms: 3_000 }]);
    assert_eq!(watched.after(3_000).last(), Some(&Effect::KillAll));
}

fn scarcities() -> impl Strategy<Value = Scarcity> {
    prop_oneof![
        3 => Just(Scarcity::Calm),
        1 => Just(Scarcity::Tight),
        1 => Just(Scarcity::Starved),
        1 => Just(Scarcity::Scarce),
        1 => Just(Scarcity::Critical),
    ]
}

fn clock() -> impl Strategy<Value = i64> {
    prop_oneof![8 => 0i64..3_000, 1 => -100_000_000i64..0, 1 => 0i64..100_000_000]
}

proptest! {
    /// Whatever the load and the clock do: up goes rung by rung; nobody is ended that the scarcity does not demand; down
    /// goes no faster than the cooldown; and once it is calm, all is open again.
    #[test]
    fn it_neither_skips_nor_flaps_and_comes_down(
        looks in prop::collection::vec((clock(), scarcities(), 0usize..4, 0usize..4), 1..300),
        squeeze: bool, pause: bool,
    ) {
        let settings = Settings { rungs: Abilities { squeeze, pause }.rungs(), ..settings() };
        let mut ladder = Ladder::default();
        let (mut now, mut last) = (1i64 << 40, 1i64 << 40);
        // Calm as a sceptic counts it: time that can have passed since the last move.
        let mut since_move = 0;
        let mut look = |ladder: &mut Ladder, step: i64, scarcity, active, ending| {
            now += step;
            since_move += (now - last).clamp(0, RELIEF_STEP_MS as i64);
            last = now;
            let input = Input { now_ms: now as u64, scarcity, order: None, active, ending };
            let (next, effects) = ladder.advance(&input, &settings);
            for effect in &effects {
                match *effect {
                    Effect::Move { from, to, why: Why::Scarcity(_) } => {
                        prop_assert_eq!(settings.above(from), Some(to));
                        prop_assert!(to <= scarcity.ceiling());
                        since_move = 0;
                    }
                    Effect::Move { from, to, why } => {
                        prop_assert_eq!(why, Why::Relief);
                        prop_assert!(to < from && from > scarcity.ceiling());
                        prop_assert!(since_move >= settings.cooldown_ms as i64, "down after {}", since_move);
                        since_move = 0;
                    }
                    Effect::ShutDownOne { .. } | Effect::KillOne => {
                        prop_assert!(scarcity >= Scarcity::Scarce && active > 0);
                    }
                    Effect::ShutDownAll { .. } | Effect::KillAll => prop_assert!(false, "nobody ordered that"),
                }
            }
            *ladder = next;
            Ok(())
        };
        for (step, scarcity, active, ending) in looks {
            look(&mut ladder, step, scarcity, active, ending.min(active))?;
        }
        let enough = settings.rungs.len() as u64 * settings.cooldown_ms / 1_000 + 1;
        for _ in 0..enough {
            look(&mut ladder, 1_000, Scarcity::Calm, 1, 0)?;
        }
        prop_assert_eq!(ladder.rung(), Rung::Open);
        prop_assert_eq!(ladder.measures(), Measures::default());
    }

    /// Whatever came before and whatever the clock does: an order kills what is left before its deadline.
    #[test]
    fn an_order_is_kept(
        looks in prop::collection::vec((0u64..3_000, scarcities()), 0..40), within_ms in 0u64..100_000, jump in clock(),
    ) {
        let settings = settings();
        let (mut ladder, mut now) = (Ladder::default(), 1u64 << 40);
        let mut input = Input { now_ms: now, scarcity: Scarcity::Calm, order: None, active: 3, ending: 0 };
        for (step, scarcity) in looks {
            now += step;
            input = Input { now_ms: now, scarcity, ..input };
            ladder = ladder.advance(&input, &settings).0;
        }
        input.order = order(By::Owner, within_ms);
        let (next, effects) = ladder.advance(&input, &settings);
        ladder = next;
        let asked = matches!(effects.last(), Some(Effect::ShutDownAll { .. }));
        prop_assert!(asked && ladder.measures().closed);
        now = now.saturating_add_signed(jump);
        input.now_ms = now;
        let mut killed = ladder.advance(&input, &settings).1.contains(&Effect::KillAll);
        ladder = ladder.advance(&input, &settings).0;
        let mut passed = 0;
        while !killed && passed <= within_ms {
            passed += within_ms / 20 + 1;
            input.now_ms = now + passed;
            let (next, effects) = ladder.advance(&input, &settings);
            killed = effects.contains(&Effect::KillAll);
            ladder = next;
        }
        prop_assert!(killed && passed <= within_ms.max(20), "{passed} of {within_ms}");
    }
}
