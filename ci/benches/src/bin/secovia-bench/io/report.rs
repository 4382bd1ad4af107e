//! What filters and jail add to a request, beside what equal machines differ by.

use std::time::Duration;

use serde::Serialize;

use crate::stats::{quarters, signed_ns};

/// Times of the rounds of one machine of each kind: without filters, without filters again, with all, and in a jail
/// where there is one.
pub(super) type Run = Vec<Vec<Duration>>;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    runs: usize,
    rounds_per_run: usize,
    requests_per_round: u32,
    /// No filters of system calls, no Landlock, no jail.
    bare: Request,
    /// All filters, no jail.
    filtered: Request,
    /// All filters, in a jail; only root can have one.
    jailed: Option<Request>,
    /// How far equal rounds lie apart: those of both machines without filters, between their quarters.
    spread: Cost,
    /// How far equal machines lie apart where each round is held against the other's same round, between the quarters
    /// too: a cost above it is real, be it above the spread or not.
    resolution: Cost,
    filters: Cost,
    jail_and_filters: Option<Cost>,
    /// No cost is more than the spread.
    pub(super) met: bool,
}

/// Processor time of one request, over all rounds.
#[derive(Debug, Clone, Copy, Serialize)]
struct Request {
    min_ns: i64,
    median_ns: i64,
    max_ns: i64,
}

/// Processor time that is added to one request.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Cost {
    ns: i64,
    /// Of a request without filters.
    percent: f64,
}

impl Report {
    /// `None` where nothing was measured.
    pub(super) fn of(runs: &[Run], requests: u32) -> Option<Self> {
        let per_request = |ns: i64| ns / i64::from(requests.max(1));
        let request = |kind: usize| {
            let rounds = runs.iter().filter_map(|run| run.get(kind)).flatten();
            let [min, _, median, _, max] = quarters(rounds.map(signed_ns).collect())?.map(per_request);
            Some(Request {
                min_ns: min,
                median_ns: median,
                max_ns: max,
            })
        };
        let bare = request(0)?;
        let cost = |ns: i64| Cost {
            ns,
            percent: (ns as f64 * 1e4 / bare.median_ns.max(1) as f64).round() / 100.0,
        };
        let added = |kind: usize| {
            let added = runs.iter().filter_map(|run| added(run, kind)).map(per_request);
            quarters(added.collect())
        };
        let between = |[_, lower, _, upper, _]: [i64; 5]| cost(upper - lower);
        let equal = runs.iter().flat_map(|run| run.iter().take(2)).flatten();
        let spread = between(quarters(equal.map(signed_ns).map(per_request).collect())?);
        let filters = cost(added(2)?[2]);
        let jail_and_filters = added(3).map(|added| cost(added[2]));
        let hidden = |cost: &Cost| cost.ns <= spread.ns;
        Some(Self {
            runs: runs.len(),
            rounds_per_run: runs.first()?.first()?.len(),
            requests_per_round: requests,
            bare,
            filtered: request(2)?,
            jailed: request(3),
            spread,
            resolution: between(added(1)?),
            filters,
            jail_and_filters,
            met: hidden(&filters) && jail_and_filters.as_ref().is_none_or(hidden),
        })
    }

    pub(super) fn table(&self) -> String {
        let title = format!(
            "nanoseconds of processor time, {} runs of {} rounds",
            self.runs, self.rounds_per_run
        );
        let mut text = format!("{title:<56} {:>8} {:>8} {:>8}\n", "min", "median", "max");
        let requests = [
            ("disk request without filters", Some(&self.bare)),
            ("disk request with all filters", Some(&self.filtered)),
            ("disk request with all filters, in a jail", self.jailed.as_ref()),
        ];
        for (label, request) in requests {
            if let Some(Request {
                min_ns,
                median_ns,
                max_ns,
            }) = request
            {
                text += &format!("{label:<56} {min_ns:>8} {median_ns:>8} {max_ns:>8}\n");
            }
        }
        text += &format!(
            "added by filters: {:+} ns ({:+.2} %)",
            self.filters.ns, self.filters.percent
        );
        if let Some(cost) = self.jail_and_filters {
            text += &format!("; by jail and filters: {:+} ns ({:+.2} %)", cost.ns, cost.percent);
        }
        text + &format!(
            "\nequal rounds differ by {} ns ({:.2} %), equal machines in the same round by {} ns ({:.2} %)\n\
             goal (no more than equal rounds differ): {}\n",
            self.spread.ns,
            self.spread.percent,
            self.resolution.ns,
            self.resolution.percent,
            if self.met { "met" } else { "missed" }
        )
    }
}

/// What a kind of machine takes more than one without filters, for a round: the median over the rounds of one run.
fn added(run: &Run, kind: usize) -> Option<i64> {
    let pairs = run.get(kind)?.iter().zip(run.first()?);
    let differences = pairs.map(|(time, bare)| signed_ns(time) - signed_ns(bare));
    Some(quarters(differences.collect())?[2])
}

#[cfg(test)]
mod tests;
