//! Why a step failed, in the one line that a person reads: the step with its object, what was found, what to do.

use std::fmt::{self, Display, Formatter};

use crate::plan::Step;

/// Why a step cannot be done.
#[derive(Debug)]
pub(super) struct Problem {
    /// What was found or what the kernel said, with the object where that is not the step's own.
    found: String,
    /// What to do about it.
    remedy: String,
}

impl Problem {
    pub(super) fn new(found: impl Display, remedy: impl Display) -> Self {
        Self {
            found: found.to_string(),
            remedy: remedy.to_string(),
        }
    }

    /// For `map_err`: what the kernel said, and what helps.
    pub(super) fn os<E: Into<std::io::Error>>(remedy: impl Display) -> impl FnOnce(E) -> Self {
        move |error| {
            let error: std::io::Error = error.into();
            match error.kind() {
                std::io::ErrorKind::PermissionDenied => Self::new(
                    error,
                    format_args!("{remedy}; the jailer has to be root with all capabilities"),
                ),
                _ => Self::new(error, remedy),
            }
        }
    }
}

/// A step that failed.
#[derive(Debug)]
pub struct StepError {
    text: String,
}

impl StepError {
    pub(super) fn new(step: &Step, problem: &Problem) -> Self {
        Self {
            text: format!("{step}: {}; {}", problem.found, problem.remedy),
        }
    }

    /// What a process that is no more has said.
    pub(super) fn told(text: String) -> Self {
        Self { text }
    }

    /// What could not be undone after it.
    pub(super) fn add(&mut self, left: &str) {
        self.text.push_str("; ");
        self.text.push_str(left);
    }
}

impl Display for StepError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for StepError {}
