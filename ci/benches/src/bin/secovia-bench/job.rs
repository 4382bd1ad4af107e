//! What is asked for, and why it cannot be had.

use std::path::PathBuf;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0}; see --help")]
    Usage(#[from] lexopt::Error),
    #[error("{operation}: {source}")]
    Host {
        operation: String,
        source: std::io::Error,
    },
    #[error("{program} did not behave: {reason}")]
    Program { program: String, reason: String },
    #[error("write the report: {0}")]
    Report(#[from] serde_json::Error),
}

impl Error {
    pub(super) fn host(operation: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Host {
            operation: operation.into(),
            source,
        }
    }
}

/// What was asked for.
pub(super) struct Options {
    pub(super) vmm: PathBuf,
    pub(super) jailer: PathBuf,
    pub(super) yardstick: PathBuf,
    /// How many of each; as many as fits where it is not given.
    pub(super) runs: Option<usize>,
    pub(super) json: bool,
}
