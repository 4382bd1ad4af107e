//! The API: a few requests in a row through the real router, to a node that has one image and whose VMMs all fail.
//!
//! Requests are separated by a zero byte. The first line is method and target (and `upgrade`, and `text` for a body that
//! is not said to be JSON), the rest is the body.
#![no_main]

use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use secovia_agent::api;
use secovia_agent::config::Config;
use secovia_agent::node::Node;
use secovia_agent_api::{ErrorBody, ErrorCode, Vm};
use secovia_agent_fuzz::runtime;
use tempfile::TempDir;
use tokio::time::timeout;
use tower::ServiceExt;

/// Requests of one input: what a VM's life takes, and some.
const REQUESTS: usize = 8;

/// How long one may take; some wait for what never comes.
const PATIENCE: Duration = Duration::from_millis(100);

/// More than any answer.
const ANSWER: usize = 4 << 20;

struct World {
    dir: TempDir,
    router: Router,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    // In memory where that can be had: each change of a record waits until it is durable.
    let dir = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a directory");
    let path = dir.path().display();
    let text = format!(
        "state_dir = '{path}/state'\nruntime_dir = '{path}/run'\nvmm = '/bin/false'\njailer = '/bin/false'\n\
         kernel = '/bin/false'\ninitrd = '/bin/false'\n"
    );
    let config = Config::parse(Path::new("agent.toml"), &text).expect("a configuration");
    let node = runtime().block_on(Node::open(config)).expect("a node");
    let image = dir.path().join("image");
    fs::create_dir(&image).expect("a directory");
    fs::write(image.join("rootfs.erofs"), "").expect("an image");
    let manifest = r#"{"schema_version":1,"name":"base","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0,"command":["/bin/sh"]}"#;
    fs::write(image.join("manifest.json"), manifest).expect("an image");
    World {
        dir,
        router: api::in_process(Arc::clone(&node)),
    }
});

/// One request and its answer; `None` where it waits for something that does not happen.
async fn ask(request: Request<Body>) -> Option<(StatusCode, Vec<u8>)> {
    let answer = async {
        let response = WORLD
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("the router never fails");
        let status = response.status();
        let body = to_bytes(response.into_body(), ANSWER)
            .await
            .expect("an answer of bounded length");
        (status, body.to_vec())
    };
    timeout(PATIENCE, answer).await.ok()
}

fn request(text: &[u8]) -> Option<Request<Body>> {
    let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
    let (line, body) = text.split_at(end);
    let body = body.get(1..).unwrap_or_default();
    let mut words = str::from_utf8(line).ok()?.split(' ');
    let mut request = Request::builder().method(words.next()?).uri(words.next()?);
    let mut kind = "application/json";
    for word in words {
        match word {
            "upgrade" => {
                request = request
                    .header("connection", "upgrade")
                    .header("upgrade", "secovia-guest/1");
            }
            _ => kind = "text/plain",
        }
    }
    request
        .header("content-type", kind)
        .body(Body::from(body.to_vec()))
        .ok()
}

fn plain(method: &str, target: &str, body: String) -> Request<Body> {
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header("content-type", "application/json");
    request.body(Body::from(body)).expect("a request")
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // Made outside of the runtime, which it uses itself.
    let world = &*WORLD;
    runtime().block_on(async {
        if !world.dir.path().join("state/images/base").exists() {
            let path = world.dir.path().join("image");
            let body = format!(r#"{{"path":"{}"}}"#, path.display());
            let _ = ask(plain("POST", "/v1/images", body)).await;
        }
        for text in data.split(|byte| *byte == 0).take(REQUESTS) {
            let Some(request) = request(text) else {
                continue;
            };
            let Some((status, body)) = ask(request).await else {
                continue;
            };
            if status.is_client_error() || status.is_server_error() {
                let error: ErrorBody = serde_json::from_slice(&body).expect("an error is JSON");
                assert_ne!(error.error.code, ErrorCode::Internal, "{error:?}");
            }
        }
        // Each input begins with an empty node.
        let (_, list) = ask(plain("GET", "/v1/vms?all=true", String::new()))
            .await
            .expect("a list comes at once");
        let vms: Vec<Vm> = serde_json::from_slice(&list).expect("a list of VMs");
        for vm in vms {
            let target = format!("/v1/vms/{}?force=true", vm.id);
            let gone = runtime().spawn(
                world
                    .router
                    .clone()
                    .oneshot(plain("DELETE", &target, String::new())),
            );
            let answer = gone.await.expect("no panic").expect("the router never fails");
            // One that goes by itself when it has ended may be gone already.
            let gone = [StatusCode::NO_CONTENT, StatusCode::NOT_FOUND];
            assert!(gone.contains(&answer.status()), "{}: {}", vm.id, answer.status());
        }
    });
});
