//! Routes of the microVMs.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use secovia_agent_api::{
    DeleteQuery, ErrorBody, KillRequest, ListQuery, StopRequest, Vm, VmCreate, VmStats, WaitQuery, route,
};

use super::body::{Body, OptionalBody, Parameters};
use super::error::ApiError;
use crate::node::{self, Node};

/// Creates a microVM, and starts it unless told otherwise. Answered as soon as its record is durable.
#[utoipa::path(
    post, path = route::VMS, tag = "vms", request_body = VmCreate,
    responses(
        (status = 201, body = Vm),
        (status = 400, body = ErrorBody),
        (status = 404, description = "There is no such image.", body = ErrorBody),
        (status = 409, description = "The name is taken.", body = ErrorBody),
        (status = 507, description = "The host has not that much.", body = ErrorBody),
    )
)]
pub(super) async fn create(
    State(node): State<Arc<Node>>,
    Body(request): Body<VmCreate>,
) -> Result<(StatusCode, Json<Vm>), ApiError> {
    Ok((StatusCode::CREATED, Json(node.create(request).await?)))
}

/// The microVMs, oldest first.
#[utoipa::path(get, path = route::VMS, tag = "vms", params(ListQuery), responses((status = 200, body = [Vm])))]
pub(super) async fn list(
    State(node): State<Arc<Node>>,
    Parameters(query): Parameters<ListQuery>,
) -> Json<Vec<Vm>> {
    Json(node.list(query.all))
}

/// One microVM.
#[utoipa::path(
    get, path = route::VM, tag = "vms", params(("vm" = String, Path, description = "Identifier or name.")),
    responses((status = 200, body = Vm), (status = 404, body = ErrorBody))
)]
pub(super) async fn show(
    State(node): State<Arc<Node>>,
    Path(vm): Path<String>,
) -> Result<Json<Vm>, ApiError> {
    let handle = node.find(&vm)?;
    let vm = node::show(&handle.view.borrow());
    Ok(Json(vm))
}

/// Removes a microVM. Answered when nothing of it is left.
#[utoipa::path(
    delete, path = route::VM, tag = "vms",
    params(("vm" = String, Path, description = "Identifier or name."), DeleteQuery),
    responses(
        (status = 204, description = "It is gone."),
        (status = 404, body = ErrorBody),
        (status = 409, description = "It is active.", body = ErrorBody),
    )
)]
pub(super) async fn remove(
    State(node): State<Arc<Node>>,
    Path(vm): Path<String>,
    Parameters(query): Parameters<DeleteQuery>,
) -> Result<StatusCode, ApiError> {
    node.remove(&vm, query.force).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Starts a microVM that does not run. Answered as soon as the intent is durable.
#[utoipa::path(
    post, path = route::VM_START, tag = "vms", params(("vm" = String, Path, description = "Identifier or name.")),
    responses(
        (status = 200, body = Vm),
        (status = 404, body = ErrorBody),
        (status = 409, description = "It runs already.", body = ErrorBody),
    )
)]
pub(super) async fn start(
    State(node): State<Arc<Node>>,
    Path(vm): Path<String>,
) -> Result<Json<Vm>, ApiError> {
    Ok(Json(node.start(&vm).await?))
}

/// Stops a microVM: SIGTERM to its workload, after the grace SIGKILL. Answered when it has ended; its restart policy
/// does not apply.
#[utoipa::path(
    post, path = route::VM_STOP, tag = "vms", request_body = Option<StopRequest>,
    params(("vm" = String, Path, description = "Identifier or name.")),
    responses((status = 200, body = Vm), (status = 404, body = ErrorBody))
)]
pub(super) async fn stop(
    State(node): State<Arc<Node>>,
    Path(vm): Path<String>,
    OptionalBody(request): OptionalBody<StopRequest>,
) -> Result<Json<Vm>, ApiError> {
    Ok(Json(node.stop(&vm, request.grace_s).await?))
}

/// Ends a microVM at once (answered when it is gone, its restart policy does not apply), or sends a signal to its
/// workload.
#[utoipa::path(
    post, path = route::VM_KILL, tag = "vms", request_body = Option<KillRequest>,
    params(("vm" = String, Path, description = "Identifier or name.")),
    responses(
        (status = 200, body = Vm),
        (status = 404, body = ErrorBody),
        (status = 409, description = "A signal for a microVM that does not run.", body = ErrorBody),
    )
)]
pub(super) async fn kill(
    State(node): State<Arc<Node>>,
    Path(vm): Path<String>,
    OptionalBody(request): OptionalBody<KillRequest>,
) -> Result<Json<Vm>, ApiError> {
    Ok(Json(node.kill(&vm, request).await?))
}

/// Waits until a microVM has ended, or has been started.
#[utoipa::path(
    get, path = route::VM_WAIT, tag = "vms",
    params(("vm" = String, Path, description = "Identifier or name."), WaitQuery),
    responses((status = 200, body = Vm), (status = 404, body = ErrorBody))
)]
pub(super) async fn wait(
    State(node): State<Arc<Node>>,
    Path(vm): Path<String>,
    Parameters(query): Parameters<WaitQuery>,
) -> Result<Json<Vm>, ApiError> {
    Ok(Json(node.wait(&vm, query.until).await?))
}

/// What a running microVM uses now.
#[utoipa::path(
    get, path = route::VM_STATS, tag = "vms", params(("vm" = String, Path, description = "Identifier or name.")),
    responses(
        (status = 200, body = VmStats),
        (status = 404, body = ErrorBody),
        (status = 409, description = "It does not run.", body = ErrorBody),
    )
)]
pub(super) async fn stats(
    State(node): State<Arc<Node>>,
    Path(vm): Path<String>,
) -> Result<Json<VmStats>, ApiError> {
    Ok(Json(node.stats(&vm)?))
}
