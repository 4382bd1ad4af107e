//! What the agent answers when a request fails.

use serde::{Deserialize, Serialize};

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[error("{message}")]
pub struct ErrorDetail {
    /// For programs; stable over versions.
    pub code: ErrorCode,
    /// For people: what failed, on what, what to do.
    pub message: String,
    /// With `insufficient_resources`: what there is too little of, `cpu`, `memory` or `disk`, where it is one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacking: Vec<String>,
}

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The body, a query parameter or a header is not what the route asks for; the message names it.
    BadRequest,
    /// The caller is neither root nor in the group of the socket.
    Forbidden,
    /// There is no such route in this version of the API.
    RouteNotFound,
    /// The route exists, for another method.
    MethodNotAllowed,
    /// The route needs `Upgrade:` with [`UPGRADE_PROTOCOL`](crate::UPGRADE_PROTOCOL).
    UpgradeRequired,
    /// No microVM has this identifier or name.
    VmNotFound,
    /// Another microVM has the name.
    NameTaken,
    /// Something else has the port of the host's that is to be published.
    PortTaken,
    /// The microVM runs, and must not for this.
    VmRunning,
    /// The microVM does not run, and must for this.
    VmNotRunning,
    /// No image has this name.
    ImageNotFound,
    /// A microVM uses the image.
    ImageInUse,
    /// The image directory or its manifest is missing, malformed, or not what the manifest says.
    ImageInvalid,
    /// The host cannot give what is asked for (CPUs, memory, disk space).
    InsufficientResources,
    /// The node admits nothing now: its owner has taken it back, or needs it.
    AdmissionClosed,
    /// The microVM did not come up; the message has the reason.
    StartFailed,
    /// The microVM runs, but its guest does not answer.
    GuestUnreachable,
    /// The agent is going down.
    ShuttingDown,
    /// The agent or the host failed.
    Internal,
    /// A code of a later version (never sent).
    #[serde(other)]
    Unknown,
}

impl ErrorCode {
    /// The HTTP status that goes with the code.
    pub fn http_status(self) -> u16 {
        match self {
            Self::BadRequest | Self::ImageInvalid => 400,
            Self::Forbidden => 403,
            Self::RouteNotFound | Self::VmNotFound | Self::ImageNotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NameTaken | Self::PortTaken | Self::VmRunning | Self::VmNotRunning | Self::ImageInUse => {
                409
            }
            Self::UpgradeRequired => 426,
            Self::StartFailed | Self::Internal | Self::Unknown => 500,
            Self::GuestUnreachable => 504,
            Self::ShuttingDown | Self::AdmissionClosed => 503,
            Self::InsufficientResources => 507,
        }
    }
}

impl ErrorBody {
    /// An error with its code and text.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            error: ErrorDetail {
                code,
                message: message.into(),
                lacking: Vec::new(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_stable_and_later_ones_are_taken() {
        let body = ErrorBody::new(ErrorCode::VmNotFound, "no");
        let json = serde_json::to_string(&body).unwrap();
        assert_eq!(json, r#"{"error":{"code":"vm_not_found","message":"no"}}"#);
        let later: ErrorBody = serde_json::from_str(r#"{"error":{"code":"x_y","message":"m"}}"#).unwrap();
        assert_eq!(later.error.code, ErrorCode::Unknown);
    }
}
