//! Why a command failed, what the person reads of it, and the exit status.

use std::io;

use secovia_agent_api::client::ClientError;

/// The operation failed.
pub(crate) const FAILED: u8 = 1;
/// The command line is wrong.
pub(crate) const USAGE: u8 = 2;
/// What a shell shows for a process that SIGINT ended.
pub(crate) const INTERRUPTED: u8 = 130;
/// What a shell shows for a process that SIGPIPE ended.
pub(crate) const OUTPUT_CLOSED: u8 = 141;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The agent is not there, or refused.
    #[error("{operation}: {source}")]
    Agent {
        /// What was to be done, on what: `stop web`.
        operation: String,
        /// Why it was not.
        source: ClientError,
    },
    /// The operation failed otherwise; the text has object, reason and remedy.
    #[error("{message}")]
    Other {
        /// What the person reads.
        message: String,
        /// The exit status.
        status: u8,
    },
    /// Nobody reads the output any more: no error to tell anybody.
    #[error("standard output is closed")]
    OutputClosed,
    /// Some of several objects failed, and it was told for each.
    #[error("not all could be done")]
    Told,
}

impl Failure {
    /// `operation` failed at the agent, or on the way there.
    pub(crate) fn agent(operation: impl Into<String>) -> impl FnOnce(ClientError) -> Self {
        let operation = operation.into();
        move |source| Self::Agent { operation, source }
    }

    /// The operation failed: this text, status 1.
    pub(crate) fn other(message: impl Into<String>) -> Self {
        Self::Other {
            message: message.into(),
            status: FAILED,
        }
    }

    /// The command line cannot be carried out: this text, status 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Other {
            message: message.into(),
            status: USAGE,
        }
    }

    /// Writing to standard output failed.
    pub(crate) fn output(source: &io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::other(format!("write to standard output: {source}")),
        }
    }

    /// The exit status of the command.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Agent { .. } | Self::Told => FAILED,
            Self::Other { status, .. } => *status,
            Self::OutputClosed => OUTPUT_CLOSED,
        }
    }

    /// Writes the text to standard error, where there is something to tell.
    pub(crate) fn tell(&self) {
        match self {
            Self::OutputClosed | Self::Told => {}
            Self::Agent { .. } | Self::Other { .. } => tell(&self.to_string()),
        }
    }
}

/// One line to the person, on standard error; if that is closed there is nobody to tell.
pub(crate) fn tell(message: &str) {
    use std::io::Write;
    let _ = writeln!(io::stderr(), "secovia: {message}");
}
