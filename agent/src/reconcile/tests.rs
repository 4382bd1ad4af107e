use super::*;
use crate::lifecycle::{Cause, Failure, Outcome};

fn id(number: u64) -> VmId {
    format!("{number:016x}").parse().unwrap()
}

fn vmm(number: u64, pid: u32) -> Found {
    let uid = uid(number);
    Found { uid, pid }
}

fn uid(number: u64) -> u32 {
    900_000 + number as u32
}

fn recorded(number: u64, life: &Life) -> Recorded<'_> {
    Recorded {
        id: id(number),
        uid: uid(number),
        life,
    }
}

fn life(state: State, policy: RestartPolicy, auto_remove: bool) -> Life {
    Life {
        state,
        ..Life::new(policy, auto_remove)
    }
}

fn states() -> Vec<State> {
    vec![
        State::Created,
        State::Starting,
        State::Running,
        State::Stopping {
            cause: Cause::Request,
            outcome: None,
            deadline_ms: 0,
        },
        State::Exited { code: 0 },
        State::Failed(Failure::new("x")),
        State::BackOff {
            until_ms: 0,
            last: Outcome::Exited(1),
        },
    ]
}

#[test]
fn a_record_and_its_vmm() {
    let lives: Vec<Life> = states()
        .into_iter()
        .map(|state| life(state, RestartPolicy::No, false))
        .collect();
    let one = id(1);
    let alone = [
        Step::Keep(one),
        Step::Lost(one),
        Step::Lost(one),
        Step::Lost(one),
        Step::Keep(one),
        Step::Keep(one),
        Step::Keep(one),
    ];
    for (life, expected) in lives.iter().zip(alone) {
        assert_eq!(
            plan(&[recorded(1, life)], &Observed::default()),
            [expected],
            "{life:?}"
        );
    }
    let observed = Observed {
        vmms: vec![vmm(1, 10)],
        runtimes: vec![one],
        states: vec![one],
        cgroups: vec![one],
    };
    let end = [
        Step::End(vmm(1, 10)),
        Step::ClearRuntime(one),
        Step::ClearCgroup(one),
        Step::Keep(one),
    ];
    let adopt = [Step::Adopt(one, vmm(1, 10))];
    let with_vmm: [&[Step]; 7] = [&end, &adopt, &adopt, &adopt, &end, &end, &end];
    for (life, expected) in lives.iter().zip(with_vmm) {
        assert_eq!(plan(&[recorded(1, life)], &observed), expected, "{life:?}");
    }
}

#[test]
fn what_no_record_stands_for_goes_vmms_first() {
    let observed = Observed {
        vmms: vec![vmm(1, 10), vmm(2, 20)],
        runtimes: vec![id(1), id(2), id(3)],
        states: vec![id(2), id(4)],
        cgroups: vec![id(2), id(5)],
    };
    let running = life(State::Running, RestartPolicy::No, false);
    assert_eq!(
        plan(&[recorded(1, &running)], &observed),
        [
            Step::End(vmm(2, 20)),
            Step::ClearRuntime(id(2)),
            Step::ClearRuntime(id(3)),
            Step::ClearCgroup(id(2)),
            Step::ClearCgroup(id(5)),
            Step::ClearState(id(2)),
            Step::ClearState(id(4)),
            Step::Adopt(id(1), vmm(1, 10)),
        ]
    );
}

#[test]
fn of_two_vmms_for_one_record_the_first_stays() {
    let running = life(State::Running, RestartPolicy::No, false);
    let observed = Observed {
        vmms: vec![vmm(1, 20), vmm(1, 10), vmm(1, 20)],
        ..Observed::default()
    };
    assert_eq!(
        plan(&[recorded(1, &running)], &observed),
        [Step::End(vmm(1, 10)), Step::Adopt(id(1), vmm(1, 20))]
    );
}

#[test]
fn the_policies_have_their_say() {
    let ended = life(State::Exited { code: 0 }, RestartPolicy::Always, false);
    assert_eq!(
        plan(&[recorded(1, &ended)], &Observed::default()),
        [Step::Start(id(1))]
    );
    let never_started = life(State::Created, RestartPolicy::Always, false);
    assert_eq!(
        plan(&[recorded(1, &never_started)], &Observed::default()),
        [Step::Keep(id(1))]
    );
    let leftover = life(State::Exited { code: 0 }, RestartPolicy::No, true);
    assert_eq!(
        plan(&[recorded(1, &leftover)], &Observed::default()),
        [Step::Remove(id(1))]
    );
}

/// Whatever is found: every VMM is either adopted once or ended, every record has one verdict.
#[test]
fn nothing_is_left_over() {
    let lives: Vec<Life> = states()
        .into_iter()
        .flat_map(|state| {
            [
                life(state.clone(), RestartPolicy::No, true),
                life(state, RestartPolicy::Always, false),
            ]
        })
        .collect();
    let records: Vec<Recorded<'_>> = lives
        .iter()
        .enumerate()
        .map(|(n, life)| recorded(n as u64, life))
        .collect();
    let vmms: Vec<Found> = (0..30).map(|n| vmm(n % 20, 100 + n as u32)).collect();
    let observed = Observed {
        vmms: vmms.clone(),
        ..Observed::default()
    };
    let steps = plan(&records, &observed);
    for vmm in &vmms {
        let times = steps
            .iter()
            .filter(|step| matches!(step, Step::End(v) | Step::Adopt(_, v) if v == vmm))
            .count();
        assert_eq!(times, 1, "{vmm:?}");
    }
    let verdicts = steps.iter().filter(|step| !matches!(step, Step::End(_))).count();
    assert_eq!(verdicts, records.len());
}
