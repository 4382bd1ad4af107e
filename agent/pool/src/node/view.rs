//! What the agent says, and for how long it has said nothing: pure.

use secovia_agent_api::{Amounts, Health, Offer, OfferLine};

/// An agent may be silent for so long, as it is while it is upgraded, before that says anything.
pub const SILENCE_MS: u64 = 20_000;

/// What one look at the agent showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// What it says of itself.
    pub health: Health,
    /// What it lends.
    pub offer: Offer,
}

/// The last that is known of the agent.
#[derive(Debug, Clone, Default)]
pub struct View {
    last: Option<Look>,
    heard_ms: u64,
}

/// What can be said of the agent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen<'a> {
    /// Nothing, or nothing any more.
    Silent,
    /// This.
    Speaks(&'a Look),
}

impl View {
    /// The agent answered.
    pub fn heard(&mut self, now_ms: u64, look: Look) {
        self.last = Some(look);
        self.heard_ms = now_ms;
    }

    /// What can be said now. A short silence changes nothing.
    pub fn seen(&self, now_ms: u64) -> Seen<'_> {
        match &self.last {
            Some(look) if now_ms.saturating_sub(self.heard_ms) < SILENCE_MS => Seen::Speaks(look),
            _ => Seen::Silent,
        }
    }
}

/// The line of the offer for `resource`.
pub fn line<'a>(offer: &'a Offer, resource: &str) -> Option<&'a OfferLine> {
    offer.lines.iter().find(|line| line.resource == resource)
}

fn amounts(offer: &Offer, amount: impl Fn(&OfferLine) -> u64) -> Amounts {
    let of = |resource| line(offer, resource).map_or(0, &amount);
    Amounts {
        cpu_millis: of("cpu"),
        memory_bytes: of("memory"),
        disk_bytes: of("disk"),
    }
}

/// What is lent at most.
pub fn offered(offer: &Offer) -> Amounts {
    amounts(offer, |line| line.offered)
}

/// What the machine has.
pub fn capacity(offer: &Offer) -> Amounts {
    amounts(offer, |line| line.capacity)
}

/// The least that a Pod gets which asks for nothing in particular: CPU in thousandths, and memory, with what the agent counts
/// for the microVM beside its guest's.
const LEAST: (u64, u64) = (10, (256 + 64) << 20);

/// Whether one more such Pod would be let in. The scheduler counts nothing for it, and would send one after the other.
pub fn has_room(offer: &Offer) -> bool {
    let free = |resource| line(offer, resource).map_or(0, |line| line.offered.saturating_sub(line.lent));
    free("cpu") >= LEAST.0 && free("memory") >= LEAST.1
}

/// Whether the agent admits nothing: the owner, or the schedule, has the machine, or the owner lacks something.
pub fn is_closed(offer: &Offer) -> bool {
    offer.ladder.ordered_by.is_some() || offer.ladder.rung != "open"
}
