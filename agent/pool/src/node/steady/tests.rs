use proptest::prelude::*;

use super::*;

fn cpu(millis: u64) -> Amounts {
    Amounts {
        cpu_millis: millis,
        ..Amounts::default()
    }
}

/// What an open node shows of CPU, looked at each second.
fn shown(steady: &mut Steady, from_s: u64, offered: &[u64]) -> Vec<u64> {
    let look = |(at, &millis): (usize, &u64)| {
        steady.look((from_s + at as u64) * 1_000, cpu(millis), false);
        steady.shown().cpu_millis
    };
    offered.iter().enumerate().map(look).collect()
}

#[test]
fn less_is_shown_at_once_and_more_only_when_it_lasts() {
    let mut steady = Steady::default();
    assert_eq!(
        shown(&mut steady, 0, &[4_000, 1_000, 3_000]),
        [4_000, 1_000, 1_000]
    );
    // A dip on the way: what is shown then is the least that was there all the time.
    let rise: Vec<u64> = (0..70).map(|at| if at == 30 { 2_000 } else { 3_000 }).collect();
    let seen = shown(&mut steady, 3, &rise);
    assert_eq!((seen[58], seen[60]), (1_000, 2_000));
}

#[test]
fn the_first_look_and_one_after_a_reclaim_wait_for_nothing() {
    let mut steady = Steady::default();
    assert_eq!(steady.look(0, cpu(4_000), false), Some(cpu(4_000)));
    assert_eq!(steady.look(1_000, cpu(0), true), Some(cpu(0)));
    assert_eq!(steady.look(2_000, cpu(0), true), None);
    assert_eq!(steady.look(3_000, cpu(0), false), Some(cpu(0)));
    // The offer may come a moment after the order is lifted: it is a rise like any other then.
    assert_eq!(steady.look(4_000, cpu(4_000), false), None);
}

proptest! {
    /// For any course of the offer: what is shown is never more than what is there, but for a small part and a short time;
    /// more is shown only when it was there all the time; what hardly matters is written seldom.
    #[test]
    fn what_is_shown_follows_the_offer_safely(
        steps in prop::collection::vec((1_u64..20_000, 0_u64..5_000, prop::bool::weighted(0.1)), 1..300),
    ) {
        let mut steady = Steady::default();
        let mut now_ms = 0;
        let mut past: Vec<(u64, u64, bool)> = Vec::new();
        let mut written_ms = None;
        for (pause_ms, offered, closed) in steps {
            now_ms += pause_ms;
            let before = steady.shown().cpu_millis;
            let written = steady.look(now_ms, cpu(offered), closed).is_some();
            let after = steady.shown().cpu_millis;
            let turned = past.last().is_none_or(|last| last.2 != closed);
            past.push((now_ms, offered, closed));
            prop_assert!(after <= offered + after / SLACK, "{after} of {offered}");
            if after > offered {
                prop_assert!(now_ms - written_ms.unwrap_or(0) < QUIET_MS);
            }
            if after > before && !closed && !turned {
                let lasted = past.iter().rev().take_while(|past| past.0 + HOLD_MS > now_ms).all(|past| past.1 >= after);
                prop_assert!(lasted, "{after} at {now_ms}");
            }
            if written && !turned && after + before / SLACK >= before && after != 0 {
                prop_assert!(written_ms.is_none_or(|then| now_ms - then >= QUIET_MS));
            }
            if written {
                written_ms = Some(now_ms);
            }
        }
    }
}
