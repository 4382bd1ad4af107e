//! The local API: HTTP over a Unix socket, for root and the members of one group.

mod body;
mod error;
mod images;
mod logs;
mod node;
mod peer;
mod session;
mod socket;
mod vms;

pub use error::ApiError;
pub use socket::{Socket, SocketError};

use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::{Router, middleware};
use secovia_agent_api::{ErrorCode, route};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::peer::{Access, Peer};
use crate::node::Node;

/// No request has a larger body.
const BODY_MAX: usize = 1024 * 1024;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Secovia node agent",
        description = "The local API of a node: microVMs and images. HTTP/1.1 with JSON over the agent's Unix socket, \
            for root and the members of the socket's group. Times are milliseconds since 1970-01-01 UTC.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    servers((url = "http://localhost", description = "over the Unix socket")),
    tags(
        (name = "node", description = "The agent itself."),
        (name = "vms", description = "MicroVMs. `{vm}` is an identifier or a name."),
        (name = "images", description = "What microVMs start from."),
    )
)]
struct Document;

fn routes() -> OpenApiRouter<Arc<Node>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(node::version))
        .routes(routes!(node::health))
        .routes(routes!(vms::create, vms::list))
        .routes(routes!(vms::show, vms::remove))
        .routes(routes!(vms::start))
        .routes(routes!(vms::stop))
        .routes(routes!(vms::kill))
        .routes(routes!(vms::wait))
        .routes(routes!(vms::stats))
        .routes(routes!(logs::read))
        .routes(routes!(session::attach))
        .routes(routes!(session::exec))
        .routes(routes!(images::list, images::import))
        .routes(routes!(images::remove))
}

/// The OpenAPI description of everything that is served.
pub fn openapi() -> String {
    let (_, document) = routes().split_for_parts();
    // The description is made of plain values: it cannot fail to be written.
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

fn router(node: Arc<Node>, access: Access) -> Router {
    let (router, _) = routes().split_for_parts();
    router
        .route(route::OPENAPI, axum::routing::get(node::openapi))
        .fallback(|| async { ApiError::new(ErrorCode::RouteNotFound, "no such route; see /v1/openapi.json") })
        .method_not_allowed_fallback(|| async {
            ApiError::new(
                ErrorCode::MethodNotAllowed,
                "the route has no such method; see /v1/openapi.json",
            )
        })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn_with_state(access, peer::admit))
        .with_state(node)
}

/// Serves the API until `stop` comes, and finishes what was begun then.
pub async fn serve(
    node: Arc<Node>,
    socket: Socket,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let access = Access::of_group(&node.config().socket_group);
    let app = router(node, access).into_make_service_with_connect_info::<Peer>();
    axum::serve(socket, app).with_graceful_shutdown(stop).await
}
