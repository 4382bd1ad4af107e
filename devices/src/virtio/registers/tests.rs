use std::collections::BTreeMap;

use super::*;

const QUEUES: [u16; 3] = [256, 1, 16];
const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
const OFFERED: u64 = VERSION_1 | 1 << 29 | 0b101;

/// Every register, every offset that is none, and the first behind them.
fn offsets() -> impl Iterator<Item = u64> {
    (0..=offset::CONFIG).chain([0xffc, 0xfff, u64::MAX])
}

/// What a driver may write: all that a status can be, and the edges of what else there is.
fn values() -> impl Iterator<Item = u32> {
    (0..=0x1ff).chain([0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, u32::MAX - 1, u32::MAX])
}

/// Does what the transport does, and lets the device fail where `fails`.
fn step(registers: &Registers, at: u64, value: u32, fails: bool) -> (Registers, Action) {
    let mut after = registers.clone();
    let action = after.write(at, value);
    if action == Action::Reset {
        after.reset();
    }
    if fails && action == Action::Activate {
        after.set_needs_reset();
    }
    (after, action)
}

/// All states that a driver can bring the registers into by the writes that matter, with queue 1 selected: any status
/// in any order, features that are acceptable and that are not, queues that are set up and that are not.
fn reachable() -> Vec<Registers> {
    let mut start = Registers::new(42, OFFERED, &QUEUES);
    start.write(offset::QUEUE_SEL, 1);
    let mut found = BTreeMap::new();
    let mut open = vec![start];
    while let Some(state) = open.pop() {
        if found.contains_key(&format!("{state:?}")) {
            continue;
        }
        for value in values() {
            for fails in [false, true] {
                open.push(step(&state, offset::STATUS, value, fails).0);
            }
        }
        for (at, value) in [
            (offset::DRIVER_FEATURES_SEL, 1),
            (offset::QUEUE_SEL, 1),
            (offset::DRIVER_FEATURES, 1),
            (offset::DRIVER_FEATURES, 2),
            (offset::QUEUE_NUM, 1),
            (offset::QUEUE_READY, 1),
            (offset::QUEUE_READY, 0),
        ] {
            open.push(step(&state, at, value, false).0);
        }
        let mut failed = state.clone();
        failed.set_needs_reset();
        open.push(failed);
        found.insert(format!("{state:?}"), state);
    }
    found.into_values().collect()
}

fn at_least(phase: Phase) -> u32 {
    match phase {
        Phase::Reset | Phase::Broken | Phase::Failed => 0,
        Phase::Negotiating => ACKNOWLEDGE | DRIVER,
        Phase::Configuring => ACKNOWLEDGE | DRIVER | FEATURES_OK,
        Phase::Running => ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK,
    }
}

/// From every state, every write to every offset keeps the rules of 2.1, 3.1.1 and 4.2.2.
#[test]
fn no_write_breaks_the_life_of_a_device() {
    let states = reachable();
    let count = |phase| states.iter().filter(|state| state.phase() == phase).count();
    for phase in [
        Phase::Reset,
        Phase::Negotiating,
        Phase::Configuring,
        Phase::Running,
        Phase::Broken,
        Phase::Failed,
    ] {
        assert!(count(phase) > 0, "{phase:?} is reached");
    }
    for before in &states {
        let phase = before.phase();
        assert_eq!(before.status & at_least(phase), at_least(phase), "{before:?}");
        if matches!(phase, Phase::Configuring | Phase::Running) {
            assert!(before.acceptable(), "{before:?}");
        }
        for at in offsets() {
            // Only what a register may depend on; the status has been written all values above.
            for value in values().filter(|value| at == offset::STATUS || !(0x10..=0x1fd).contains(value)) {
                let (after, action) = step(before, at, value, false);
                check(before, &after, action, at, value);
            }
        }
    }
}

fn check(before: &Registers, after: &Registers, action: Action, at: u64, value: u32) {
    let told = format!("{value:#x} to {at:#x} in {before:?}");
    let (old, new) = (before.phase(), after.phase());
    match action {
        Action::Reset => {
            assert!(at == offset::STATUS && value == 0, "{told}");
            let mut fresh = Registers::new(42, OFFERED, &QUEUES);
            fresh.config_generation = before.config_generation;
            return assert_eq!(*after, fresh, "{told}");
        }
        Action::Activate => assert!(new == Phase::Running && old != Phase::Running, "{told}"),
        Action::Notify(index) => assert!(
            old == Phase::Running
                && before
                    .queues
                    .get(usize::from(index))
                    .is_some_and(|queue| queue.ready),
            "{told}"
        ),
        Action::StopQueue(index) => assert!(
            old == Phase::Running
                && after
                    .queues
                    .get(usize::from(index))
                    .is_some_and(|queue| !queue.ready),
            "{told}"
        ),
        Action::None | Action::Ignored => assert!(new != Phase::Running || old == Phase::Running, "{told}"),
    }
    // Only a reset takes a status back, and out of where nothing goes on.
    assert_eq!(after.status & before.status, before.status, "{told}");
    if matches!(old, Phase::Broken | Phase::Failed) {
        assert!(matches!(new, Phase::Broken | Phase::Failed), "{told}");
        assert!(matches!(action, Action::None | Action::Ignored), "{told}");
    }
    if after.accepted != before.accepted {
        assert_eq!(old, Phase::Negotiating, "{told}");
    }
    for (index, (was, is)) in before.queues.iter().zip(&after.queues).enumerate() {
        assert_eq!(is.max_size, was.max_size, "{told}");
        let ready = is.ready;
        if *is != (QueueRegisters { ready, ..*was }) {
            assert!(old == Phase::Configuring && !was.ready, "{told}");
        }
        if is.ready != was.ready {
            assert_eq!(index as u32, before.queue_sel, "{told}");
            assert!(!is.ready || old == Phase::Configuring, "{told}");
        }
    }
    assert_eq!((after.offered, after.device_type), (OFFERED, 42));
    assert_eq!(after.config_generation, before.config_generation);
}

/// Whatever is selected, a queue that is not there has no size, is never ready, and takes nothing.
#[test]
fn no_selection_reaches_a_queue_that_is_not_there() {
    let mut registers = Registers::new(42, OFFERED, &QUEUES);
    for status in [ACKNOWLEDGE, ACKNOWLEDGE | DRIVER] {
        registers.write(offset::STATUS, status);
    }
    registers.write(offset::DRIVER_FEATURES_SEL, 1);
    registers.write(offset::DRIVER_FEATURES, 1);
    registers.write(offset::STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    assert_eq!(registers.phase(), Phase::Configuring);
    for value in values() {
        registers.write(offset::QUEUE_SEL, value);
        let there = QUEUES.get(value as usize);
        assert_eq!(
            registers.read(offset::QUEUE_NUM_MAX),
            there.map_or(0, |size| u32::from(*size))
        );
        if there.is_none() {
            for at in [offset::QUEUE_NUM, offset::QUEUE_READY, offset::QUEUE_DESC_HIGH] {
                assert_eq!(registers.write(at, 1), Action::Ignored);
            }
            assert_eq!(registers.read(offset::QUEUE_READY), 0);
        }
    }
}

/// No offset can be read that is none, and reading changes nothing (there is no way to: it takes `&self`).
#[test]
fn what_is_no_register_reads_as_zero() {
    let registers = Registers::new(42, OFFERED, &QUEUES);
    for at in offsets().filter(|at| !at.is_multiple_of(4) || *at >= offset::CONFIG) {
        assert_eq!(registers.read(at), 0, "{at:#x}");
    }
}
