//! Why something for a Pod was not done.

use secovia_agent_api::ErrorCode;
use secovia_agent_api::client::ClientError;

use crate::pod::status::{End, Hold};

/// What comes of a failure.
#[derive(Debug)]
pub(super) enum Failure {
    /// The Pod is refused for good.
    Ended(End),
    /// It is tried again after a while.
    Held(Hold),
    /// The API server does not answer, or refuses for the moment: all writes wait.
    Region(String),
}

impl Failure {
    /// A try that came to nothing.
    pub(super) fn held(reason: &str, message: impl Into<String>) -> Self {
        Self::Held(Hold {
            reason: reason.into(),
            message: message.into(),
        })
    }

    /// The agent did not make a microVM, or start one.
    pub(super) fn agent(error: &ClientError) -> Self {
        let text = error.to_string();
        let detail = match error {
            ClientError::Refused(detail) => detail,
            _ => return Self::held("CreateContainerError", text),
        };
        match detail.code {
            ErrorCode::InsufficientResources => Self::Ended(End::because(out_of(&detail.lacking), text)),
            ErrorCode::AdmissionClosed => Self::Ended(End::because("NodeReclaimed", text)),
            // Who has it is leaving, or is somebody of whom the scheduler knows nothing: it would send one Pod after the other.
            ErrorCode::PortTaken => Self::held("NodePorts", text),
            ErrorCode::BadRequest => Self::held("CreateContainerConfigError", text),
            ErrorCode::ImageNotFound | ErrorCode::ImageInvalid => Self::held("ErrImagePull", text),
            _ => Self::held("CreateContainerError", text),
        }
    }
}

/// The reason that a kubelet gives where there is too little; the first, where it is of several things.
fn out_of(lacking: &[String]) -> &'static str {
    match lacking.first().map(String::as_str) {
        Some("cpu") => "OutOfcpu",
        Some("memory") => "OutOfmemory",
        Some("disk") => "OutOfephemeral-storage",
        _ => "OutOfresources",
    }
}

#[cfg(test)]
mod tests {
    use secovia_agent_api::ErrorDetail;

    use super::*;

    #[test]
    fn a_port_that_is_taken_is_waited_for() {
        let error = ClientError::Refused(ErrorDetail {
            code: ErrorCode::PortTaken,
            message: "why".into(),
            lacking: Vec::new(),
        });
        assert!(matches!(Failure::agent(&error), Failure::Held(hold) if hold.reason == "NodePorts"));
    }

    #[test]
    fn a_pod_that_raced_a_shrinking_offer_is_refused_as_by_a_kubelet() {
        for (code, lacking, reason) in [
            (ErrorCode::InsufficientResources, vec!["cpu"], "OutOfcpu"),
            (
                ErrorCode::InsufficientResources,
                vec!["memory", "disk"],
                "OutOfmemory",
            ),
            (
                ErrorCode::InsufficientResources,
                vec!["disk"],
                "OutOfephemeral-storage",
            ),
            (ErrorCode::InsufficientResources, vec![], "OutOfresources"),
            (ErrorCode::AdmissionClosed, vec![], "NodeReclaimed"),
        ] {
            let error = ClientError::Refused(ErrorDetail {
                code,
                message: "why".into(),
                lacking: lacking.into_iter().map(String::from).collect(),
            });
            let Failure::Ended(end) = Failure::agent(&error) else {
                panic!("{code:?} is not for good");
            };
            assert_eq!(
                (end.reason.as_deref(), end.message.as_deref()),
                (Some(reason), Some("why"))
            );
        }
    }
}
