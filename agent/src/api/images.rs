//! Routes of the images.

use std::path::Path as FilePath;
use std::sync::Arc;

use axum::Json;
use axum::body::Body as Stream;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::StatusCode;
use secovia_agent_api::{ErrorBody, ImageGc, ImageGcReport, ImageImport, ImageInfo, ImageUpload, route};

use super::body::{Body, Parameters};
use super::error::ApiError;
use super::peer::Peer;
use crate::node::Node;

/// All images, by name.
#[utoipa::path(get, path = route::IMAGES, tag = "images", responses((status = 200, body = [ImageInfo])))]
pub(super) async fn list(State(node): State<Arc<Node>>) -> Result<Json<Vec<ImageInfo>>, ApiError> {
    Ok(Json(node.images()?))
}

/// Takes an image into the store, and checks every byte of it: a folder of ours on the agent's host, a directory in
/// OCI's layout, or a tar of one or of docker's. The caller must be able to read it himself.
#[utoipa::path(
    post, path = route::IMAGES, tag = "images", request_body = ImageImport,
    responses(
        (status = 201, body = ImageInfo),
        (status = 400, description = "The image is wrong, or too large.", body = ErrorBody),
        (status = 409, description = "A microVM uses an image of this name.", body = ErrorBody),
        (status = 507, description = "The images that microVMs use leave no room.", body = ErrorBody),
    )
)]
pub(super) async fn import(
    State(node): State<Arc<Node>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Body(request): Body<ImageImport>,
) -> Result<(StatusCode, Json<ImageInfo>), ApiError> {
    let image = node
        .import_image(
            FilePath::new(&request.path),
            request.name.as_deref(),
            peer.caller()?,
        )
        .await?;
    Ok((StatusCode::CREATED, Json(image)))
}

/// Takes an image into the store that the caller sends: a tar of an OCI layout or of docker's, whose every byte is checked.
/// For a caller whose files the agent cannot read.
#[utoipa::path(
    post, path = route::IMAGES_UPLOAD, tag = "images", params(ImageUpload),
    request_body(content_type = "application/x-tar", description = "The archive."),
    responses(
        (status = 201, body = ImageInfo),
        (status = 400, description = "The image is wrong, or too large.", body = ErrorBody),
        (status = 409, description = "A microVM uses an image of this name.", body = ErrorBody),
        (status = 507, description = "The images that microVMs use leave no room.", body = ErrorBody),
    )
)]
pub(super) async fn upload(
    State(node): State<Arc<Node>>,
    Parameters(image): Parameters<ImageUpload>,
    body: Stream,
) -> Result<(StatusCode, Json<ImageInfo>), ApiError> {
    let image = node.receive_image(&image.name, body.into_data_stream()).await?;
    Ok((StatusCode::CREATED, Json(image)))
}

/// Removes images that no microVM uses, the one used longest ago first, until all take no more than the quota, or what
/// is asked for.
#[utoipa::path(
    post, path = route::IMAGES_GC, tag = "images", request_body = ImageGc,
    responses((status = 200, body = ImageGcReport))
)]
pub(super) async fn collect(
    State(node): State<Arc<Node>>,
    Body(request): Body<ImageGc>,
) -> Result<Json<ImageGcReport>, ApiError> {
    Ok(Json(node.collect_images(&request).await?))
}

/// Removes an image that no microVM uses.
#[utoipa::path(
    delete, path = route::IMAGE, tag = "images", params(("image" = String, Path, description = "Its name.")),
    responses(
        (status = 204, description = "It is gone."),
        (status = 404, body = ErrorBody),
        (status = 409, description = "A microVM uses it.", body = ErrorBody),
    )
)]
pub(super) async fn remove(
    State(node): State<Arc<Node>>,
    Path(image): Path<String>,
) -> Result<StatusCode, ApiError> {
    node.remove_image(&image).await?;
    Ok(StatusCode::NO_CONTENT)
}
