//! Frames to bytes and back.

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
        }
    }

    fn payload(&self) -> Result<Vec<u8>, serde_json::Error> {
        match self {
            Self::Request(v) => serde_json::to_vec(v),
            Self::Reply(v) => serde_json::to_vec(v),
            Self::Error(v) => serde_json::to_vec(v),
            Self::Stdin(bytes) | Self::Stdout(bytes) | Self::Stderr(bytes) => Ok(bytes.clone()),
            Self::StdinEof => Ok(Vec::new()),
            Self::Gap(v) => to_json(v),
            Self::Resize(v) => to_json(v),
            Self::Signal(v) => to_json(v),
            Self::Exit(v) => to_json(v),
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
            _ => Err(CodecError::UnknownKind(kind)),
        }
    }
}

fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(value)
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
}

impl Decoder {
    /// Takes bytes as they arrive.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, `None` until more bytes come. After an error the stream is lost.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, CodecError> {
        let Some((header, rest)) = self.buffer.split_first_chunk::<HEADER>() else {
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
        self.buffer.drain(..HEADER + length);
        Ok(Some(frame))
    }

    /// Whether the stream may end here: no part of a frame is waiting.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ExitStatus, GuestError, GuestErrorCode, ProcessSpec, Reply, Request, WindowSize, WorkloadSpec,
    };

    fn every_frame() -> Vec<Frame> {
        let process = ProcessSpec {
            argv: vec!["sh".into(), "-c".into(), "exit 7".into()],
            env: [("A".to_string(), "b=c".to_string())].into(),
            cwd: Some("/srv".into()),
            user: Some("www-data".into()),
            tty: Some(WindowSize { rows: 24, cols: 80 }),
        };
        vec![
            Frame::Request(Request::Info {}),
            Frame::Request(Request::Start(WorkloadSpec {
                hostname: "web-1".into(),
                process: process.clone(),
            })),
            Frame::Request(Request::Attach {
                from: 1 << 40,
                stdin: true,
            }),
            Frame::Request(Request::Exec(process)),
            Frame::Reply(Reply::Done {}),
            Frame::Error(GuestError {
                code: GuestErrorCode::NotFound,
                message: "no".into(),
            }),
            Frame::Stdin(vec![0; MAX_PAYLOAD]),
            Frame::StdinEof,
            Frame::Stdout(b"out".to_vec()),
            Frame::Stderr(vec![]),
            Frame::Gap(3),
            Frame::Resize(WindowSize { rows: 1, cols: 2 }),
            Frame::Signal(15),
            Frame::Exit(ExitStatus::Signaled(9)),
        ]
    }

    #[test]
    fn frames_survive_the_wire_however_it_is_cut() {
        let frames = every_frame();
        let bytes: Vec<u8> = frames.iter().flat_map(|f| encode(f).unwrap()).collect();
        for step in [1, 2, 5, 7, 4096, bytes.len()] {
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for part in bytes.chunks(step) {
                decoder.push(part);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    seen.push(frame);
                }
            }
            assert!(decoder.is_empty());
            assert_eq!(seen, frames, "cut into pieces of {step}");
        }
    }

    #[test]
    fn hostile_headers_are_refused_without_waiting_for_their_payload() {
        let mut decoder = Decoder::default();
        decoder.push(&[6, 0xff, 0xff, 0xff, 0xff]);
        assert!(matches!(decoder.next_frame(), Err(CodecError::TooLarge(_))));
        let mut decoder = Decoder::default();
        decoder.push(&[99, 0, 0, 0, 0]);
        assert!(matches!(decoder.next_frame(), Err(CodecError::UnknownKind(99))));
        let mut decoder = Decoder::default();
        decoder.push(&[1, 2, 0, 0, 0, b'{', b'}']);
        assert!(matches!(
            decoder.next_frame(),
            Err(CodecError::Payload { kind: 1, .. })
        ));
    }

    #[test]
    fn a_frame_that_is_too_large_is_not_sent() {
        let frame = Frame::Stdout(vec![0; MAX_PAYLOAD + 1]);
        assert!(matches!(encode(&frame), Err(CodecError::TooLarge(_))));
    }
}
