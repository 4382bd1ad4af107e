//! What the node lends.

use serde::{Deserialize, Serialize};

/// An amount of everything that is lent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Amounts {
    /// Thousandths of a CPU.
    pub cpu_millis: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Disk space in bytes.
    pub disk_bytes: u64,
}

/// What is lent at most, what is lent now, and why it is not more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Offer {
    /// Whether the configuration lends anything. Where not, microVMs are bounded by the host alone, and there is no
    /// line.
    pub lending: bool,
    /// One line for each of `cpu` (thousandths of a CPU), `memory` and `disk` (bytes).
    pub lines: Vec<OfferLine>,
    /// How far the owner is taking the machine back.
    pub ladder: LadderView,
    /// For how many seconds the owner's use was measured, within the window.
    pub measured_s: u64,
    /// Why the owner's use cannot be measured, where it cannot.
    pub problem: Option<String>,
    /// Where this node is, and what it may hold.
    #[serde(default)]
    pub labels: Labels,
}

/// Where a node is, and what it may hold, as its configuration says. Each value is one that Kubernetes takes for a label's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Labels {
    /// Two capital letters, ISO 3166-1.
    pub country: Option<String>,
    /// The region that runs the pool.
    pub region: Option<String>,
    /// The building.
    pub site: Option<String>,
    /// The most sensitive data that may be processed here.
    pub data_class: Option<String>,
}

/// The offer of one resource, with everything that it was computed from:
/// `offered = min(schedule, cap, capacity - reserve - owner - margin)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OfferLine {
    /// `cpu`, `memory` or `disk`.
    pub resource: String,
    /// Lent at most.
    pub offered: u64,
    /// Lent now.
    pub lent: u64,
    /// The rule that binds: `reclaimed`, `not_measured`, `schedule`, `cap` or `spare`.
    pub rule: String,
    /// What the machine has.
    pub capacity: u64,
    /// What stays the owner's, by the policy.
    pub reserve: u64,
    /// What the owner uses.
    pub owner: u64,
    /// What is kept free beyond that.
    pub margin: u64,
    /// What the schedule allows now, where it limits.
    pub schedule: Option<u64>,
    /// What the policy's cap allows, where there is one.
    pub cap: Option<u64>,
}

/// How far the owner is taking the machine back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LadderView {
    /// `open`, `closed`, `squeeze`, `pause`, `shutdown` or `kill`.
    pub rung: String,
    /// Who ordered everything back, where somebody did: `owner` or `schedule`.
    pub ordered_by: Option<String>,
    /// How scarce things are for the owner: `calm`, `tight`, `starved`, `scarce` or `critical`.
    pub scarcity: String,
}

/// The owner wants the machine back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReclaimRequest {
    /// All is to be free after so many seconds, 1 to 3600; what the policy says where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_s: Option<u32>,
}

/// How a reclaim went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reclaimed {
    /// Milliseconds until the last microVM was gone, or until now.
    pub took_ms: u64,
    /// The deadline, in milliseconds.
    pub deadline_ms: u64,
    /// microVMs that ran when it was ordered.
    pub ended: u32,
    /// Names of those that are still there.
    pub left: Vec<String>,
}
