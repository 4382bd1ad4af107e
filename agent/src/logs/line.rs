//! One line of a log, to bytes and back.

use std::str;

use jiff::Timestamp;
use secovia_agent_api::{LogBytes, LogEvent, LogRecord};

/// What a line holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bytes of standard output; a line of output ends here, or does not.
    Stdout {
        /// A line end follows the bytes.
        full: bool,
    },
    /// Bytes of standard error.
    Stderr {
        /// A line end follows the bytes.
        full: bool,
    },
    /// So many bytes of output are missing.
    Gap(u64),
    /// A run begins.
    Start,
}

/// One line of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// When it was written.
    pub at: Timestamp,
    /// What it holds.
    pub kind: Kind,
    /// The bytes, without the line end.
    pub text: &'a [u8],
}

/// Bytes that are no line of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a log line: expected TIME STREAM TAGS TEXT")]
pub struct ParseLineError;

impl<'a> Line<'a> {
    /// Reads a line, given without its line end.
    pub fn parse(line: &'a [u8]) -> Result<Self, ParseLineError> {
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let mut field = || fields.next().ok_or(ParseLineError);
        let (at, stream, tags, text) = (field()?, field()?, field()?, field()?);
        let at = str::from_utf8(at)
            .ok()
            .and_then(|at| at.parse().ok())
            .ok_or(ParseLineError)?;
        let kind = match (stream, tags) {
            (b"stdout", b"F") => Kind::Stdout { full: true },
            (b"stdout", b"P") => Kind::Stdout { full: false },
            (b"stderr", b"F") => Kind::Stderr { full: true },
            (b"stderr", b"P") => Kind::Stderr { full: false },
            (b"stderr", b"F:start") => Kind::Start,
            (b"stderr", tags) => {
                let count = tags
                    .strip_prefix(b"F:gap=")
                    .and_then(|count| str::from_utf8(count).ok());
                Kind::Gap(count.and_then(|count| count.parse().ok()).ok_or(ParseLineError)?)
            }
            _ => return Err(ParseLineError),
        };
        Ok(Self { at, kind, text })
    }

    /// Appends the line and its end.
    pub fn write(&self, to: &mut Vec<u8>) {
        let tags = match self.kind {
            Kind::Stdout { full: true } => "stdout F".to_string(),
            Kind::Stdout { full: false } => "stdout P".to_string(),
            Kind::Stderr { full: true } => "stderr F".to_string(),
            Kind::Stderr { full: false } => "stderr P".to_string(),
            Kind::Start => "stderr F:start".to_string(),
            Kind::Gap(count) => format!("stderr F:gap={count}"),
        };
        to.extend_from_slice(format!("{} {tags} ", self.at).as_bytes());
        to.extend_from_slice(self.text);
        to.push(b'\n');
    }

    /// How many bytes of the workload's output the line stands for.
    pub fn output(&self) -> u64 {
        match self.kind {
            Kind::Stdout { full } | Kind::Stderr { full } => {
                (self.text.len() as u64).saturating_add(u64::from(full))
            }
            Kind::Gap(count) => count,
            Kind::Start => 0,
        }
    }

    /// Whether a line of output ends here.
    pub fn ends_line(&self) -> bool {
        matches!(
            self.kind,
            Kind::Stdout { full: true } | Kind::Stderr { full: true }
        )
    }

    /// What the API shows; the start of a run is no output.
    pub fn record(&self) -> Option<LogRecord> {
        let bytes = |full: bool| {
            let mut bytes = self.text.to_vec();
            if full {
                bytes.push(b'\n');
            }
            LogBytes::from_bytes(&bytes)
        };
        let event = match self.kind {
            Kind::Stdout { full } => LogEvent::Stdout(bytes(full)),
            Kind::Stderr { full } => LogEvent::Stderr(bytes(full)),
            Kind::Gap(count) => LogEvent::Gap(count),
            Kind::Start => return None,
        };
        Some(LogRecord {
            at_ms: self.at.as_millisecond().max(0) as u64,
            event,
        })
    }
}
