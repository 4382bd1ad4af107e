//! Frames to bytes and back.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Frame, MAX_PAYLOAD};

const HEADER: usize = 5;

/// Why bytes are not a frame; the connection cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The first byte is none of the known kinds.
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    /// The payload would be larger than [`MAX_PAYLOAD`].
    #[error("frame of {0} bytes, at most {MAX_PAYLOAD} are allowed")]
    TooLarge(usize),
    /// The payload is not what the kind asks for.
    #[error("payload of frame kind {kind}: {source}")]
    Payload {
        /// The frame's kind.
        kind: u8,
        /// What is wrong with the JSON.
        source: serde_json::Error,
    },
}

impl Frame {
    fn kind(&self) -> u8 {
        match self {
            Self::Request(_) => 1,
            Self::Reply(_) => 2,
            Self::Error(_) => 3,
            Self::Stdin(_) => 4,
            Self::StdinEof => 5,
            Self::Stdout(_) => 6,
            Self::Stderr(_) => 7,
            Self::Gap(_) => 8,
            Self::Resize(_) => 9,
            Self::Signal(_) => 10,
            Self::Exit(_) => 11,
            Self::Pod(_) => 12,
        }
    }

    fn payload(&self) -> Result<Cow<'_, [u8]>, serde_json::Error> {
        match self {
            Self::Request(v) => to_json(v),
            Self::Reply(v) => to_json(v),
            Self::Error(v) => to_json(v),
            Self::Stdin(bytes) | Self::Stdout(bytes) | Self::Stderr(bytes) => Ok(Cow::Borrowed(bytes)),
            Self::StdinEof => Ok(Cow::Borrowed(&[])),
            Self::Gap(v) => to_json(v),
            Self::Resize(v) => to_json(v),
            Self::Signal(v) => to_json(v),
            Self::Exit(v) => to_json(v),
            Self::Pod(v) => to_json(v),
        }
    }

    fn parse(kind: u8, payload: &[u8]) -> Result<Self, CodecError> {
        match kind {
            1 => from_json(kind, payload).map(Self::Request),
            2 => from_json(kind, payload).map(Self::Reply),
            3 => from_json(kind, payload).map(Self::Error),
            4 => Ok(Self::Stdin(payload.to_vec())),
            5 => Ok(Self::StdinEof),
            6 => Ok(Self::Stdout(payload.to_vec())),
            7 => Ok(Self::Stderr(payload.to_vec())),
            8 => from_json(kind, payload).map(Self::Gap),
            9 => from_json(kind, payload).map(Self::Resize),
            10 => from_json(kind, payload).map(Self::Signal),
            11 => from_json(kind, payload).map(Self::Exit),
            12 => from_json(kind, payload).map(Self::Pod),
            _ => Err(CodecError::UnknownKind(kind)),
        }
    }
}

fn to_json<T: Serialize>(value: &T) -> Result<Cow<'static, [u8]>, serde_json::Error> {
    serde_json::to_vec(value).map(Cow::Owned)
}

fn from_json<T: DeserializeOwned>(kind: u8, payload: &[u8]) -> Result<T, CodecError> {
    serde_json::from_slice(payload).map_err(|source| CodecError::Payload { kind, source })
}

/// The frame as bytes.
///
/// Fails where the payload is larger than [`MAX_PAYLOAD`]; data is to be cut into pieces before.
pub fn encode(frame: &Frame) -> Result<Vec<u8>, CodecError> {
    let kind = frame.kind();
    let payload = frame
        .payload()
        .map_err(|source| CodecError::Payload { kind, source })?;
    if payload.len() > MAX_PAYLOAD {
        return Err(CodecError::TooLarge(payload.len()));
    }
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.push(kind);
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&payload);
    Ok(bytes)
}

/// Turns a stream of bytes, cut anywhere, into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// How much of the buffer was given out as frames already.
    taken: usize,
}

impl Decoder {
    /// Takes bytes as they arrive.
    pub fn push(&mut self, bytes: &[u8]) {
        // Once for many frames, so that what is left is not moved for each.
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, `None` until more bytes come. After an error the stream is lost.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, CodecError> {
        let waiting = self.buffer.get(self.taken..).unwrap_or_default();
        let Some((header, rest)) = waiting.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [kind, length @ ..] = *header;
        let length = u32::from_le_bytes(length) as usize;
        if length > MAX_PAYLOAD {
            return Err(CodecError::TooLarge(length));
        }
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        let frame = Frame::parse(kind, payload)?;
        self.taken += HEADER + length;
        Ok(Some(frame))
    }

    /// Whether the stream may end here: no part of a frame is waiting.
    pub fn is_empty(&self) -> bool {
        self.taken == self.buffer.len()
    }
}

#[cfg(test)]
mod tests;
