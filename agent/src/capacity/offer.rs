//! How much is lent at most, and which rule says so.

#[cfg(test)]
mod tests;

use super::policy::Lending;
use super::resources::{Amounts, Each, Resource};
use super::usage::Usage;

/// What decides the offer.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// What the machine has.
    pub capacity: Amounts,
    /// What the owner used of late.
    pub usage: &'a Usage,
    /// What the owner allows.
    pub lending: &'a Lending,
    /// Unix time in milliseconds.
    pub now_ms: u64,
    /// The owner wants the machine for itself.
    pub reclaimed: bool,
}

/// Why no more is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The owner has taken the machine back.
    Reclaimed,
    /// No or too little use was measured yet.
    NotMeasured,
    /// The schedule allows no more at this time.
    Schedule,
    /// The cap allows no more.
    Cap,
    /// There is no more: capacity, less reservation, less the owner's use, less the margin.
    Spare,
}

impl Rule {
    /// In one word, stable.
    pub fn word(self) -> &'static str {
        match self {
            Self::Reclaimed => "reclaimed",
            Self::NotMeasured => "not_measured",
            Self::Schedule => "schedule",
            Self::Cap => "cap",
            Self::Spare => "spare",
        }
    }
}

/// The offer of one resource, with everything that it was computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Lent at most.
    pub offered: u64,
    /// The rule that says so; where several do, the first of [`Rule`]'s order.
    pub rule: Rule,
    /// What the machine has.
    pub capacity: u64,
    /// What stays the owner's.
    pub reserve: u64,
    /// What the owner uses.
    pub owner: u64,
    /// What is kept free beyond that.
    pub margin: u64,
    /// What the schedule allows now; none where it allows anything.
    pub schedule: Option<u64>,
    /// What the cap allows; none where there is none.
    pub cap: Option<u64>,
}

/// The offer.
pub type Offer = Each<Line>;

impl Offer {
    /// The amounts alone.
    pub fn amounts(&self) -> Amounts {
        Each::from_fn(|resource| self.get(resource).offered)
    }
}

/// `min(schedule cap, hard cap, capacity - reservation - owner's recent p95 - safety margin)` for each resource.
///
/// Memory and disk space that the owner uses now count in full where they exceed the percentile: unlike CPU time, what
/// was lent of them cannot be taken back by weight.
pub fn offer(inputs: &Inputs<'_>) -> Offer {
    let scheduled = inputs.lending.schedule.cap(inputs.now_ms);
    let measured = inputs
        .usage
        .p95()
        .filter(|_| inputs.usage.observed_ms() >= inputs.lending.measure.warm_up_ms);
    Each::from_fn(|resource| line(inputs, resource, *scheduled.get(resource), measured))
}

fn line(inputs: &Inputs<'_>, resource: Resource, scheduled: u64, measured: Option<Amounts>) -> Line {
    let capacity = *inputs.capacity.get(resource);
    let reserve = *inputs.lending.reserve.get(resource);
    let cap = *inputs.lending.cap.get(resource);
    let margin = percent(capacity, inputs.lending.measure.margin_percent);
    let recent = measured.map_or(0, |p95| *p95.get(resource));
    let now = inputs.usage.last().map_or(0, |last| *last.get(resource));
    let owner = match resource {
        Resource::Cpu => recent,
        Resource::Memory | Resource::Disk => recent.max(now),
    };
    let spare = capacity
        .saturating_sub(reserve)
        .saturating_sub(owner)
        .saturating_sub(margin);
    let (offered, rule) = [
        inputs.reclaimed.then_some((0, Rule::Reclaimed)),
        measured.is_none().then_some((0, Rule::NotMeasured)),
        Some((scheduled, Rule::Schedule)),
        Some((cap, Rule::Cap)),
        Some((spare, Rule::Spare)),
    ]
    .into_iter()
    .flatten()
    // The first of equals.
    .min_by_key(|(amount, _)| *amount)
    .unwrap_or((0, Rule::Spare));
    let limit = |amount: u64| (amount != u64::MAX).then_some(amount);
    Line {
        offered,
        rule,
        capacity,
        reserve,
        owner,
        margin,
        schedule: limit(scheduled),
        cap: limit(cap),
    }
}

/// Rounded up: a margin is never less than was asked for.
fn percent(amount: u64, percent: u64) -> u64 {
    let part = (u128::from(amount) * u128::from(percent)).div_ceil(100);
    u64::try_from(part).unwrap_or(u64::MAX)
}
