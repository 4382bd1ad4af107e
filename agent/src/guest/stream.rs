//! Frames on a byte stream.

use std::io;

use secovia_guest_protocol::{Decoder, Frame, encode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::error::GuestCallError;

const BUFFER: usize = 64 * 1024;

/// A connection that carries frames.
#[derive(Debug)]
pub struct FrameStream {
    stream: UnixStream,
    decoder: Decoder,
    buffer: Vec<u8>,
}

impl FrameStream {
    /// On a connection from its first frame on.
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            decoder: Decoder::default(),
            buffer: vec![0; BUFFER],
        }
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: &Frame) -> Result<(), GuestCallError> {
        self.stream.write_all(&encode(frame)?).await?;
        Ok(())
    }

    /// The next frame; `None` where the other end is done.
    pub async fn next(&mut self) -> Result<Option<Frame>, GuestCallError> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(Some(frame));
            }
            let count = self.stream.read(&mut self.buffer).await?;
            if count == 0 {
                return if self.decoder.is_empty() {
                    Ok(None)
                } else {
                    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
                };
            }
            self.decoder.push(&self.buffer[..count]);
        }
    }

    /// A frame that has arrived already, without waiting for more.
    pub fn ready(&mut self) -> Result<Option<Frame>, GuestCallError> {
        Ok(self.decoder.next_frame()?)
    }
}

/// Reads from `stream` until the first frame is whole: the frame, and all bytes read so far, the frame's included.
/// `None` where the stream ends before.
pub async fn first_frame(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<(Frame, Vec<u8>)>, GuestCallError> {
    let mut decoder = Decoder::default();
    let mut bytes = Vec::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(None);
        }
        bytes.extend_from_slice(&buffer[..count]);
        decoder.push(&buffer[..count]);
        if let Some(frame) = decoder.next_frame()? {
            return Ok(Some((frame, bytes)));
        }
    }
}
