//! What the node answers when it cannot.

use std::fmt::Display;

use secovia_agent_api::ErrorCode;

use crate::guest::GuestCallError;
use crate::images::ImageError;
use crate::lending::desk::AdmissionError;
use crate::supervisor::CommandError;

/// A failure with the code that programs see and the text that people do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct NodeError {
    /// For programs.
    pub code: ErrorCode,
    /// For people: what failed, on what, what to do.
    pub message: String,
    /// What there is too little of, where that is the reason.
    pub lacking: Vec<&'static str>,
}

impl NodeError {
    /// A failure.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            lacking: Vec::new(),
        }
    }

    /// There is too little of something.
    pub(super) fn scarce(lacking: Vec<&'static str>, message: impl Into<String>) -> Self {
        Self {
            lacking,
            ..Self::new(ErrorCode::InsufficientResources, message)
        }
    }

    /// The agent or the host failed.
    pub fn internal(error: impl Display) -> Self {
        Self::new(ErrorCode::Internal, error.to_string())
    }

    /// The VM does not run, and must for this.
    pub fn not_running(vm: &str, state: &str) -> Self {
        let message = format!("microVM `{vm}` is {state}, not running; `secovia start {vm}` starts it");
        Self::new(ErrorCode::VmNotRunning, message)
    }

    pub(super) fn command(operation: &str, vm: &str, error: CommandError) -> Self {
        let code = match error {
            CommandError::Active(_) => ErrorCode::VmRunning,
            CommandError::Gone => ErrorCode::VmNotFound,
            CommandError::Admission(error) => {
                return Self::admission(format!("{operation} microVM `{vm}`"), &error);
            }
            CommandError::Store(_) => ErrorCode::Internal,
        };
        Self::new(code, format!("{operation} microVM `{vm}`: {error}"))
    }

    /// There is no room for a VM.
    pub(super) fn admission(operation: impl Display, error: &AdmissionError) -> Self {
        let message = format!("{operation}: {error}");
        match error {
            AdmissionError::Closed(_) => Self::new(ErrorCode::AdmissionClosed, message),
            AdmissionError::Refused(refusal) => {
                let lacking = refusal.lacking.iter().map(|(resource, ..)| resource.word());
                Self::scarce(lacking.collect(), message)
            }
            AdmissionError::Journal(_) => Self::new(ErrorCode::Internal, message),
        }
    }

    /// The guest did not do what it was asked.
    pub fn guest(operation: &str, vm: &str, error: &GuestCallError) -> Self {
        let code = match error {
            GuestCallError::Unreachable(_) => ErrorCode::GuestUnreachable,
            GuestCallError::Protocol(_) => ErrorCode::Internal,
            GuestCallError::Refused(_) => ErrorCode::BadRequest,
        };
        Self::new(code, format!("{operation} microVM `{vm}`: {error}"))
    }
}

impl From<ImageError> for NodeError {
    fn from(error: ImageError) -> Self {
        let code = match error {
            ImageError::NotFound(_) => ErrorCode::ImageNotFound,
            ImageError::Manifest { .. } | ImageError::Rootfs { .. } | ImageError::Archive { .. } => {
                ErrorCode::ImageInvalid
            }
            ImageError::Import { .. } => ErrorCode::BadRequest,
            ImageError::Store { .. } => ErrorCode::Internal,
        };
        Self::new(code, error.to_string())
    }
}
