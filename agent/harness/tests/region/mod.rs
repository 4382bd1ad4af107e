//! A stand-in for a region's API server: Pods, their status, events, ConfigMaps; lists, watches, merge patches, deletions.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::watch;

/// What it holds.
#[derive(Default)]
pub(crate) struct Held {
    version: u64,
    pods: BTreeMap<String, Value>,
    /// Everything that happened to Pods: version, kind, Pod.
    history: Vec<(u64, &'static str, Value)>,
    /// Events about Pods: name, reason, message.
    pub(crate) events: Vec<(String, String, String)>,
    config_maps: BTreeMap<String, Value>,
    /// Every answer has this status.
    pub(crate) fault: Option<u16>,
    /// Requests but watches, so far.
    pub(crate) requests: u64,
    /// Statuses that were written, by Pod: their phases.
    pub(crate) phases: BTreeMap<String, Vec<String>>,
}

/// One API server.
#[derive(Clone)]
pub(crate) struct Region {
    held: Arc<Mutex<Held>>,
    news: watch::Sender<u64>,
    url: String,
}

/// A status and its text.
struct Refusal(u16, &'static str);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(code, message) = self;
        let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "", "message": message,
            "code": code});
        (StatusCode::from_u16(code).unwrap(), axum::Json(body)).into_response()
    }
}

type Answer = Result<Response, Refusal>;

impl Region {
    /// Starts one.
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let region = Self {
            held: Arc::default(),
            news: watch::Sender::new(0),
            url: format!("http://{}", listener.local_addr().unwrap()),
        };
        let router = Router::new()
            .route("/api/v1/pods", get(list))
            .route(
                "/api/v1/namespaces/{ns}/pods/{name}",
                axum::routing::delete(delete),
            )
            .route("/api/v1/namespaces/{ns}/pods/{name}/status", patch(write_status))
            .route("/api/v1/namespaces/{ns}/events", post(note))
            .route("/api/v1/namespaces/{ns}/events/{name}", patch(note_again))
            .route("/api/v1/namespaces/{ns}/configmaps/{name}", get(config_map))
            .with_state(region.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        region
    }

    /// A client of it.
    pub(crate) fn client(&self) -> kube::Client {
        let mut config = kube::Config::new(self.url.parse().unwrap());
        config.default_retry = false;
        kube::Client::try_from(config).unwrap()
    }

    /// What it holds.
    pub(crate) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap()
    }

    fn change(&self, kind: &'static str, name: &str, pod: Value) {
        let mut held = self.held();
        held.version += 1;
        let version = held.version;
        let mut pod = pod;
        pod["metadata"]["resourceVersion"] = version.to_string().into();
        held.history.push((version, kind, pod.clone()));
        if kind == "DELETED" {
            held.pods.remove(name);
        } else {
            held.pods.insert(name.into(), pod);
        }
        drop(held);
        self.news.send_replace(version);
    }

    /// Binds a Pod, as the scheduler does; `uid` is one digit for all of it.
    pub(crate) fn bind(&self, name: &str, uid: char, spec: Value) {
        let uid: String = "8-4-4-4-12"
            .split('-')
            .map(|count| uid.to_string().repeat(count.parse().unwrap()))
            .collect::<Vec<_>>()
            .join("-");
        self.bind_as(name, &uid, spec);
    }

    /// The same, with a uid that is given.
    pub(crate) fn bind_as(&self, name: &str, uid: &str, spec: Value) {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "town", "uid": uid}, "spec": spec});
        pod["spec"]["nodeName"] = "node-1".into();
        self.change("ADDED", name, pod);
    }

    /// Asks for a Pod's deletion, as `kubectl delete --grace-period` does.
    pub(crate) fn ask_to_delete(&self, name: &str, grace_s: u32) {
        let mut pod = self.pod(name).unwrap();
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        pod["metadata"]["deletionGracePeriodSeconds"] = grace_s.into();
        self.change("MODIFIED", name, pod);
    }

    /// A Pod is gone at once, as with `kubectl delete --force`.
    pub(crate) fn vanish(&self, name: &str) {
        let pod = self.pod(name).unwrap();
        self.change("DELETED", name, pod);
    }

    /// A Pod gets a label.
    pub(crate) fn label(&self, name: &str, key: &str, value: &str) {
        let mut pod = self.pod(name).unwrap();
        pod["metadata"]["labels"][key] = value.into();
        self.change("MODIFIED", name, pod);
    }

    /// Whether there is a Pod of this uid.
    pub(crate) fn has(&self, uid: &str) -> bool {
        self.held().pods.values().any(|pod| pod["metadata"]["uid"] == uid)
    }

    /// A ConfigMap comes to be.
    pub(crate) fn keep_config_map(&self, name: &str, data: Value) {
        self.held().config_maps.insert(name.into(), data);
    }

    /// The Pod of this name.
    pub(crate) fn pod(&self, name: &str) -> Option<Value> {
        self.held().pods.get(name).cloned()
    }

    /// Waits until the Pod is as `until` says.
    pub(crate) async fn wait(&self, name: &str, what: &str, until: impl Fn(&Value) -> bool) -> Value {
        let mut news = self.news.subscribe();
        let reached = async {
            loop {
                news.mark_unchanged();
                if let Some(pod) = self.pod(name).filter(|pod| until(pod)) {
                    return pod;
                }
                news.changed().await.unwrap();
            }
        };
        let reached = tokio::time::timeout(Duration::from_secs(60), reached).await;
        reached.unwrap_or_else(|_| {
            panic!(
                "Pod {name} is not {what}: {:#}",
                self.pod(name).unwrap_or_default()
            )
        })
    }

    /// Waits until the Pod is gone.
    pub(crate) async fn gone(&self, name: &str) {
        for _ in 0..3_000 {
            if self.pod(name).is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("Pod {name} stays: {:#}", self.pod(name).unwrap());
    }

    /// Counts the request; refuses it where everything is refused.
    fn admit(&self) -> Result<(), Refusal> {
        let mut held = self.held();
        held.requests += 1;
        held.fault.map_or(Ok(()), |code| Err(Refusal(code, "as told")))
    }
}

async fn list(State(region): State<Region>, Query(query): Query<BTreeMap<String, String>>) -> Answer {
    let selector = query.get("fieldSelector").map(String::as_str);
    assert_eq!(selector, Some("spec.nodeName=node-1"));
    if query.get("watch").is_none_or(|watch| watch != "true") {
        region.admit()?;
        let held = region.held();
        let items: Vec<&Value> = held.pods.values().collect();
        let list = json!({"kind": "PodList", "apiVersion": "v1",
            "metadata": {"resourceVersion": held.version.to_string()}, "items": items});
        return Ok(axum::Json(list).into_response());
    }
    region.admit()?;
    let from: u64 = query["resourceVersion"].parse().unwrap();
    let news = region.news.subscribe();
    let lines = stream::unfold((region, news, from), |(region, mut news, mut from)| async move {
        loop {
            news.mark_unchanged();
            let next = {
                let held = region.held();
                if held.fault.is_some() {
                    return None;
                }
                held.history.iter().find(|(version, ..)| *version > from).cloned()
            };
            if let Some((version, kind, pod)) = next {
                from = version;
                let line = format!("{}\n", json!({"type": kind, "object": pod}));
                return Some((Ok::<_, std::io::Error>(Bytes::from(line)), (region, news, from)));
            }
            news.changed().await.ok()?;
        }
    });
    Ok(Body::from_stream(lines).into_response())
}

async fn write_status(
    State(region): State<Region>,
    Path((_, name)): Path<(String, String)>,
    axum::Json(change): axum::Json<Value>,
) -> Answer {
    region.admit()?;
    let Some(mut pod) = region.pod(&name) else {
        return Err(Refusal(404, "no such Pod"));
    };
    for key in ["uid", "resourceVersion"] {
        if pod["metadata"][key] != change["metadata"][key] {
            return Err(Refusal(409, "somebody else was here"));
        }
    }
    let before = pod["status"].clone();
    merge(&mut pod["status"], &change["status"]);
    assert_ne!(before, pod["status"], "a report that says nothing new");
    let phase = pod["status"]["phase"].as_str().unwrap_or_default().to_string();
    region.held().phases.entry(name.clone()).or_default().push(phase);
    region.change("MODIFIED", &name, pod.clone());
    Ok(axum::Json(pod).into_response())
}

/// RFC 7396.
fn merge(target: &mut Value, change: &Value) {
    let Some(fields) = change.as_object() else {
        *target = change.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

async fn delete(
    State(region): State<Region>,
    Path((_, name)): Path<(String, String)>,
    axum::Json(options): axum::Json<Value>,
) -> Answer {
    region.admit()?;
    let Some(pod) = region.pod(&name) else {
        return Err(Refusal(404, "no such Pod"));
    };
    assert_eq!(options["gracePeriodSeconds"], 0);
    assert_eq!(options["preconditions"]["uid"], pod["metadata"]["uid"]);
    region.change("DELETED", &name, pod.clone());
    Ok(axum::Json(pod).into_response())
}

async fn note(State(region): State<Region>, axum::Json(event): axum::Json<Value>) -> Answer {
    region.admit()?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    region.held().events.push((
        text(&event["involvedObject"]["name"]),
        text(&event["reason"]),
        text(&event["message"]),
    ));
    Ok((StatusCode::CREATED, axum::Json(event)).into_response())
}

async fn note_again(State(region): State<Region>, axum::Json(event): axum::Json<Value>) -> Answer {
    region.admit()?;
    Ok(axum::Json(event).into_response())
}

async fn config_map(State(region): State<Region>, Path((_, name)): Path<(String, String)>) -> Answer {
    region.admit()?;
    let data = region.held().config_maps.get(&name).cloned();
    let data = data.ok_or(Refusal(404, "no such ConfigMap"))?;
    Ok(axum::Json(json!({"metadata": {"name": name}, "data": data})).into_response())
}
