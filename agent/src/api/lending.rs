//! Routes of what is lent, and of taking it back.

use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use secovia_agent_api::{
    AuditQuery, AuditRecord, AuditVerdict, ErrorBody, Offer, ReclaimRequest, Reclaimed, route,
};

use super::body::{OptionalBody, Parameters};
use super::error::ApiError;
use super::peer::Peer;
use crate::node::Node;

/// The longest deadline, in seconds.
const DEADLINE_MAX_S: u32 = 3_600;

/// What is lent at most and now, and why it is not more.
#[utoipa::path(get, path = route::OFFER, tag = "lending", responses((status = 200, body = Offer)))]
pub(super) async fn offer(State(node): State<Arc<Node>>) -> Json<Offer> {
    Json(node.offer())
}

/// Takes the machine back: nothing is admitted any more, guests are asked to shut down, and what is left is ended in time
/// for the deadline. Answered when all is free, or the deadline is over. Holds until a release, also when the agent or
/// the machine is started again.
#[utoipa::path(
    post, path = route::RECLAIM, tag = "lending", request_body = Option<ReclaimRequest>,
    responses((status = 200, body = Reclaimed), (status = 400, body = ErrorBody))
)]
pub(super) async fn reclaim(
    State(node): State<Arc<Node>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    OptionalBody(request): OptionalBody<ReclaimRequest>,
) -> Result<Json<Reclaimed>, ApiError> {
    if let Some(seconds) = request.deadline_s.filter(|s| !(1..=DEADLINE_MAX_S).contains(s)) {
        return Err(ApiError::bad_request(format!(
            "`deadline_s` is {seconds}; use 1 to {DEADLINE_MAX_S}"
        )));
    }
    let within_ms = request.deadline_s.map(|seconds| u64::from(seconds) * 1_000);
    Ok(Json(node.reclaim(within_ms, peer.uid()).await))
}

/// Lends again what the policy allows.
#[utoipa::path(
    post, path = route::RELEASE, tag = "lending",
    responses((status = 204, description = "It is lent again."), (status = 500, body = ErrorBody))
)]
pub(super) async fn release(
    State(node): State<Arc<Node>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Result<StatusCode, ApiError> {
    node.release(peer.uid())?;
    Ok(StatusCode::NO_CONTENT)
}

/// What the agent did with what it lends, oldest first.
#[utoipa::path(
    get, path = route::AUDIT, tag = "lending", params(AuditQuery),
    responses((status = 200, body = [AuditRecord]), (status = 500, body = ErrorBody))
)]
pub(super) async fn audit(
    State(node): State<Arc<Node>>,
    Parameters(query): Parameters<AuditQuery>,
) -> Result<Json<Vec<AuditRecord>>, ApiError> {
    Ok(Json(node.audit(query.tail)?))
}

/// Whether the audit log is whole: recomputes every hash.
#[utoipa::path(
    get, path = route::AUDIT_VERIFY, tag = "lending",
    responses((status = 200, body = AuditVerdict), (status = 500, body = ErrorBody))
)]
pub(super) async fn verify(State(node): State<Arc<Node>>) -> Result<Json<AuditVerdict>, ApiError> {
    Ok(Json(node.verify_audit()?))
}
