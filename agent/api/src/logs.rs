//! The output of a workload, as the agent kept it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Which part of the output is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
pub struct LogQuery {
    /// Of this container, where the microVM has several; the first of them that is no init container where none is given.
    #[serde(default)]
    pub container: Option<String>,
    /// Go on with new output until the microVM ends.
    #[serde(default)]
    pub follow: bool,
    /// Only the last so many lines of what is there.
    #[serde(default)]
    pub tail: Option<u64>,
    /// Only what was written at or after this time, in milliseconds since 1970-01-01 UTC.
    #[serde(default)]
    pub since: Option<u64>,
}

/// One line of the answer (JSON lines): a piece of output, as it came from the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogRecord {
    /// When the agent received it.
    pub at_ms: u64,
    /// What came.
    pub event: LogEvent,
}

/// What came from the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum LogEvent {
    /// Bytes of standard output (of the terminal, where there is one).
    Stdout(LogBytes),
    /// Bytes of standard error.
    Stderr(LogBytes),
    /// So many bytes are missing here: they were dropped for the size limit.
    Gap(u64),
}

/// Bytes in JSON: text where they are UTF-8, else base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum LogBytes {
    /// The bytes are this text.
    Text(String),
    /// The bytes in base64 (RFC 4648, section 4, padded).
    Base64(String),
}

impl LogBytes {
    /// Bytes for the wire.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_string()),
            Err(_) => Self::Base64(STANDARD.encode(bytes)),
        }
    }

    /// The bytes again; fails where the base64 is none.
    pub fn into_bytes(self) -> Result<Vec<u8>, base64::DecodeError> {
        match self {
            Self::Text(text) => Ok(text.into_bytes()),
            Self::Base64(text) => STANDARD.decode(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_survive() {
        for bytes in [&b""[..], b"line\n", b"\xff\x00", "é".as_bytes()] {
            let record = LogRecord {
                at_ms: 1,
                event: LogEvent::Stderr(LogBytes::from_bytes(bytes)),
            };
            let json = serde_json::to_string(&record).unwrap();
            let LogEvent::Stderr(back) = serde_json::from_str::<LogRecord>(&json).unwrap().event else {
                panic!("{json}");
            };
            assert_eq!(back.into_bytes().unwrap(), bytes);
        }
        assert!(LogBytes::Base64("?".into()).into_bytes().is_err());
    }
}
