//! The node's part against a stand-in for the region's API server and one for the agent, on loopback. (The real ones:
//! `ci/pool-demo`.)

mod stand_in;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, KeyPair};
use secovia_pool::certificate::{Purpose, validity};
use secovia_pool::error::PoolError;
use secovia_pool::home::Membership;
use secovia_pool::leave::take_out;
use secovia_pool::node::lease;
use secovia_pool::signing::sign;
use serde_json::json;

use stand_in::{Bed, NODE};
use tokio::sync::watch;

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[tokio::test]
async fn a_node_follows_its_owner() {
    let bed = Bed::new().await;
    let keeper = tokio::spawn(bed.keeper().keep());
    bed.until("it is ready", |world| world.condition("Ready") == "True")
        .await;
    {
        let world = bed.world();
        let node = world.node.as_ref().unwrap();
        assert_eq!(node["spec"]["taints"][0]["key"], "secovia/lent");
        assert_eq!(node["metadata"]["labels"]["secovia/country"], "IT");
        assert_eq!(node["status"]["allocatable"]["cpu"], "2000m");
        assert_eq!(node["status"]["allocatable"]["pods"], "110");
        assert_eq!(node["status"]["addresses"][0]["address"], "127.0.0.1");
    }
    // Less is shown at once.
    bed.world().offer(1_000);
    bed.until("less is shown", |world| world.allocatable("cpu") == "1000m")
        .await;
    bed.world().reclaim(true);
    bed.until("it is cordoned and shows nothing", |world| {
        world.cordoned() && world.allocatable("cpu") == "0m" && world.allocatable("pods") == "0"
    })
    .await;
    bed.world().reclaim(false);
    bed.until("it is open and shows it all", |world| {
        !world.cordoned() && world.allocatable("cpu") == "1000m"
    })
    .await;
    bed.until("all of it is told", |world| world.events.len() >= 4)
        .await;
    assert_eq!(
        bed.world().events,
        ["Starting", "NodeReady", "NodeNotSchedulable", "NodeSchedulable"]
    );
    // Nothing changes: nothing is written.
    let before = bed.world().asked.len();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(bed.world().asked.len(), before);
    keeper.abort();
}

#[tokio::test]
async fn a_node_whose_agent_is_not_well_is_not_ready() {
    let bed = Bed::new().await;
    bed.world().lending(false);
    let keeper = tokio::spawn(bed.keeper().keep());
    bed.until("it is registered", |world| world.condition("Ready") == "False")
        .await;
    assert_eq!(bed.world().allocatable("cpu"), "0m");
    bed.world().lending(true);
    bed.until("it is ready", |world| world.condition("Ready") == "True")
        .await;
    assert_eq!(bed.world().allocatable("cpu"), "2000m");
    keeper.abort();
}

#[tokio::test]
async fn a_node_is_ready_when_its_pods_were_seen() {
    let bed = Bed::new().await;
    let seen = watch::Sender::new(false);
    let keeper = tokio::spawn(bed.keeper_where(seen.subscribe()).keep());
    bed.until("it says why it is not ready", |world| {
        world.condition("Ready") == "False"
    })
    .await;
    seen.send_replace(true);
    bed.until("it is ready", |world| world.condition("Ready") == "True")
        .await;
    keeper.abort();
    // The next process takes a moment to see them: the node was ready all the time.
    let seen = watch::Sender::new(false);
    let keeper = tokio::spawn(bed.keeper_where(seen.subscribe()).keep());
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(bed.world().condition("Ready"), "True");
    seen.send_replace(true);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(bed.world().condition("Ready"), "True");
    keeper.abort();
}

/// For a while every request fails; there are few of them, and afterwards all is as it should be.
async fn a_region_that_fails(failure: u16) {
    let bed = Bed::new().await;
    let keeper = tokio::spawn(bed.keeper().keep());
    bed.until("it is ready", |world| world.condition("Ready") == "True")
        .await;
    let before = bed.world().asked.len();
    bed.world().failure = Some(failure);
    bed.world().reclaim(true);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let asked = bed.world().asked.len() - before;
    assert!((2..=8).contains(&asked), "{asked} requests in 6 s");
    assert!(!bed.world().cordoned());
    bed.world().failure = None;
    bed.until("it is cordoned", |world| world.cordoned()).await;
    assert!(!keeper.is_finished());
    keeper.abort();
}

#[tokio::test]
async fn a_region_that_is_broken_is_not_stormed_and_hears_all_when_it_is_back() {
    a_region_that_fails(500).await;
}

#[tokio::test]
async fn a_region_that_is_busy_is_not_stormed_and_hears_all_when_it_is_back() {
    a_region_that_fails(429).await;
}

#[tokio::test]
async fn a_node_that_was_deleted_registers_again_but_not_while_it_leaves() {
    let bed = Bed::new().await;
    let keeper = tokio::spawn(bed.keeper().keep());
    bed.until("it is ready", |world| world.condition("Ready") == "True")
        .await;
    bed.world().node = None;
    bed.world().offer(1_000);
    bed.until("it is there again", |world| world.condition("Ready") == "True")
        .await;
    let leaving = Membership {
        leaving: true,
        ..bed.home.membership().unwrap()
    };
    bed.home.keep_membership(&leaving).unwrap();
    bed.world().node = None;
    bed.world().offer(500);
    tokio::time::timeout(Duration::from_secs(20), keeper)
        .await
        .unwrap()
        .unwrap();
    assert!(bed.world().node.is_none());
}

#[tokio::test]
async fn a_node_without_a_membership_is_none() {
    let bed = Bed::new().await;
    let keeper = tokio::spawn(bed.keeper().keep());
    bed.until("it is ready", |world| world.condition("Ready") == "True")
        .await;
    bed.home.forget().unwrap();
    tokio::time::timeout(Duration::from_secs(20), keeper)
        .await
        .unwrap()
        .unwrap();
}

/// The lease comes with the node, belongs to it, and is tried for again soon where it fails.
#[tokio::test]
async fn a_lease_is_renewed_whatever_else_happens() {
    let bed = Bed::new().await;
    let task = tokio::spawn(lease::keep(bed.region(), NODE.into()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(
        bed.world().lease.is_none(),
        "without a node it would belong to nobody"
    );
    bed.world().node = Some(json!({"metadata": {"name": NODE, "uid": "u1"}}));
    bed.until("there is a lease", |world| world.lease.is_some()).await;
    let lease = bed.world().lease.clone().unwrap();
    assert_eq!(lease["metadata"]["ownerReferences"][0]["uid"], "u1");
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 40);
    let renewed = lease["spec"]["renewTime"].clone();
    bed.until("it is renewed", |world| {
        world.lease.as_ref().unwrap()["spec"]["renewTime"] != renewed
    })
    .await;
    task.abort();
}

#[tokio::test]
async fn a_request_is_waited_for_until_it_is_signed() {
    let bed = Bed::new().await;
    let region = bed.region();
    let waits = tokio::spawn(async move {
        let mut request = String::new();
        let signed = sign(
            &region,
            Purpose::Client,
            (NODE, ADDRESS),
            Duration::from_secs(30),
            |name| {
                request = name.into();
            },
        )
        .await;
        (signed, request)
    });
    bed.until("it is asked for", |world| world.request.is_some())
        .await;
    bed.world().failure = Some(500);
    tokio::time::sleep(Duration::from_secs(2)).await;
    bed.world().failure = None;
    let request = bed.world().request.clone().unwrap();
    assert_eq!(
        request["spec"]["signerName"],
        "kubernetes.io/kube-apiserver-client-kubelet"
    );
    let pem = STANDARD
        .decode(request["spec"]["request"].as_str().unwrap())
        .unwrap();
    let authority =
        CertifiedIssuer::self_signed(CertificateParams::default(), KeyPair::generate().unwrap()).unwrap();
    let params = CertificateSigningRequestParams::from_pem(str::from_utf8(&pem).unwrap()).unwrap();
    let certificate = params.signed_by(&authority).unwrap().pem();
    bed.world().request.as_mut().unwrap()["status"] = json!({"certificate": STANDARD.encode(certificate)});
    let (signed, name) = waits.await.unwrap();
    assert_eq!(name, "secovia-x");
    assert!(validity(signed.unwrap().as_bytes()).is_ok());
}

#[tokio::test]
async fn a_request_that_is_refused_or_forgotten_says_so() {
    let bed = Bed::new().await;
    let ask = |patience| {
        let region = bed.region();
        tokio::spawn(async move {
            sign(
                &region,
                Purpose::Serving,
                (NODE, ADDRESS),
                Duration::from_secs(patience),
                |_| (),
            )
            .await
        })
    };
    match ask(1).await.unwrap() {
        Err(error @ PoolError::Unapproved { .. }) => {
            assert!(
                error
                    .to_string()
                    .contains("kubectl certificate approve secovia-x")
            );
        }
        other => panic!("{other:?}"),
    }
    let waits = ask(30);
    tokio::time::sleep(Duration::from_millis(500)).await;
    bed.world().request.as_mut().unwrap()["status"] =
        json!({"conditions": [{"type": "Denied", "status": "True", "message": "who are you?"}]});
    match waits.await.unwrap() {
        Err(PoolError::Denied { reason, .. }) => assert_eq!(reason, "who are you?"),
        other => panic!("{other:?}"),
    }
    bed.world().failure = Some(401);
    let error = ask(30).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("ask it for a token"), "{error}");
}

/// Pods of other namespaces, one eviction of which is refused at first, as it is where a service would be left with too few.
#[tokio::test]
async fn a_node_that_leaves_is_emptied_and_deleted() {
    let bed = Bed::new().await;
    bed.world().node = Some(json!({"metadata": {"name": NODE}}));
    let pod =
        |name: &str| json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {"containers": []}});
    bed.world().pods = vec![pod("one"), pod("two")];
    bed.world().evictions_refused = 1;
    let (pods, node) = take_out(&bed.region(), NODE, Duration::from_secs(30))
        .await
        .unwrap();
    assert_eq!((pods, node), (Vec::new(), None));
    let world = bed.world();
    assert!(world.node.is_none());
    // Before anything is evicted nothing new may come.
    let at = |what: &str| world.asked.iter().position(|asked| asked.contains(what)).unwrap();
    assert!(
        at("PATCH") < at("eviction") && at("eviction") < at("DELETE"),
        "{:?}",
        world.asked
    );
}

#[tokio::test]
async fn a_node_that_cannot_be_emptied_or_deleted_says_what_is_left() {
    let bed = Bed::new().await;
    bed.world().node = Some(json!({"metadata": {"name": NODE}}));
    bed.world().pods =
        vec![json!({"metadata": {"name": "one", "namespace": "shop"}, "spec": {"containers": []}})];
    bed.world().evictions_refused = u32::MAX;
    bed.world().may_delete = false;
    let (pods, node) = take_out(&bed.region(), NODE, Duration::from_secs(2))
        .await
        .unwrap();
    assert_eq!(pods, ["shop/one"]);
    assert!(node.unwrap().contains("region.yaml"));
    assert!(bed.world().cordoned());
    // One that is not there, or not any more, is out.
    bed.world().node = None;
    let out = take_out(&bed.region(), NODE, Duration::from_secs(2))
        .await
        .unwrap();
    assert_eq!(out, (Vec::new(), None));
}
