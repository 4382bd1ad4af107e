//! One thing that was looked at, and what came of it.

use serde::Serialize;

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// Stable, for programs.
    pub id: &'static str,
    /// How it is.
    pub status: Status,
    /// What was seen.
    pub message: String,
    /// What to do, where something is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    /// As it should be.
    Ok,
    /// Good to know; nothing has to be done.
    Info,
    /// It works without, but not all or not well.
    Warn,
    /// It does not work so.
    Fail,
}

impl Check {
    pub(super) fn ok(id: &'static str, message: impl Into<String>) -> Self {
        Self::new(id, Status::Ok, message, None)
    }

    pub(super) fn info(id: &'static str, message: impl Into<String>) -> Self {
        Self::new(id, Status::Info, message, None)
    }

    pub(super) fn warn(id: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(id, Status::Warn, message, Some(remedy.into()))
    }

    pub(super) fn fail(id: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(id, Status::Fail, message, Some(remedy.into()))
    }

    fn new(id: &'static str, status: Status, message: impl Into<String>, remedy: Option<String>) -> Self {
        Self {
            id,
            status,
            message: message.into(),
            remedy,
        }
    }
}
