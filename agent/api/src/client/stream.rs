//! Answers that go on: frames of a guest, lines of a log.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::ClientError;
use crate::LogRecord;

/// The longest line of a log answer that is taken; a record is far shorter.
const MAX_LINE: usize = 16 * 1024 * 1024;

/// The bytes between a client and a guest, after the upgrade: guest-protocol frames both ways.
#[derive(Debug)]
pub struct GuestStream(TokioIo<Upgraded>);

impl GuestStream {
    pub(super) fn new(upgraded: Upgraded) -> Self {
        Self(TokioIo::new(upgraded))
    }
}

impl AsyncRead for GuestStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for GuestStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The records of a log, one after the other.
#[derive(Debug)]
pub struct LogStream {
    socket: PathBuf,
    body: Incoming,
    lines: Lines,
}

impl LogStream {
    pub(super) fn new(socket: PathBuf, body: Incoming) -> Self {
        Self {
            socket,
            body,
            lines: Lines::default(),
        }
    }

    /// The next record; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<LogRecord>, ClientError> {
        loop {
            if let Some(line) = self.lines.next() {
                return match serde_json::from_slice(&line) {
                    Ok(record) => Ok(Some(record)),
                    Err(source) => Err(self.bad(source.to_string())),
                };
            }
            if self.lines.waiting() > MAX_LINE {
                return Err(self.bad(format!("a line longer than {MAX_LINE} bytes")));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.lines.push(data);
                    }
                }
                Some(Err(source)) => {
                    return Err(ClientError::Lost {
                        socket: self.socket.clone(),
                        source: source.into(),
                    });
                }
                None if self.lines.waiting() == 0 => return Ok(None),
                None => return Err(self.bad("the last line is cut off".to_string())),
            }
        }
    }

    fn bad(&self, reason: String) -> ClientError {
        ClientError::BadAnswer {
            socket: self.socket.clone(),
            path: "logs".to_string(),
            reason,
        }
    }
}

/// Bytes, cut anywhere, into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// Up to here there is no line end.
    searched: usize,
}

impl Lines {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole line, without its end; empty ones are left out.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let Some(end) = self.buffer[self.searched..].iter().position(|&b| b == b'\n') else {
                self.searched = self.buffer.len();
                return None;
            };
            let mut line: Vec<u8> = self.buffer.drain(..=self.searched + end).collect();
            self.searched = 0;
            line.pop();
            if !line.is_empty() {
                return Some(line);
            }
        }
    }

    /// Bytes of a line that is not whole yet.
    pub(super) fn waiting(&self) -> usize {
        self.buffer.len()
    }
}
