//! All routes, and the server.

use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::extract::connect_info::MockConnectInfo;
use axum::http::header::CONTENT_TYPE;
use axum::{Router, middleware};
use secovia_agent_api::{ErrorCode, route};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ApiError;
use super::peer::{self, Access, Peer};
use super::socket::Socket;
use super::{images, lending, logs, node, session, vms};
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
        (name = "lending", description = "What the node lends, taking it back, and the record of both."),
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
        .routes(routes!(images::upload))
        .routes(routes!(images::remove))
        .routes(routes!(images::collect))
        .routes(routes!(lending::offer))
        .routes(routes!(lending::reclaim))
        .routes(routes!(lending::release))
        .routes(routes!(lending::audit))
        .routes(routes!(lending::verify))
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
        .route(
            route::OPENAPI,
            axum::routing::get(|| async { ([(CONTENT_TYPE, "application/json")], openapi()) }),
        )
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

/// The API without a socket, for a caller inside of this process, who may do everything: a fuzzer, say.
pub fn in_process(node: Arc<Node>) -> Router {
    let access = Access::of_group(&node.config().socket_group);
    router(node, access).layer(MockConnectInfo(Peer::root()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openapi_file_is_current() {
        let committed = include_str!("../../openapi.json");
        assert!(
            committed == openapi(),
            "renew it: secovia-agent --openapi > agent/openapi.json"
        );
    }

    #[test]
    fn openapi_describes_every_route_of_the_contract() {
        let document: serde_json::Value = serde_json::from_str(&openapi()).unwrap();
        let routes = [
            route::VERSION,
            route::HEALTH,
            route::VMS,
            route::VM,
            route::VM_START,
            route::VM_STOP,
            route::VM_KILL,
            route::VM_WAIT,
            route::VM_STATS,
            route::VM_LOGS,
            route::VM_ATTACH,
            route::VM_EXEC,
            route::IMAGES,
            route::IMAGE,
            route::IMAGES_GC,
            route::IMAGES_UPLOAD,
            route::OFFER,
            route::RECLAIM,
            route::RELEASE,
            route::AUDIT,
            route::AUDIT_VERIFY,
        ];
        for route in routes {
            assert!(document["paths"][route].is_object(), "{route}");
        }
        assert_eq!(document["paths"].as_object().unwrap().len(), routes.len());
        for name in ["VmCreate", "Vm", "VmState", "ErrorBody", "LogRecord"] {
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
    }
}
