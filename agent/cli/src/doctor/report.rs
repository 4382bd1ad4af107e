//! Tells what the checks found.

use serde::Serialize;

use super::check::{Check, Status};

/// The checks, and what follows.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Nothing that is required is missing.
    pub ready: bool,
    /// Each check.
    pub checks: Vec<Check>,
}

impl Report {
    pub(super) fn new(checks: Vec<Check>) -> Self {
        Self {
            ready: checks.iter().all(|check| check.status != Status::Fail),
            checks,
        }
    }

    /// A line for each check, what to do below it, and the verdict last.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for check in &self.checks {
            let word = match check.status {
                Status::Ok => "ok",
                Status::Info => "info",
                Status::Warn => "WARN",
                Status::Fail => "FAIL",
            };
            text += &format!("{word:<5} {:<13} {}\n", check.id, check.message);
            if let Some(remedy) = &check.remedy {
                text += &format!("{:19} -> {remedy}\n", "");
            }
        }
        let count = |status| self.checks.iter().filter(|check| check.status == status).count();
        let (failures, warnings) = (count(Status::Fail), count(Status::Warn));
        text += &match (failures, warnings) {
            (0, 0) => "This host is ready.\n".to_string(),
            (0, warnings) => format!("This host is ready, with {}.\n", counted(warnings, "warning")),
            (failures, _) => format!(
                "This host is not ready: {} to repair.\n",
                counted(failures, "line")
            ),
        };
        text
    }
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}
