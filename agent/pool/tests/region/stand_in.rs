//! A stand-in for the region and one for the agent, which share what the test may change.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::extract::{Path, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use kube::Client;
use secovia_agent_api::client::Client as Agent;
use secovia_agent_api::{Health, HealthStatus, Labels, LadderView, Offer, OfferLine, route};
use secovia_pool::home::{Home, Membership};
use secovia_pool::node::host::machine;
use secovia_pool::node::keeper::Keeper;
use serde_json::{Value, json};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

/// The node's name.
pub(crate) const NODE: &str = "town";

const PATIENCE: Duration = Duration::from_secs(40);

/// What both stand-ins know.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) node: Option<Value>,
    pub(crate) lease: Option<Value>,
    pub(crate) request: Option<Value>,
    pub(crate) pods: Vec<Value>,
    /// The reasons of events that were told.
    pub(crate) events: Vec<String>,
    /// So many evictions are refused before one is let.
    pub(crate) evictions_refused: u32,
    /// Whether a node may delete itself.
    pub(crate) may_delete: bool,
    /// What the region answers everything with, where it fails.
    pub(crate) failure: Option<u16>,
    /// Every request to the region.
    pub(crate) asked: Vec<String>,
    agent: Offer,
}

impl World {
    /// The agent offers this much of each CPU.
    pub(crate) fn offer(&mut self, cpu_millis: u64) {
        self.agent.lines[0].offered = cpu_millis;
    }

    /// The owner takes the machine, or gives it.
    pub(crate) fn reclaim(&mut self, reclaimed: bool) {
        self.agent.ladder.ordered_by = reclaimed.then(|| "owner".into());
        self.agent.ladder.rung = if reclaimed { "shutdown" } else { "open" }.into();
        let line = &mut self.agent.lines[0];
        (line.offered, line.rule) = if reclaimed {
            (0, "reclaimed".into())
        } else {
            (1_000, "spare".into())
        };
    }

    /// Whether the owner lends anything at all.
    pub(crate) fn lending(&mut self, lending: bool) {
        self.agent.lending = lending;
        self.agent.lines[0].offered = if lending { 2_000 } else { 0 };
    }

    pub(crate) fn condition(&self, kind: &str) -> String {
        let conditions = self
            .node
            .as_ref()
            .map(|node| node["status"]["conditions"].clone());
        let conditions = conditions
            .as_ref()
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let found = conditions.iter().find(|condition| condition["type"] == kind);
        found.map_or(String::new(), |found| found["status"].as_str().unwrap().into())
    }

    pub(crate) fn allocatable(&self, resource: &str) -> String {
        let node = self.node.as_ref().unwrap();
        node["status"]["allocatable"][resource]
            .as_str()
            .unwrap_or_default()
            .into()
    }

    pub(crate) fn cordoned(&self) -> bool {
        self.node
            .as_ref()
            .is_some_and(|node| node["spec"]["unschedulable"] == true)
    }
}

type Shared = Arc<Mutex<World>>;

/// A world with both stand-ins, and a home of a node that has joined.
pub(crate) struct Bed {
    world: Shared,
    dir: tempfile::TempDir,
    server: String,
    pub(crate) home: Home,
}

impl Bed {
    pub(crate) async fn new() -> Self {
        let world = Arc::new(Mutex::new(World {
            node: None,
            lease: None,
            request: None,
            pods: Vec::new(),
            events: Vec::new(),
            evictions_refused: 0,
            may_delete: true,
            failure: None,
            asked: Vec::new(),
            agent: offer(),
        }));
        let dir = tempfile::tempdir().unwrap();
        let agent = Router::new()
            .route(route::HEALTH, get(health))
            .route(route::OFFER, get(lent))
            .with_state(world.clone());
        let socket = UnixListener::bind(dir.path().join("agent.sock")).unwrap();
        tokio::spawn(async { axum::serve(socket, agent).await });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let region = region(world.clone());
        tokio::spawn(async { axum::serve(listener, region).await });
        let home = Home::new(dir.path().join("pool"));
        let membership = Membership {
            server: server.clone(),
            node: NODE.into(),
            address: IpAddr::from([127, 0, 0, 1]),
            port: 10_250,
            leaving: false,
        };
        home.keep(&membership, b"", b"").unwrap();
        Self {
            world,
            dir,
            server,
            home,
        }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// A client of the stand-in, which speaks no TLS.
    pub(crate) fn region(&self) -> Client {
        let mut config = kube::Config::new(self.server.parse().unwrap());
        config.default_retry = false;
        Client::try_from(config).unwrap()
    }

    /// One whose Pods were seen.
    pub(crate) fn keeper(&self) -> Keeper {
        self.keeper_where(watch::Sender::new(true).subscribe())
    }

    pub(crate) fn keeper_where(&self, pods_seen: watch::Receiver<bool>) -> Keeper {
        let agent = Agent::new(self.dir.path().join("agent.sock"));
        let machine = machine(NODE, IpAddr::from([127, 0, 0, 1]), 10_250);
        Keeper::new(agent, self.region(), self.home.clone(), machine, pods_seen)
    }

    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&World) -> bool) {
        let begun = Instant::now();
        while !holds(&self.world()) {
            assert!(
                begun.elapsed() < PATIENCE,
                "{what}: not in time: {:#?}",
                self.world()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn offer() -> Offer {
    let line = |resource: &str, unit: u64| OfferLine {
        resource: resource.into(),
        offered: 2 * unit,
        lent: 0,
        rule: "spare".into(),
        capacity: 4 * unit,
        reserve: unit,
        owner: unit,
        margin: 0,
        schedule: None,
        cap: None,
    };
    Offer {
        lending: true,
        lines: vec![line("cpu", 1_000), line("memory", 1 << 30), line("disk", 1 << 30)],
        ladder: LadderView {
            rung: "open".into(),
            ordered_by: None,
            scarcity: "calm".into(),
        },
        measured_s: 100,
        problem: None,
        labels: Labels {
            country: Some("IT".into()),
            ..Labels::default()
        },
    }
}

async fn health() -> Json<Health> {
    Json(Health {
        status: HealthStatus::Ok,
        problems: Vec::new(),
        running: 0,
    })
}

async fn lent(State(world): State<Shared>) -> Json<Offer> {
    Json(world.lock().unwrap().agent.clone())
}

fn region(world: Shared) -> Router {
    Router::new()
        .route("/api/v1/nodes", post(create))
        .route("/api/v1/namespaces/default/events", post(note))
        .route("/api/v1/nodes/{name}", get(read).patch(change).delete(remove))
        .route("/api/v1/pods", get(pods))
        .route("/api/v1/namespaces/{namespace}/pods/{name}/eviction", post(evict))
        .route("/api/v1/nodes/{name}/status", patch(change))
        .route(
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
            post(create),
        )
        .route(
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}",
            patch(change),
        )
        .route(
            "/apis/certificates.k8s.io/v1/certificatesigningrequests",
            post(create),
        )
        .route(
            "/apis/certificates.k8s.io/v1/certificatesigningrequests/{name}",
            get(read),
        )
        .layer(from_fn_with_state(world.clone(), admit))
        .with_state(world)
}

/// Counts, and fails where it is to.
async fn admit(State(world): State<Shared>, request: Request, next: Next) -> Response {
    let failure = {
        let mut world = world.lock().unwrap();
        world
            .asked
            .push(format!("{} {}", request.method(), request.uri()));
        world.failure
    };
    match failure {
        Some(code) => refusal(code),
        None => next.run(request).await,
    }
}

fn refusal(code: u16) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "told so", "code": code,
        "reason": if code == 404 { "NotFound" } else { "" }});
    (StatusCode::from_u16(code).unwrap(), Json(status)).into_response()
}

/// The object that a path is about.
fn slot<'a>(world: &'a mut World, path: &str) -> &'a mut Option<Value> {
    if path.contains("leases") {
        &mut world.lease
    } else if path.contains("certificatesigningrequests") {
        &mut world.request
    } else {
        &mut world.node
    }
}

async fn create(
    State(world): State<Shared>,
    method: Method,
    uri: axum::http::Uri,
    Json(mut object): Json<Value>,
) -> Response {
    assert_eq!(method, Method::POST);
    let mut world = world.lock().unwrap();
    if let Some(prefix) = object["metadata"]["generateName"].as_str() {
        object["metadata"]["name"] = json!(format!("{prefix}x"));
    }
    object["metadata"]["uid"] = json!("u1");
    *slot(&mut world, uri.path()) = Some(object.clone());
    (StatusCode::CREATED, Json(object)).into_response()
}

async fn note(State(world): State<Shared>, Json(event): Json<Value>) -> Response {
    let reason = event["reason"].as_str().unwrap().to_string();
    world.lock().unwrap().events.push(reason);
    (StatusCode::CREATED, Json(event)).into_response()
}

async fn read(State(world): State<Shared>, Path(_): Path<String>, uri: axum::http::Uri) -> Response {
    match slot(&mut world.lock().unwrap(), uri.path()) {
        Some(object) => Json(object.clone()).into_response(),
        None => refusal(404),
    }
}

async fn change(State(world): State<Shared>, uri: axum::http::Uri, body: String) -> Response {
    let patch: Value = serde_json::from_str(&body).unwrap();
    match slot(&mut world.lock().unwrap(), uri.path()) {
        Some(object) => {
            merge(object, &patch);
            Json(object.clone()).into_response()
        }
        None => refusal(404),
    }
}

async fn remove(State(world): State<Shared>) -> Response {
    let mut world = world.lock().unwrap();
    match (world.may_delete, world.node.take()) {
        (false, node) => {
            world.node = node;
            refusal(403)
        }
        (true, Some(node)) => Json(node).into_response(),
        (true, None) => refusal(404),
    }
}

async fn pods(State(world): State<Shared>, uri: axum::http::Uri) -> Json<Value> {
    // The node's own alone: the region would not let it see others.
    assert_eq!(uri.query(), Some("&fieldSelector=spec.nodeName%3Dtown"));
    let pods = world.lock().unwrap().pods.clone();
    Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods}))
}

async fn evict(State(world): State<Shared>, Path((_, name)): Path<(String, String)>) -> Response {
    let mut world = world.lock().unwrap();
    if world.evictions_refused > 0 {
        world.evictions_refused -= 1;
        return refusal(429);
    }
    world.pods.retain(|pod| pod["metadata"]["name"] != name);
    Json(json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})).into_response()
}

/// RFC 7386. What a strategic merge does otherwise, our changes do not need: they name each list whole.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in changes {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut object[key], value);
        }
    }
}
