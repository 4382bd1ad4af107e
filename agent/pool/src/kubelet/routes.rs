//! What is answered to whom.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use secovia_agent_api::client::{Client as Agent, ClientError};
use secovia_agent_api::{ErrorCode, HealthStatus, Vm, VmState};
use tokio::time::timeout;

use super::access::{Need, User, bearer};
use super::figures::{Tally, Used, metrics, summary};
use super::logs::{self, Runs, Tail};
use super::review::{Denied, Reviewer};
use crate::pod::Identity;

/// No answer but a log takes longer to begin.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a kubelet does beyond this, which this node refuses by name.
const NOT_DONE: [&str; 9] = [
    "attach",
    "checkpoint",
    "configz",
    "exec",
    "logs",
    "pods",
    "portForward",
    "run",
    "runningpods",
];

/// What all requests share.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) agent: Agent,
    pub(super) node: String,
    pub(super) reviewer: Reviewer,
    pub(super) tally: Mutex<Tally>,
}

/// Whom the connection's certificate names, where it showed one.
pub(super) type Peer = Option<User>;

/// A status and a line of text, as a kubelet refuses.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(status, text) = self;
        (status, format!("{text}\n")).into_response()
    }
}

impl From<ClientError> for Refusal {
    fn from(error: ClientError) -> Self {
        let status = match error.code() {
            Some(ErrorCode::VmNotFound) => StatusCode::NOT_FOUND,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, error.to_string())
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        let status = match denied {
            Denied::Unknown => StatusCode::UNAUTHORIZED,
            Denied::Forbidden { .. } => StatusCode::FORBIDDEN,
            Denied::Busy => StatusCode::TOO_MANY_REQUESTS,
            Denied::Region(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, denied.to_string())
    }
}

/// All routes. Whoever is not known and allowed learns nothing, not even which there are.
pub(super) fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics/resource", get(resource_metrics))
        .route("/stats/summary", get(stats_summary))
        .route(
            "/containerLogs/{namespace}/{pod}/{container}",
            get(container_logs),
        )
        .fallback(nothing)
        .layer(from_fn_with_state(desk.clone(), admit))
        .with_state(desk)
}

async fn admit(
    State(desk): State<Arc<Desk>>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let answered = timeout(PATIENCE, async {
        let user = match peer {
            Some(user) => user,
            None => {
                let shown = request.headers().get(AUTHORIZATION);
                let token = shown.and_then(|shown| bearer(shown.to_str().ok()?));
                desk.reviewer.bearer(token.ok_or(Denied::Unknown)?).await?
            }
        };
        let need = Need::of(request.method(), request.uri().path());
        desk.reviewer.allow(&user, need).await?;
        Ok(next.run(request).await)
    });
    answered.await.unwrap_or_else(|_| {
        let text = format!("no answer within {} s", PATIENCE.as_secs());
        Err(Refusal(StatusCode::GATEWAY_TIMEOUT, text))
    })
}

async fn nothing(request: Request) -> Refusal {
    let first = request.uri().path().split('/').nth(1).unwrap_or_default();
    if NOT_DONE.contains(&first) {
        // Without a colon: kubectl takes what it can read as YAML for an object, and shows nothing of it.
        let text = format!(
            "{first} is not there, as this node runs Pods as microVMs and gives their logs and figures alone"
        );
        return Refusal(StatusCode::NOT_IMPLEMENTED, text);
    }
    Refusal(StatusCode::NOT_FOUND, "404 page not found".into())
}

async fn healthz(State(desk): State<Arc<Desk>>) -> Result<&'static str, Refusal> {
    match desk.agent.health().await?.status {
        HealthStatus::Starting => Err(Refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "secovia-agent is reading its records".into(),
        )),
        _ => Ok("ok"),
    }
}

/// What all Pods use now.
async fn measured(desk: &Desk) -> Result<Vec<Used>, Refusal> {
    let mut used = Vec::new();
    for vm in desk.agent.list_vms(false).await? {
        if vm.state != VmState::Running || Identity::of_vm(&vm).is_none() {
            continue;
        }
        // One that ends meanwhile is not there any more.
        if let Ok(stats) = desk.agent.vm_stats(&vm.id).await {
            used.extend(Used::of(&vm, &stats));
        }
    }
    Ok(used)
}

fn looked<T>(desk: &Desk, used: &[Used], tell: impl FnOnce(&Tally) -> T) -> T {
    let mut tally = desk.tally.lock().unwrap_or_else(PoisonError::into_inner);
    tally.look(used);
    tell(&tally)
}

async fn resource_metrics(State(desk): State<Arc<Desk>>) -> Result<Response, Refusal> {
    let used = measured(&desk).await?;
    let text = looked(&desk, &used, |tally| metrics(&used, tally, now_ms()));
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

async fn stats_summary(State(desk): State<Arc<Desk>>) -> Result<Response, Refusal> {
    let used = measured(&desk).await?;
    let summary = looked(&desk, &used, |tally| summary(&desk.node, &used, tally, now_ms()));
    Ok(([(CONTENT_TYPE, "application/json")], format!("{summary}\n")).into_response())
}

async fn container_logs(
    State(desk): State<Arc<Desk>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    query: Result<Query<logs::Query>, QueryRejection>,
) -> Result<Response, Refusal> {
    let bad = |text: String| Refusal(StatusCode::BAD_REQUEST, text);
    let Query(query) = query.map_err(|rejection| bad(rejection.body_text()))?;
    let options = query.parse(now_ms()).map_err(bad)?;
    let vms = desk.agent.list_vms(true).await?;
    let vm = find(&vms, &namespace, &pod).ok_or_else(|| {
        Refusal(
            StatusCode::NOT_FOUND,
            format!("pod \"{pod}\" has no microVM here (yet)"),
        )
    })?;
    let Some(runs) = Runs::of(vm, &container) else {
        let text = format!("container \"{container}\" is not one of pod \"{pod}\"");
        return Err(Refusal(StatusCode::NOT_FOUND, text));
    };
    let Some(span) = runs.span(options.previous) else {
        return Err(bad(if options.previous {
            format!("previous terminated container \"{container}\" in pod \"{pod}\" not found")
        } else {
            format!("container \"{container}\" in pod \"{pod}\" is waiting to start")
        }));
    };
    let tail = Tail::open(desk.agent.clone(), (vm, &container), (runs, span), &options).await?;
    let body = Body::from_stream(tail.pieces());
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

/// The Pod's microVM; the newest, where one of a Pod of that name that is gone is on its way out.
fn find<'a>(vms: &'a [Vm], namespace: &str, pod: &str) -> Option<&'a Vm> {
    let is_its = |vm: &&Vm| {
        Identity::of_vm(vm).is_some_and(|identity| identity.namespace == namespace && identity.name == pod)
    };
    vms.iter().filter(is_its).max_by_key(|vm| vm.created_at_ms)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as u64
}
