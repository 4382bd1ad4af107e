//! Why a request brought no answer, and what to do about it.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use crate::{ErrorCode, ErrorDetail, SOCKET_GROUP};

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection to the agent's socket.
    #[error("connect to the agent at {}: {}", socket.display(), reason_and_remedy(source))]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke before the answer was there.
    #[error("the agent at {} hung up: {source}; look at `journalctl -u secovia-agent`", socket.display())]
    Lost {
        /// The socket.
        socket: PathBuf,
        /// What broke.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The agent holds the connection but does not answer.
    #[error(
        "the agent at {} did not answer within {seconds} s; look at `journalctl -u secovia-agent`",
        socket.display()
    )]
    Timeout {
        /// The socket.
        socket: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
    /// The agent refused the request, or failed at it.
    #[error(transparent)]
    Refused(#[from] ErrorDetail),
    /// The answer is not what the API says.
    #[error(
        "answer of {} to {path}: {reason}; agent and client may be of different versions (`secovia version`)",
        socket.display()
    )]
    BadAnswer {
        /// The socket.
        socket: PathBuf,
        /// What was asked.
        path: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The request cannot be put into HTTP.
    #[error("build the request: {0}")]
    BadRequest(String),
}

impl ClientError {
    /// The agent's code, where it was the agent who refused.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(detail) => Some(detail.code),
            _ => None,
        }
    }

    /// Whether the agent is not there or went away, so that the same request may succeed when it is back.
    pub fn is_absence(&self) -> bool {
        match self {
            Self::Connect { source, .. } => source.kind() != io::ErrorKind::PermissionDenied,
            Self::Lost { .. } => true,
            Self::Refused(detail) => detail.code == ErrorCode::ShuttingDown,
            Self::Timeout { .. } | Self::BadAnswer { .. } | Self::BadRequest(_) => false,
        }
    }
}

fn reason_and_remedy(source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => format!(
            "{source}; the agent is not running: start it with `systemctl start secovia-agent`, or see `secovia doctor`"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "{source}; join the group with `sudo usermod -aG {SOCKET_GROUP} $USER` and log in again, or use sudo"
        ),
        _ => format!("{source}; see `secovia doctor`"),
    }
}
