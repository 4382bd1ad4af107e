//! An error as an HTTP answer.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use secovia_agent_api::{ErrorBody, ErrorCode};

use crate::node::NodeError;

/// What went wrong, on its way to the client.
#[derive(Debug)]
pub struct ApiError(ErrorBody);

impl ApiError {
    /// An error with its code and text.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self(ErrorBody::new(code, message))
    }

    /// The request is not what the route asks for.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadRequest, message)
    }
}

impl From<NodeError> for ApiError {
    fn from(error: NodeError) -> Self {
        let mut body = ErrorBody::new(error.code, error.message);
        body.error.lacking = error.lacking.into_iter().map(str::to_string).collect();
        Self(body)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let code = self.0.error.code;
        let status = StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            log::warn!("answered {status}: {}", self.0.error.message);
        }
        (status, Json(self.0)).into_response()
    }
}
