//! What goes wrong between this node and its region.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use secovia_agent_api::client::ClientError;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// A file cannot be read or written.
    #[error("{operation} {}: {source}", path.display())]
    File {
        /// What was to be done.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// What was given cannot be used.
    #[error("{what}: {problem}")]
    Wrong {
        /// A file, or an argument.
        what: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// This node is in no pool.
    #[error("this node is in no pool ({} is empty): secovia pool join", dir.display())]
    NotJoined {
        /// Where it would say so.
        dir: PathBuf,
    },
    /// This node is in a pool already.
    #[error("this node is in the pool of {server} already, as `{node}`: secovia pool leave, first")]
    Joined {
        /// The API server.
        server: String,
        /// The node's name there.
        node: String,
    },
    /// The region's API server is not there, or refused.
    #[error("{operation}: {}{}", chain(source), remedy(source))]
    Region {
        /// What was to be done, on what.
        operation: String,
        /// Why it was not.
        source: Box<kube::Error>,
    },
    /// It took too long.
    #[error("{operation}: no answer within {seconds} s")]
    Silent {
        /// What was to be done, on what.
        operation: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The agent is not there, or refused.
    #[error("{operation}: {source}")]
    Agent {
        /// What was to be done, on what.
        operation: String,
        /// Why it was not.
        source: ClientError,
    },
    /// The region does not sign.
    #[error("the region's operator has refused the certificate request `{request}`: {reason}")]
    Denied {
        /// The request's name.
        request: String,
        /// What he says.
        reason: String,
    },
    /// The region has not signed yet.
    #[error(
        "the certificate request `{request}` was not approved within {seconds} s; the region's operator does it with: \
         kubectl certificate approve {request}"
    )]
    Unapproved {
        /// The request's name.
        request: String,
        /// How long was waited.
        seconds: u64,
    },
    /// Keys and requests cannot be made.
    #[error("make a key and its certificate request: {0}")]
    Key(#[from] rcgen::Error),
}

impl PoolError {
    /// `operation` on the file `path` failed.
    pub fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::File {
            operation,
            path,
            source,
        }
    }

    /// `what` cannot be used.
    pub fn wrong(what: impl ToString, problem: impl ToString) -> Self {
        Self::Wrong {
            what: what.to_string(),
            problem: problem.to_string(),
        }
    }

    /// `operation` failed at the region's API server, or on the way there.
    pub fn region(operation: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let operation = operation.into();
        move |source| Self::Region {
            operation,
            source: Box::new(source),
        }
    }

    /// The status that the API server refused with, where it did.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Region { source, .. } => match &**source {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether it may go well when it is tried again.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Region { .. } => self
                .code()
                .is_none_or(|code| code == 429 || code == 409 || code >= 500),
            Self::Silent { .. } | Self::Agent { .. } => true,
            _ => false,
        }
    }
}

/// All that the sources say, once each.
fn chain(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return format!("{} ({})", status.message, status.code);
    }
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = source.source();
    }
    text
}

fn remedy(error: &kube::Error) -> &'static str {
    match error {
        kube::Error::Api(status) if status.code == 401 => {
            "; the region does not know this token or certificate (any more): ask it for a token, and join with it (secovia pool join)"
        }
        kube::Error::Api(status) if status.code == 403 => {
            "; the region's operator has to allow it: the rules are in region.yaml"
        }
        kube::Error::Service(_) | kube::Error::HyperError(_) => "; check --server, --ca and the network",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn refused(code: u16) -> PoolError {
        let status = Status::failure("no", "").with_code(code).boxed();
        PoolError::region("do it")(kube::Error::Api(status))
    }

    #[test]
    fn what_may_pass_is_told_from_what_will_not() {
        for (code, passes) in [
            (429, true),
            (500, true),
            (503, true),
            (409, true),
            (401, false),
            (403, false),
            (422, false),
        ] {
            assert_eq!(refused(code).is_passing(), passes, "{code}");
        }
    }

    #[test]
    fn a_refusal_is_said_once_and_with_what_to_do() {
        let text = refused(403).to_string();
        assert_eq!(
            text,
            "do it: no (403); the region's operator has to allow it: the rules are in region.yaml"
        );
    }
}
