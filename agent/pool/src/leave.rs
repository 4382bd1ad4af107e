//! `leave`: nothing new comes, what is here goes, the Node is deleted, and its keys with it. Each step may be done twice:
//! one that was broken off is gone on with.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep};

use crate::backoff::{Backoff, chance};
use crate::certificate::Purpose;
use crate::error::PoolError;
use crate::home::{Home, Membership};
use crate::node::cordon::{Standing, Why};
use crate::region::{Who, ask, connect};

/// How often is looked whether all Pods are gone.
const POLL: Duration = Duration::from_secs(1);

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// What this node was.
    pub membership: Membership,
    /// Pods that were still here when the time was over, as `namespace/name`.
    pub pods: Vec<String>,
    /// Why the Node object is still there, where it is.
    pub node: Option<String>,
}

/// Leaves. Pods have `patience` to end. With `force` the node leaves also where the region does not answer.
pub async fn leave(home: &Home, patience: Duration, force: bool) -> Result<Left, PoolError> {
    let mut membership = home.membership()?;
    membership.leaving = true;
    home.keep_membership(&membership)?;
    let certificate = Who::Certificate(home.pem(Purpose::Client));
    let (pods, node) = match connect(&membership.server, home.ca(), certificate) {
        Ok(client) => match take_out(&client, &membership.node, patience).await {
            Err(error) if !force => return Err(error),
            Err(error) => (Vec::new(), Some(error.to_string())),
            Ok(left) => left,
        },
        Err(error) if force => (Vec::new(), Some(error.to_string())),
        Err(error) => return Err(error),
    };
    home.forget()?;
    Ok(Left {
        membership,
        pods,
        node,
    })
}

/// Takes the node `node` out of the region: cordons, drains and deletes it. Gives the Pods that were still here when the time
/// was over, and why the Node object is still there, where the region does not let it go.
pub async fn take_out(
    client: &Client,
    node: &str,
    patience: Duration,
) -> Result<(Vec<String>, Option<String>), PoolError> {
    let nodes: Api<Node> = Api::all(client.clone());
    let leaving = Standing {
        unschedulable: true,
        own: Some(Why::Leaving),
    };
    let (params, change) = (PatchParams::default(), Patch::Merge(leaving.patch()));
    let cordon = nodes.patch(node, &params, &change);
    match ask(&format!("cordon node `{node}`"), cordon).await {
        // It never registered, or somebody has deleted it.
        Err(error) if error.code() == Some(404) => return Ok((Vec::new(), None)),
        cordoned => cordoned?,
    };
    let pods = drain(client, node, patience).await?;
    let operation = format!("delete node `{node}`");
    match ask(&operation, nodes.delete(node, &DeleteParams::default())).await {
        Err(error) if error.code() == Some(404) => Ok((pods, None)),
        Err(error) if error.code() == Some(403) => Ok((pods, Some(error.to_string()))),
        Err(error) => Err(error),
        Ok(_) => Ok((pods, None)),
    }
}

/// Evicts all Pods, and waits until they are gone. An eviction that is refused, as it is where a service would be left with
/// too few, is asked for again.
async fn drain(client: &Client, node: &str, patience: Duration) -> Result<Vec<String>, PoolError> {
    let api: Api<Pod> = Api::all(client.clone());
    let here = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let operation = format!("list the Pods of node `{node}`");
    let mut backoff = Backoff::new(POLL, Duration::from_secs(10));
    let begun = Instant::now();
    loop {
        let pods = match ask(&operation, api.list(&here)).await {
            Ok(pods) => pods.items,
            Err(error) if error.is_passing() && begun.elapsed() < patience => {
                sleep(backoff.failed(chance())).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        if pods.is_empty() || begun.elapsed() >= patience {
            return Ok(pods.iter().map(called).collect());
        }
        for pod in pods
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let own: Api<Pod> = Api::namespaced(client.clone(), namespace);
            let operation = format!("evict Pod `{}`", called(pod));
            if let Err(error) = ask(&operation, own.evict(name, &EvictParams::default())).await {
                log::warn!("{error}");
            }
        }
        sleep(POLL).await;
    }
}

fn called(pod: &Pod) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", part(&pod.metadata.namespace), part(&pod.metadata.name))
}
