//! What can go wrong between agent and guest.

use std::io;

use secovia_guest_protocol::{CodecError, GuestError};

/// Why a guest did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum GuestCallError {
    /// There is no way to it (yet, or any more).
    #[error("the guest cannot be reached: {0}")]
    Unreachable(#[source] io::Error),
    /// It says what no guest of ours says.
    #[error("the guest breaks the protocol: {0}")]
    Protocol(String),
    /// It refused.
    #[error("the guest refused: {0}")]
    Refused(#[source] GuestError),
}

impl From<CodecError> for GuestCallError {
    fn from(error: CodecError) -> Self {
        Self::Protocol(error.to_string())
    }
}

impl From<io::Error> for GuestCallError {
    fn from(error: io::Error) -> Self {
        Self::Unreachable(error)
    }
}
