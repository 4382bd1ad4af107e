//! What can fail.

use std::ffi::OsStr;
use std::io;

use secovia_seccomp::RulesError;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command line means nothing.
    #[error("{0}; see secovia-calls --help")]
    Usage(&'static str),
    /// A word of it means nothing.
    #[error("{0}; see secovia-calls --help")]
    Word(#[from] lexopt::Error),
    /// The rules do not hold together.
    #[error("vmm/seccomp/rules.json: {0}")]
    Rules(#[from] RulesError),
    /// The system refused.
    #[error("{operation} {object}: {source}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// Names what a failing call was for.
    pub(crate) fn at(operation: &'static str, object: impl AsRef<OsStr>) -> impl FnOnce(io::Error) -> Self {
        let object = object.as_ref().to_string_lossy().into_owned();
        move |source| Self::System {
            operation,
            object,
            source,
        }
    }
}
