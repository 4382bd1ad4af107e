//! The service: this node's part in its region, for as long as it is in it.
//!
//! Five things go on beside each other, and none waits for another: the Node is kept up to date, its Pods are brought to
//! what the region wants, their logs and figures are given, its lease is renewed, and so are the certificates. A new client certificate needs a new connection, on which all of it begins anew; what is
//! begun anew reads first and writes only what differs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Client as Region;
use secovia_agent_api::client::Client as Agent;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use crate::backoff::{Backoff, chance};
use crate::certificate::{Purpose, validity};
use crate::error::PoolError;
use crate::home::{Home, Membership};
use crate::kubelet::Kubelet;
use crate::node::host::machine;
use crate::node::keeper::Keeper;
use crate::node::lease;
use crate::pods::Pods;
use crate::region::{Who, connect};
use crate::signing::sign;

/// How often is looked whether a certificate is due.
const LOOK: Duration = Duration::from_secs(60);

/// For how long one request for a certificate is waited for; then another is made.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// Works until the node has left the pool.
pub async fn serve(home: &Home, agent: &Agent) -> Result<(), PoolError> {
    // Once it has seen its Pods, the node looks after them until this process ends, on whichever connection.
    let (seen, has_seen) = watch::channel(false);
    loop {
        let membership = home.membership()?;
        let certificate = Who::Certificate(home.pem(Purpose::Client));
        let region = connect(&membership.server, home.ca(), certificate)?;
        let machine = machine(&membership.node, membership.address, membership.port);
        log::info!("node `{}` of {}", membership.node, membership.server);
        let keeper = Keeper::new(
            agent.clone(),
            region.clone(),
            home.clone(),
            machine,
            has_seen.clone(),
        );
        let pods = Pods {
            agent: agent.clone(),
            region: region.clone(),
            node: membership.node.clone(),
            address: membership.address,
            cache: home.images(),
        };
        let renewed = Arc::new(Notify::new());
        let kubelet = Kubelet {
            agent: agent.clone(),
            region: region.clone(),
            home: home.clone(),
            node: membership.node.clone(),
            address: SocketAddr::new(membership.address, membership.port),
            renewed: renewed.clone(),
        };
        tokio::select! {
            () = pods.keep(&seen) => {}
            () = kubelet.serve() => {}
            () = keeper.keep() => {
                log::info!("node `{}` has left {}", membership.node, membership.server);
                return Ok(());
            }
            () = lease::keep(region.clone(), membership.node.clone()) => {}
            () = renew(home, &region, &membership, Purpose::Client) => {
                log::info!("node `{}` has a new certificate", membership.node);
            }
            () = async {
                loop {
                    renew(home, &region, &membership, Purpose::Serving).await;
                    renewed.notify_one();
                }
            } => {}
        }
    }
}

/// How it stands with a certificate.
enum Due {
    /// There is a new one.
    Renewed,
    /// The one that is there is renewed after this time.
    In(Duration),
}

/// Waits until the certificate for this purpose is due, or missing, and returns when there is a new one.
async fn renew(home: &Home, region: &Region, membership: &Membership, purpose: Purpose) {
    let mut backoff = Backoff::new(Duration::from_secs(5), LOOK);
    let before = home.read_pem(purpose).unwrap_or_default();
    // Once for each certificate, or it would be due at every look a little more.
    let chance_once = chance();
    loop {
        match renew_once(
            home,
            region,
            membership,
            (purpose, before.as_deref()),
            chance_once,
        )
        .await
        {
            Ok(Due::Renewed) => return,
            Ok(Due::In(wait)) => sleep(wait.min(LOOK)).await,
            Err(error) => {
                log::warn!("{error}");
                sleep(backoff.failed(chance())).await;
            }
        }
    }
}

async fn renew_once(
    home: &Home,
    region: &Region,
    membership: &Membership,
    (purpose, before): (Purpose, Option<&[u8]>),
    chance: u32,
) -> Result<Due, PoolError> {
    let now_s = Timestamp::now().as_second();
    if let Some(pem) = home.read_pem(purpose)? {
        // Whoever joined again brought one.
        if before.is_some_and(|before| before != pem) {
            return Ok(Due::Renewed);
        }
        let left_s = validity(&pem)?.renew_at_s(chance).saturating_sub(now_s);
        if let Ok(left_s @ 1..) = u64::try_from(left_s) {
            return Ok(Due::In(Duration::from_secs(left_s)));
        }
    }
    let identity = (membership.node.as_str(), membership.address);
    let tell = |request: &str| log::info!("asked for a certificate ({}): `{request}`", purpose.signer());
    let pem = sign(region, purpose, identity, PATIENCE, tell).await?;
    home.write_pem(purpose, pem.as_bytes())?;
    Ok(Due::Renewed)
}
