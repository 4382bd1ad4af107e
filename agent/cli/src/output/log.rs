//! A log as it is read: pieces of output become bytes again, or lines with their time.

use secovia_agent_api::{LogEvent, LogRecord};

use super::human;
use crate::session::pump::Output;

/// Turns records into what to write.
#[derive(Debug)]
pub(crate) struct LogPrinter {
    timestamps: bool,
    /// The output that is in the middle of a line, if one is.
    within: Option<Output>,
}

/// A record's base64 is none.
#[derive(Debug, thiserror::Error)]
#[error("a record of the log is damaged: {0}")]
pub(crate) struct DamagedRecord(String);

impl LogPrinter {
    /// With or without the time before each line.
    pub(crate) fn new(timestamps: bool) -> Self {
        Self {
            timestamps,
            within: None,
        }
    }

    /// What to write for this record, and where.
    pub(crate) fn take(&mut self, record: LogRecord) -> Result<(Output, Vec<u8>), DamagedRecord> {
        let (output, bytes) = match record.event {
            LogEvent::Stdout(bytes) => (Output::Stdout, bytes.into_bytes()),
            LogEvent::Stderr(bytes) => (Output::Stderr, bytes.into_bytes()),
            LogEvent::Gap(bytes) => {
                let text = format!("secovia: {bytes} bytes of output were dropped here\n");
                return Ok((Output::Stderr, text.into_bytes()));
            }
        };
        let bytes = bytes.map_err(|error| DamagedRecord(error.to_string()))?;
        if self.timestamps {
            Ok((output, self.stamped(output, record.at_ms, &bytes)))
        } else {
            Ok((output, bytes))
        }
    }

    fn stamped(&mut self, output: Output, at_ms: u64, bytes: &[u8]) -> Vec<u8> {
        let mut stamped = Vec::with_capacity(bytes.len() + 32);
        for line in bytes.split_inclusive(|&b| b == b'\n') {
            match self.within {
                // The line goes on.
                Some(within) if within == output => {}
                // The other output left its line open.
                Some(_) => {
                    stamped.push(b'\n');
                    stamped.extend_from_slice(format!("{} ", human::time(at_ms)).as_bytes());
                }
                None => stamped.extend_from_slice(format!("{} ", human::time(at_ms)).as_bytes()),
            }
            stamped.extend_from_slice(line);
            self.within = if line.ends_with(b"\n") { None } else { Some(output) };
        }
        stamped
    }
}
