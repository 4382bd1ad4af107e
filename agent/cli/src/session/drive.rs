//! Carries the bytes of one connection until the session ends: what to do is the pump's to say.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use secovia_guest_protocol::{Decoder, encode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::console::{Console, Event, Stdin, window_size};
use super::pump::{Effect, Input, Outcome, Output, Pump};
use crate::failure;

/// How long the last word to a guest may take.
const FAREWELL: Duration = Duration::from_millis(200);

const READ_CHUNK: usize = 64 * 1024;

/// Opens the session on this connection and carries it to its end.
///
/// Neither side can flood the other: standard input is read only when the guest has taken all before, the guest's
/// frames only when all output before has been handed to the writer.
pub(crate) async fn drive<S>(stream: S, pump: &mut Pump, console: &mut Console) -> io::Result<Outcome>
where
    S: AsyncRead + AsyncWrite,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; READ_CHUNK];
    let mut queues = Queues::default();
    let mut raw_mode = None;
    let output = console.outputs.sender();

    let effects = pump.open();
    queues.take(effects)?;
    loop {
        if pump.is_streaming() && raw_mode.is_none() {
            raw_mode = Some(console.raw_mode()?);
            if console.tty {
                // It may have changed since the request was made.
                let effects = pump.step(Input::Resize(window_size()));
                queues.take(effects)?;
            }
        }
        match pump.outcome() {
            Some(Outcome::Abandoned) => {
                // The last signal should arrive, but a guest that takes nothing must not hold the person.
                let _ = tokio::time::timeout(FAREWELL, writer.write_all(&queues.network)).await;
                return Ok(Outcome::Abandoned);
            }
            Some(outcome) if queues.output.is_empty() => return Ok(outcome.clone()),
            Some(_) | None => {}
        }
        let ended = pump.outcome().is_some();
        let stdin_wanted = pump.wants_stdin() && queues.network.is_empty();
        if stdin_wanted && console.stdin.is_none() {
            console.stdin = Some(Stdin::start()?);
        }

        let input = tokio::select! {
            event = console.signals.next() => match event {
                Event::Signal(signal) => Some(Input::Signal(signal)),
                Event::Resized if console.tty => Some(Input::Resize(window_size())),
                Event::Resized => None,
            },
            Some(closed) = console.outputs.closed() => {
                queues.forget(closed);
                Some(Input::OutputClosed(closed))
            },
            Ok(room) = output.reserve(), if !queues.output.is_empty() => {
                if let Some(write) = queues.output.pop_front() {
                    room.send(write);
                }
                None
            },
            written = writer.write(&queues.network), if !queues.network.is_empty() && !ended => match written {
                Ok(0) => Some(Input::HangUp),
                Ok(n) => {
                    queues.network.drain(..n);
                    None
                }
                // What the guest sent before it hung up is still to be read; the read will see the end.
                Err(_) => {
                    queues.network.clear();
                    None
                }
            },
            read = reader.read(&mut buffer), if queues.output.is_empty() && !ended => {
                match read {
                    Ok(n) if n > 0 => {
                        decoder.push(&buffer[..n]);
                        decode(&mut decoder, pump, &mut queues)?;
                        None
                    }
                    Ok(_) | Err(_) => Some(Input::HangUp),
                }
            },
            chunk = next_chunk(&mut console.stdin), if stdin_wanted => {
                Some(chunk.map_or(Input::StdinEof, Input::Stdin))
            },
        };
        if let Some(input) = input {
            let effects = pump.step(input);
            queues.take(effects)?;
        }
    }
}

async fn next_chunk(stdin: &mut Option<Stdin>) -> Option<Vec<u8>> {
    match stdin {
        Some(stdin) => stdin.next().await,
        None => None,
    }
}

fn decode(decoder: &mut Decoder, pump: &mut Pump, queues: &mut Queues) -> io::Result<()> {
    loop {
        let input = match decoder.next_frame() {
            Ok(Some(frame)) => Input::Frame(frame),
            Ok(None) => return Ok(()),
            Err(error) => {
                failure::tell(&format!("the guest sent what is no frame: {error}"));
                Input::HangUp
            }
        };
        let effects = pump.step(input);
        queues.take(effects)?;
        if pump.outcome().is_some() {
            return Ok(());
        }
    }
}

/// What is to be written, to either side.
#[derive(Default)]
struct Queues {
    network: Vec<u8>,
    output: VecDeque<(Output, Vec<u8>)>,
}

impl Queues {
    /// Fails where a request is too large for a frame: arguments and environment beyond any limit.
    fn take(&mut self, effects: Vec<Effect>) -> io::Result<()> {
        for effect in effects {
            match effect {
                Effect::Send(frame) => {
                    let bytes =
                        encode(&frame).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
                    self.network.extend_from_slice(&bytes);
                }
                Effect::Write(output, bytes) => self.output.push_back((output, bytes)),
                // A raw terminal needs the carriage return, and nothing else minds it.
                Effect::Tell(text) => self
                    .output
                    .push_back((Output::Stderr, format!("secovia: {text}\r\n").into_bytes())),
            }
        }
        Ok(())
    }

    fn forget(&mut self, closed: Output) {
        self.output.retain(|(output, _)| *output != closed);
    }
}
