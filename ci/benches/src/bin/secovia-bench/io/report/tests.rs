use super::*;

/// Runs of five rounds of two requests of 10 microseconds. A busy host makes the last round of each run ten times as slow,
/// for all kinds alike, and the others each by 40 nanoseconds a request slower than the one before. The second machine
/// adds -5 to 5 nanoseconds, the others what is given.
fn report(added: &[i64]) -> Report {
    let run = |equal: i64| {
        let round = |added: &i64| {
            [10_000, 10_040, 10_080, 10_120, 100_000]
                .map(|ns| Duration::from_nanos(2 * (ns + added) as u64))
                .to_vec()
        };
        [0, equal].iter().chain(added).map(round).collect()
    };
    let runs: Vec<_> = [0, -5, 5, 2, -2].map(run).into();
    Report::of(&runs, 2).unwrap()
}

#[test]
fn a_cost_counts_beyond_what_equal_rounds_differ_by() {
    let costs = report(&[0]);
    assert_eq!((costs.spread.ns, costs.resolution.ns), (80, 4));
    assert!(report(&[-300]).met);
    assert!(report(&[80]).met);
    assert!(!report(&[81]).met);
    assert!(report(&[0, 80]).met);
    assert!(!report(&[0, 81]).met);
}

#[test]
fn nothing_measured_is_no_report() {
    assert!(Report::of(&[], 2).is_none());
    assert!(Report::of(&[vec![Vec::new(); 3]], 2).is_none());
}

#[test]
fn costs_are_told_beside_the_spread() {
    let text = report(&[50, 200]).table();
    assert!(
        text.starts_with("nanoseconds of processor time, 5 runs of 5 rounds "),
        "{text}"
    );
    assert!(
        text.ends_with(
            "\nadded by filters: +50 ns (+0.50 %); by jail and filters: +200 ns (+1.98 %)\n\
             equal rounds differ by 80 ns (0.79 %), equal machines in the same round by 4 ns (0.04 %)\n\
             goal (no more than equal rounds differ): missed\n"
        ),
        "{text}"
    );
}
