use proptest::prelude::*;

use super::*;

fn id(number: u8) -> VmId {
    format!("{number:016x}").parse().unwrap()
}

fn claim(cpu: u64, memory: u64, disk: u64) -> Claim {
    Claim {
        active: Amounts { cpu, memory, disk },
        resting: Amounts {
            cpu: 0,
            memory: 0,
            disk,
        },
    }
}

const LIMIT: Amounts = Amounts {
    cpu: 2_000,
    memory: 1 << 30,
    disk: 1 << 32,
};

#[test]
fn a_refusal_names_what_lacks_and_changes_nothing() {
    let mut ledger = Ledger::default();
    ledger
        .reserve(id(1), claim(1_000, 800 << 20, 1 << 30), LIMIT)
        .unwrap();
    let before = ledger.clone();
    let refusal = ledger
        .reserve(id(2), claim(1_500, 300 << 20, 1 << 30), LIMIT)
        .unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "too little cpu (it needs 1.500 CPUs, 1.000 CPUs is free) and memory (it needs 300 MiB, 224 MiB is free)"
    );
    assert_eq!(ledger, before);
}

#[test]
fn a_claim_lives_as_its_record_does() {
    let mut ledger = Ledger::default();
    let one = claim(1_000, 1 << 20, 1 << 30);
    ledger.reserve(id(1), one, LIMIT).unwrap();
    ledger.cancel(id(1));
    assert_eq!(ledger, Ledger::default(), "nothing stood for it");
    ledger.reserve(id(1), one, LIMIT).unwrap();
    ledger.commit(id(1));
    ledger.cancel(id(1));
    assert_eq!(ledger.held(id(1)), one.active, "a record stands for it");
    ledger.reserve(id(1), one, Amounts::NONE).unwrap();
    ledger.rest(id(1));
    assert_eq!(ledger.lent(), one.resting);
    assert!(ledger.reserve(id(1), one, Amounts::NONE).is_err());
    ledger.reserve(id(1), one, LIMIT).unwrap();
    ledger.cancel(id(1));
    assert_eq!(ledger.lent(), one.resting, "its disk is still there");
    ledger.release(id(1));
    assert_eq!(ledger.lent(), Amounts::NONE);
    // What does not exist is nobody's loss.
    ledger.commit(id(9));
    ledger.rest(id(9));
    ledger.release(id(9));
    assert_eq!(ledger, Ledger::default());
}

#[test]
fn who_wants_none_of_what_lacks_is_not_refused() {
    let mut ledger = Ledger::rebuild([(id(1), claim(8_000, 1, 1), true), (id(2), claim(0, 1, 5), false)]);
    assert_eq!(
        ledger.lent(),
        Amounts {
            cpu: 8_000,
            memory: 1,
            disk: 6
        }
    );
    ledger.reserve(id(3), claim(0, 1, 1), LIMIT).unwrap();
    assert!(ledger.reserve(id(4), claim(1, 1, 1), LIMIT).is_err());
}

#[derive(Debug, Clone)]
enum Act {
    Reserve(u8, Claim, Amounts),
    Commit(u8),
    Cancel(u8),
    Rest(u8),
    Release(u8),
    Rebuild,
}

fn acts() -> impl Strategy<Value = Act> {
    let amounts = || (0u64..5_000, 0u64..1 << 33, 0u64..1 << 34);
    prop_oneof![
        4 => (0u8..8, amounts(), amounts()).prop_map(|(vm, (cpu, memory, disk), limit)| {
            let limit = Amounts { cpu: limit.0, memory: limit.1, disk: limit.2 };
            Act::Reserve(vm, claim(cpu, memory, disk), limit)
        }),
        2 => (0u8..8).prop_map(Act::Commit),
        1 => (0u8..8).prop_map(Act::Cancel),
        1 => (0u8..8).prop_map(Act::Rest),
        1 => (0u8..8).prop_map(Act::Release),
        1 => Just(Act::Rebuild),
    ]
}

proptest! {
    /// At every admission all that is lent of what was added to stays within the limit; nothing else adds.
    #[test]
    fn lent_never_exceeds_the_limit_at_admission(acts in prop::collection::vec(acts(), 1..200)) {
        let mut ledger = Ledger::default();
        for act in acts {
            let before = ledger.lent();
            match act {
                Act::Reserve(vm, claim, limit) => {
                    let given = ledger.reserve(id(vm), claim, limit).is_ok();
                    let after = ledger.lent();
                    for resource in Resource::ALL {
                        if after.get(resource) > before.get(resource) {
                            prop_assert!(given && after.get(resource) <= limit.get(resource));
                        }
                    }
                }
                Act::Commit(vm) => ledger.commit(id(vm)),
                Act::Cancel(vm) => ledger.cancel(id(vm)),
                Act::Rest(vm) => ledger.rest(id(vm)),
                Act::Release(vm) => ledger.release(id(vm)),
                Act::Rebuild => {
                    let records: Vec<_> = ledger.entries.iter()
                        .map(|(id, entry)| (*id, entry.claim, entry.stage != Stage::Resting)).collect();
                    let rebuilt = Ledger::rebuild(records);
                    prop_assert_eq!(rebuilt.lent(), ledger.lent());
                    ledger = rebuilt;
                }
            }
            if !matches!(act, Act::Reserve(..)) {
                prop_assert!(ledger.lent().fits(before));
            }
        }
    }
}
