//! `status`: what this node is in its region, as the region sees it.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use serde::Serialize;

use crate::certificate::{Purpose, validity};
use crate::error::PoolError;
use crate::home::{Home, Membership};
use crate::node::cordon::Standing;
use crate::node::lease::NAMESPACE;
use crate::region::{Who, ask, connect};

/// How things stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The API server.
    pub server: String,
    /// The node's name there.
    pub node: String,
    /// Whether it is on its way out.
    pub leaving: bool,
    /// When the client certificate ends, in seconds of Unix time.
    pub client_until_s: Option<i64>,
    /// When the serving certificate ends; none as long as the region has not approved one.
    pub serving_until_s: Option<i64>,
    /// The node as the region sees it.
    pub region: Option<Seen>,
    /// Why nothing is known of that.
    pub problem: Option<String>,
}

/// The node as the region sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Whether it is ready, or why not.
    pub ready: bool,
    /// The reason and the message of that.
    pub reason: String,
    /// Whether it takes Pods.
    pub schedulable: bool,
    /// What Pods may take, in Kubernetes' amounts.
    pub allocatable: std::collections::BTreeMap<String, String>,
    /// How many seconds ago it was last heard of.
    pub silent_s: Option<i64>,
}

/// Looks.
pub async fn status(home: &Home) -> Result<Status, PoolError> {
    let membership = home.membership()?;
    let until = |purpose| {
        let pem = home.read_pem(purpose)?;
        pem.map(|pem| validity(&pem).map(|validity| validity.until_s))
            .transpose()
    };
    let (region, problem) = match look(home, &membership).await {
        Ok(seen) => (Some(seen), None),
        Err(error) => (None, Some(error.to_string())),
    };
    Ok(Status {
        client_until_s: until(Purpose::Client)?,
        serving_until_s: until(Purpose::Serving)?,
        server: membership.server,
        node: membership.node,
        leaving: membership.leaving,
        region,
        problem,
    })
}

async fn look(home: &Home, membership: &Membership) -> Result<Seen, PoolError> {
    let certificate = Who::Certificate(home.pem(Purpose::Client));
    let client = connect(&membership.server, home.ca(), certificate)?;
    let name = &membership.node;
    let nodes: Api<Node> = Api::all(client.clone());
    let leases: Api<Lease> = Api::namespaced(client, NAMESPACE);
    let node = ask(&format!("look at node `{name}`"), nodes.get(name)).await?;
    let lease = ask(
        &format!("look at the lease of node `{name}`"),
        leases.get_opt(name),
    )
    .await?;
    let renewed = lease.and_then(|lease| lease.spec?.renew_time);
    Ok(seen(&node, renewed.map(|time| time.0), Timestamp::now()))
}

fn seen(node: &Node, renewed: Option<Timestamp>, now: Timestamp) -> Seen {
    let status = node.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
    let said = |text: &Option<String>| text.clone().unwrap_or_default();
    Seen {
        ready: ready.is_some_and(|ready| ready.status == "True"),
        reason: ready.map_or("it has not said yet".into(), |ready| {
            format!("{}: {}", said(&ready.reason), said(&ready.message))
        }),
        schedulable: !Standing::of(node).unschedulable,
        allocatable: status
            .allocatable
            .unwrap_or_default()
            .into_iter()
            .map(|(resource, amount)| (resource, amount.0))
            .collect(),
        silent_s: renewed.map(|renewed| now.as_second() - renewed.as_second()),
    }
}

/// For a person.
pub fn described(status: &Status) -> String {
    let time = |second: Option<i64>| {
        let time = second.and_then(|second| Timestamp::from_second(second).ok());
        time.map_or("none yet".into(), |time| time.to_string())
    };
    let mut lines = vec![
        ("node", status.node.clone()),
        ("server", status.server.clone()),
        ("certificate until", time(status.client_until_s)),
        ("serving until", time(status.serving_until_s)),
    ];
    if let Some(seen) = &status.region {
        let ready = if seen.ready { "yes" } else { "no" };
        let amounts = seen
            .allocatable
            .iter()
            .map(|(key, value)| format!("{key} {value}"));
        lines.push(("ready", format!("{ready}, {}", seen.reason)));
        lines.push(("takes Pods", if seen.schedulable { "yes" } else { "no" }.into()));
        lines.push(("lends", amounts.collect::<Vec<_>>().join(", ")));
        lines.push((
            "heard of",
            seen.silent_s.map_or("never".into(), |s| format!("{s} s ago")),
        ));
    }
    if let Some(problem) = &status.problem {
        lines.push(("problem", problem.clone()));
    }
    if status.leaving {
        lines.push(("leaving", "yes; go on with: secovia pool leave".into()));
    }
    let line = |(key, value): (&str, String)| format!("{key:<18}{}\n", crate::plain(&value));
    lines.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_region_is_told_from_what_this_node_knows_itself() {
        let node = serde_json::from_value(json!({
            "metadata": {"name": "town"},
            "spec": {"unschedulable": true},
            "status": {
                "allocatable": {"cpu": "2"},
                "conditions": [{"type": "Ready", "status": "False", "reason": "NothingLent", "message": "no\u{1b}[reserve]"}],
            },
        }))
        .unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut status = Status {
            server: "https://r".into(),
            node: "town".into(),
            leaving: false,
            client_until_s: Some(0),
            serving_until_s: None,
            region: Some(seen(&node, Some(at(10)), at(17))),
            problem: None,
        };
        let text = described(&status);
        for line in [
            "certificate until 1970-01-01T00:00:00Z",
            "serving until     none yet",
            "ready             no, NothingLent: no?[reserve]",
            "takes Pods        no",
            "lends             cpu 2",
            "heard of          7 s ago",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line}: {text}");
        }
        status.region = None;
        status.problem = Some("not there".into());
        assert!(described(&status).contains("problem           not there"));
    }
}
