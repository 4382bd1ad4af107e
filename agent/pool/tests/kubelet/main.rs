//! The port at which the region asks for logs and figures, over real TLS on loopback, against stand-ins for the region's API
//! server and for the agent. (The real ones, with `kubectl logs`: `ci/pool-demo`.)

mod bed;

use std::time::Duration;

use bed::{Bed, Shown};

const LOGS: &str = "/containerLogs/town/web/main";

#[tokio::test]
async fn only_whom_the_region_knows_and_allows_is_answered() {
    let bed = Bed::start().await;
    let (status, text) = bed.get(LOGS, Shown::Nothing).await;
    assert_eq!((status, text.as_str()), (401, "Unauthorized\n"));
    assert_eq!(bed.get(LOGS, Shown::Token("nobody")).await.0, 401);
    let (status, text) = bed.get(LOGS, Shown::Token("viewer")).await;
    assert_eq!(status, 403);
    assert!(
        text.contains("user=viewer") && text.contains("subresource=proxy"),
        "{text}"
    );
    let all = "one\ntwo\nthree\n".to_string();
    assert_eq!(bed.get(LOGS, Shown::Token("operator")).await, (200, all.clone()));
    assert_eq!(bed.get(LOGS, Shown::Certificate("apiserver")).await, (200, all));
    // He may do one thing, and not the other.
    assert_eq!(bed.get("/metrics/resource", Shown::Token("viewer")).await.0, 200);
    // One of another authority is no proof, and nobody else's is asked for then.
    assert!(bed.try_get(LOGS, Shown::StrangersCertificate).await.is_err());
    // Even what is not there is not told to strangers.
    assert_eq!(bed.get("/nothing", Shown::Nothing).await.0, 401);
    assert_eq!(bed.get("/nothing", Shown::Token("operator")).await.0, 404);
}

#[tokio::test]
async fn the_region_is_asked_once_and_where_it_cannot_be_nobody_is_let_in() {
    let bed = Bed::start().await;
    for _ in 0..5 {
        assert_eq!(bed.get(LOGS, Shown::Token("operator")).await.0, 200);
        assert_eq!(bed.get(LOGS, Shown::Token("nobody")).await.0, 401);
    }
    assert_eq!(bed.reviews(), (2, 1), "tokens, permissions");
    bed.fail(true);
    assert_eq!(
        bed.get(LOGS, Shown::Token("operator")).await.0,
        200,
        "what is known holds for a while"
    );
    assert_eq!(bed.get(LOGS, Shown::Token("viewer")).await.0, 503);
    assert_eq!(
        bed.get("/stats/summary", Shown::Certificate("apiserver")).await.0,
        503
    );
    bed.fail(false);
    // Somebody tries tokens out: the region does not hear of all of them.
    let mut busy = 0;
    for n in 0..80 {
        busy += u32::from(bed.get(LOGS, Shown::Token(&format!("guess-{n}"))).await.0 == 429);
    }
    assert!(busy >= 10, "{busy}");
}

#[tokio::test]
async fn logs_are_given_as_they_are_asked_for() {
    let bed = Bed::start().await;
    let get = async |query: &str| bed.get(&format!("{LOGS}{query}"), Shown::Token("operator")).await;
    assert_eq!(get("?tailLines=1").await.1, "three\n");
    assert_eq!(get("?limitBytes=5").await.1, "one\nt");
    assert!(
        get("?timestamps=true&tailLines=1")
            .await
            .1
            .ends_with("000000Z three\n")
    );
    for wrong in [
        "?tailLines=x",
        "?follow=perhaps",
        "?sinceTime=now",
        "?color=blue",
        "?sinceSeconds=0",
    ] {
        assert_eq!(get(wrong).await.0, 400, "{wrong}");
    }
    assert_eq!(
        get("?previous=true").await.0,
        400,
        "there is no run before the first"
    );
    let other = bed
        .get("/containerLogs/town/web/sidecar", Shown::Token("operator"))
        .await;
    assert!(other.0 == 404 && other.1.contains("sidecar"), "{other:?}");
    assert_eq!(
        bed.get("/containerLogs/other/web/main", Shown::Token("operator"))
            .await
            .0,
        404
    );
    // The agent would follow the microVM into its next run.
    let follower = get("?follow=true&tailLines=1");
    let ends = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        bed.say("four\n");
        tokio::time::sleep(Duration::from_millis(500)).await;
        bed.start_again();
    };
    let (followed, ()) = tokio::join!(follower, ends);
    assert_eq!(followed.1, "three\nfour\n");
    assert_eq!(get("?previous=true").await.1, "one\ntwo\nthree\nfour\n");
    assert_eq!(get("?previous=true&tailLines=2").await.1, "three\nfour\n");
    bed.say("again\n");
    assert_eq!(get("").await.1, "again\n");
}

#[tokio::test]
async fn figures_are_given_and_what_is_not_done_is_refused_by_name() {
    let bed = Bed::start().await;
    let operator = Shown::Token("operator");
    let (status, text) = bed.get("/metrics/resource", operator).await;
    assert_eq!(status, 200);
    assert!(
        text.contains("pod_cpu_usage_seconds_total{namespace=\"town\",pod=\"web\"} 1.5"),
        "{text}"
    );
    let (_, text) = bed.get("/stats/summary", operator).await;
    let summary: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(summary["pods"][0]["podRef"]["name"], "web");
    assert_eq!(bed.get("/healthz", operator).await, (200, "ok".into()));
    let (status, text) = bed.get("/exec/town/web/main?command=sh", operator).await;
    assert!(
        status == 501 && text.contains("exec is not there"),
        "{status} {text}"
    );
    assert_eq!(bed.get("/pods", operator).await.0, 501);
}

#[tokio::test]
async fn a_new_certificate_serves_at_once_and_a_new_authority_is_known() {
    let bed = Bed::start().await;
    let operator = Shown::Token("operator");
    let before = bed.serial(operator).await;
    assert_eq!(bed.serial(operator).await, before);
    let follower = bed.get("/containerLogs/town/web/main?follow=true", operator);
    let renews = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        bed.renew();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_ne!(bed.serial(operator).await, before);
        // Whoever was there before goes on.
        bed.say("after\n");
        tokio::time::sleep(Duration::from_millis(300)).await;
        bed.start_again();
    };
    let (followed, ()) = tokio::join!(follower, renews);
    assert!(followed.1.ends_with("after\n"), "{followed:?}");
    bed.change_authority();
    bed.renew();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(bed.try_get(LOGS, Shown::Certificate("apiserver")).await.is_err());
    assert_eq!(bed.get(LOGS, Shown::StrangersCertificate).await.0, 200);
}

#[tokio::test]
async fn who_talks_nonsense_or_nothing_is_cut_off_and_others_are_served() {
    let bed = Bed::start().await;
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(bed.connect().await);
    }
    // All that one address may have is taken: the next is shut out at once, and let in when there is room.
    assert!(bed.try_get(LOGS, Shown::Token("operator")).await.is_err());
    held.truncate(4);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(bed.get(LOGS, Shown::Token("operator")).await.0, 200);
    let long = format!("{LOGS}?{}", "x".repeat(20_000));
    let answer = bed.try_get(&long, Shown::Token("operator")).await;
    assert!(
        answer.is_err() || matches!(answer, Ok((414 | 431, _))),
        "{answer:?}"
    );
    assert_eq!(
        bed.raw(b"\x16\x03\x01\xff\xff nonsense").await,
        0,
        "no answer but an alert"
    );
}
