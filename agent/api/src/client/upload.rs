//! A body that is made while it is sent.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// So many pieces wait to be sent.
const WAITING: usize = 4;

/// What is sent.
#[derive(Debug)]
pub struct Upload {
    pieces: Receiver<Option<Bytes>>,
    ended: bool,
}

/// The end that it is written to, from a thread that may wait. Unless it is finished, the request breaks off.
#[derive(Debug)]
pub struct UploadWriter(Sender<Option<Bytes>>);

/// Both ends.
pub fn upload() -> (UploadWriter, Upload) {
    let (sender, pieces) = channel(WAITING);
    (UploadWriter(sender), Upload { pieces, ended: false })
}

impl UploadWriter {
    /// All was written.
    pub fn finish(self) -> io::Result<()> {
        self.send(None)
    }

    fn send(&self, piece: Option<Bytes>) -> io::Result<()> {
        let sent = self.0.blocking_send(piece);
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody takes it any more"))
    }
}

impl Write for UploadWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(Some(Bytes::copy_from_slice(bytes)))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.pieces.poll_recv(context).map(|piece| match piece {
            Some(Some(bytes)) => Some(Ok(Frame::data(bytes))),
            Some(None) => {
                self.ended = true;
                None
            }
            None => Some(Err(io::ErrorKind::UnexpectedEof.into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}
