//! The parts together: a machine with an owner who comes and goes, and a pool that wants all it can get.

use proptest::prelude::*;

use super::ladder::{Abilities, Effect, Input, Ladder, Rung, Scarcity, Settings};
use super::ledger::{Claim, Ledger};
use super::offer::{Inputs, offer};
use super::policy::{Lending, Measure, Schedule};
use super::resources::Amounts;
use super::usage::Usage;
use crate::records::VmId;

const CAPACITY: Amounts = Amounts {
    cpu: 8_000,
    memory: 16 << 30,
    disk: 200 << 30,
};

const RESERVE: Amounts = Amounts {
    cpu: 500,
    memory: 2 << 30,
    disk: 10 << 30,
};

fn lending() -> Lending {
    Lending {
        reserve: RESERVE,
        cap: Amounts::UNLIMITED,
        schedule: Schedule::always(),
        measure: Measure {
            window_ms: 600_000,
            warm_up_ms: 5_000,
            margin_percent: 5,
        },
    }
}

/// What happens in one second of the machine's life.
#[derive(Debug, Clone)]
struct Second {
    owner: Amounts,
    request: Option<(u8, Claim)>,
    ends: Option<u8>,
    clock: i64,
}

fn seconds() -> impl Strategy<Value = Second> {
    let owner = (0u64..8_000, 0u64..16 << 30, 0u64..100 << 30);
    let claim = (1u64..4_000, 64u64 << 20..4 << 30, 0u64..20 << 30);
    let clock = prop_oneof![9 => Just(1_000i64), 1 => -1_000_000_000i64..1_000_000_000];
    let request = proptest::option::of((0u8..12, claim));
    (owner, request, proptest::option::of(0u8..12), clock).prop_map(|(owner, request, ends, clock)| Second {
        owner: Amounts {
            cpu: owner.0,
            memory: owner.1,
            disk: owner.2,
        },
        request: request.map(|(vm, (cpu, memory, disk))| {
            let active = Amounts { cpu, memory, disk };
            let resting = Amounts {
                disk,
                ..Amounts::NONE
            };
            (vm, Claim { active, resting })
        }),
        ends,
        clock,
    })
}

fn id(number: u8) -> VmId {
    format!("{number:016x}").parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// For any load, requests and clock: what is admitted stays within the offer of that moment, the reservation is
    /// never lent, nothing is admitted while the ladder is closed, and a machine that its owner leaves is open again.
    #[test]
    fn the_promise_holds(life in prop::collection::vec(seconds(), 1..150)) {
        let lending = lending();
        let settings = Settings {
            rungs: Abilities { squeeze: true, pause: true }.rungs(),
            hold_ms: 1_000,
            cooldown_ms: 10_000,
        };
        let (mut usage, mut ledger, mut ladder) = (Usage::default(), Ledger::default(), Ladder::default());
        let mut now = 1i64 << 40;
        for second in life {
            now += second.clock;
            usage.record(second.owner, 1_000, lending.measure.window_ms);
            let lent = ledger.lent();
            let free = CAPACITY.memory.saturating_sub(second.owner.memory).saturating_sub(lent.memory);
            let scarcity = match free {
                0..0x1000_0000 => Scarcity::Critical,
                0x1000_0000..0x4000_0000 => Scarcity::Scarce,
                0x4000_0000..0x8000_0000 => Scarcity::Tight,
                _ => Scarcity::Calm,
            };
            let active: Vec<u8> = (0..12).filter(|vm| ledger.held(id(*vm)) != Amounts::NONE).collect();
            let input = Input { now_ms: now as u64, scarcity, order: None, active: active.len(), ending: 0 };
            let (next, effects) = ladder.advance(&input, &settings);
            ladder = next;
            for effect in effects {
                if let Effect::ShutDownOne { .. } | Effect::KillOne = effect {
                    ledger.release(id(active[0]));
                }
            }
            if let Some(vm) = second.ends {
                ledger.release(id(vm));
            }
            if let Some((vm, claim)) = second.request && !ladder.measures().closed {
                let inputs = Inputs {
                    capacity: CAPACITY, usage: &usage, lending: &lending, now_ms: now as u64, reclaimed: false,
                };
                let offered = offer(&inputs).amounts();
                let before = ledger.lent();
                if ledger.reserve(id(vm), claim, offered).is_ok() {
                    ledger.commit(id(vm));
                    let after = ledger.lent();
                    if after != before {
                        prop_assert!(after.fits(offered), "{after} of {offered}");
                    }
                }
            }
            prop_assert!(ledger.lent().fits(CAPACITY.minus(RESERVE)), "{}", ledger.lent());
        }
        for _ in 0..60 {
            now += 1_000;
            let input = Input { now_ms: now as u64, scarcity: Scarcity::Calm, order: None, active: 1, ending: 0 };
            ladder = ladder.advance(&input, &settings).0;
        }
        prop_assert_eq!(ladder.rung(), Rung::Open);
    }
}
