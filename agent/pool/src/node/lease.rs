//! Says that this node is alive: a lease that is renewed every ten seconds, whatever else goes wrong.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::sleep;

use crate::backoff::{Backoff, chance};
use crate::error::PoolError;
use crate::region::ask;

/// Where all nodes' leases are.
pub const NAMESPACE: &str = "kube-node-lease";

/// How often it is renewed.
const EVERY: Duration = Duration::from_secs(10);

/// For how long it holds, as a kubelet's does.
const HOLDS_S: i32 = 40;

/// Renews the lease of `node` for ever. What fails is tried again sooner than the next is due, so that one answer that was
/// lost does not cost the node its life.
pub async fn keep(client: Client, node: String) {
    let nodes: Api<Node> = Api::all(client.clone());
    let leases: Api<Lease> = Api::namespaced(client, NAMESPACE);
    let mut backoff = Backoff::new(Duration::from_secs(1), EVERY);
    loop {
        let wait = match renew(&leases, &nodes, &node).await {
            Ok(()) => {
                backoff.succeeded();
                EVERY
            }
            Err(error) => {
                // The first may come before the Node is registered.
                if backoff.failures() == 1 {
                    log::warn!("{error}");
                }
                backoff.failed(chance())
            }
        };
        sleep(wait).await;
    }
}

async fn renew(leases: &Api<Lease>, nodes: &Api<Node>, node: &str) -> Result<(), PoolError> {
    let operation = format!("renew the lease of node `{node}`");
    let now = MicroTime(Timestamp::now());
    let patch = Patch::Merge(json!({"spec": {"renewTime": now, "holderIdentity": node}}));
    let renewed = ask(&operation, leases.patch(node, &PatchParams::default(), &patch)).await;
    match renewed {
        Err(error) if error.code() == Some(404) => {}
        renewed => return renewed.map(drop),
    }
    // It belongs to the Node, and goes with it.
    let owner = ask(&operation, nodes.get(node)).await?;
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(node.into()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: node.into(),
                uid: owner.metadata.uid.unwrap_or_default(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.into()),
            lease_duration_seconds: Some(HOLDS_S),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    ask(&operation, leases.create(&PostParams::default(), &lease))
        .await
        .map(drop)
}
