//! Routes of the agent itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use secovia_agent_api::{Health, Version, route};

use crate::node::Node;

/// Which agent answers.
#[utoipa::path(get, path = route::VERSION, tag = "node", responses((status = 200, body = Version)))]
pub(super) async fn version() -> Json<Version> {
    Json(Version {
        version: env!("CARGO_PKG_VERSION").to_string(),
        api: "v1".to_string(),
    })
}

/// Whether the agent is able to work.
#[utoipa::path(get, path = route::HEALTH, tag = "node", responses((status = 200, body = Health)))]
pub(super) async fn health(State(node): State<Arc<Node>>) -> Json<Health> {
    Json(node.health())
}
