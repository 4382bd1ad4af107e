//! What the node says of its state: pure. Readiness is earned: it needs an agent that answers, is well, and has measured
//! what it lends.

#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::NodeCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use secovia_agent_api::{HealthStatus, Offer};

use super::view::{Look, Seen, line};

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `Ready` and the like, in Kubernetes' words.
    pub kind: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, for a person.
    pub message: String,
}

/// All conditions that are this node's to say. `pods_seen`: what the region wants here and what is here were compared.
pub fn conditions(seen: Seen<'_>, pods_seen: bool) -> Vec<Condition> {
    let offer = match seen {
        Seen::Silent => None,
        Seen::Speaks(look) => Some(&look.offer),
    };
    vec![ready(seen, pods_seen), memory(offer), disk(offer), processes()]
}

fn condition(kind: &'static str, holds: bool, reason: &'static str, message: impl Into<String>) -> Condition {
    Condition {
        kind,
        holds,
        reason,
        message: message.into(),
    }
}

fn ready(seen: Seen<'_>, pods_seen: bool) -> Condition {
    let not = |reason, message: String| condition("Ready", false, reason, message);
    let Seen::Speaks(Look { health, offer }) = seen else {
        return not(
            "AgentSilent",
            "secovia-agent does not answer; its microVMs run on".into(),
        );
    };
    if health.status == HealthStatus::Starting {
        return not("AgentStarting", "secovia-agent is reading its records".into());
    }
    if !offer.lending {
        return not(
            "NothingLent",
            "the owner lends nothing: agent.toml has no section [reserve]".into(),
        );
    }
    if let Some(problem) = &offer.problem {
        return not(
            "NotMeasured",
            format!("the owner's use cannot be measured: {problem}"),
        );
    }
    if offer.lines.iter().any(|line| line.rule == "not_measured") {
        return not(
            "NotMeasured",
            format!(
                "the owner's use was measured for {} s, which is too little yet",
                offer.measured_s
            ),
        );
    }
    if !pods_seen {
        return not(
            "PodsUnknown",
            "the Pods that are bound to this node were not listed yet".into(),
        );
    }
    let message = match health.status {
        HealthStatus::Degraded => health.problems.join("; "),
        _ => "secovia-agent is well".into(),
    };
    condition("Ready", true, "AgentReady", message)
}

fn memory(offer: Option<&Offer>) -> Condition {
    let kind = "MemoryPressure";
    match offer {
        Some(offer) if ["scarce", "critical"].contains(&offer.ladder.scarcity.as_str()) => {
            condition(kind, true, "OwnerNeedsMemory", "the owner's memory runs short")
        }
        Some(_) => condition(
            kind,
            false,
            "OwnerHasMemory",
            "the owner has the memory that he needs",
        ),
        None => condition(kind, false, "Unknown", "nothing is known of it"),
    }
}

fn disk(offer: Option<&Offer>) -> Condition {
    let kind = "DiskPressure";
    match offer.and_then(|offer| line(offer, "disk")) {
        Some(line) if line.offered == 0 && line.rule == "spare" => condition(
            kind,
            true,
            "NoDiskSpare",
            "beside the owner's files no disk space is left",
        ),
        Some(_) => condition(kind, false, "DiskSpare", "disk space is left"),
        None => condition(kind, false, "Unknown", "nothing is known of it"),
    }
}

fn processes() -> Condition {
    let message = "a microVM's processes are its own";
    condition("PIDPressure", false, "MicroVMs", message)
}

/// The conditions as the API has them. Since when each is as it is, is known from `before`, which is what the API server
/// had last, in whatever order.
pub fn stamped(conditions: &[Condition], before: &[NodeCondition], now: Timestamp) -> Vec<NodeCondition> {
    let stamp = |condition: &Condition| {
        let status = if condition.holds { "True" } else { "False" };
        let same = before
            .iter()
            .find(|before| before.type_ == condition.kind && before.status == status);
        let since = same.and_then(|same| same.last_transition_time.clone());
        NodeCondition {
            type_: condition.kind.into(),
            status: status.into(),
            reason: Some(condition.reason.into()),
            message: Some(condition.message.clone()),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: Some(since.unwrap_or(Time(now))),
        }
    };
    conditions.iter().map(stamp).collect()
}
