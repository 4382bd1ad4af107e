//! What tests of the guest's server share: the host's end of a session, and commands to run.

// Each test program uses its own part of this.
#![allow(dead_code)]

pub(crate) mod machine;
pub(crate) mod pod;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use secovia_guest_protocol::{
    Decoder, ExitStatus, Frame, GuestErrorCode, ProcessSpec, Reply, WindowSize, encode,
};

pub(crate) const DONE: Frame = Frame::Reply(Reply::Done {});

/// The host's end of one session.
pub(crate) struct Session {
    pub(crate) socket: UnixStream,
    decoder: Decoder,
}

/// All that a session told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) out: Vec<u8>,
    pub(crate) err: Vec<u8>,
    pub(crate) gap: u64,
    pub(crate) exit: Option<ExitStatus>,
}

impl Session {
    /// A guest that says nothing for so long is taken for dead.
    const PATIENCE: Duration = Duration::from_secs(60);

    pub(crate) fn new(socket: UnixStream) -> Self {
        socket.set_read_timeout(Some(Self::PATIENCE)).unwrap();
        Self {
            socket,
            decoder: Decoder::default(),
        }
    }

    pub(crate) fn send(&mut self, frame: &Frame) {
        self.socket.write_all(&encode(frame).unwrap()).unwrap();
    }

    /// The next frame; `None` where the guest hung up.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            match self.socket.read(&mut buffer).expect("the guest answers in time") {
                0 => return None,
                count => self.decoder.push(&buffer[..count]),
            }
        }
    }

    pub(crate) fn error(&mut self) -> GuestErrorCode {
        match self.next() {
            Some(Frame::Error(error)) => error.code,
            other => panic!("{other:?} is not an error"),
        }
    }

    /// Reads to the exit.
    pub(crate) fn finish(&mut self) -> Seen {
        let mut seen = Seen::default();
        while seen.exit.is_none() {
            match self.next() {
                Some(Frame::Stdout(bytes)) => seen.out.extend(bytes),
                Some(Frame::Stderr(bytes)) => seen.err.extend(bytes),
                Some(Frame::Gap(count)) => seen.gap += count,
                Some(Frame::Exit(status)) => seen.exit = Some(status),
                other => panic!("{other:?}"),
            }
        }
        seen
    }

    /// Reads until standard output holds this.
    pub(crate) fn until(&mut self, wanted: &str) -> String {
        let mut out = String::new();
        while !out.contains(wanted) {
            match self.next() {
                Some(Frame::Stdout(bytes)) => out.push_str(&String::from_utf8_lossy(&bytes)),
                // A shell may have something to say about its children's ends.
                Some(Frame::Stderr(_)) => {}
                other => panic!("{other:?} after {out:?}"),
            }
        }
        out
    }
}

pub(crate) fn sh(script: &str) -> ProcessSpec {
    let argv = ["sh", "-c", script].map(String::from).to_vec();
    ProcessSpec {
        argv,
        env: BTreeMap::new(),
        cwd: None,
        user: None,
        tty: None,
    }
}

pub(crate) fn on_terminal(script: &str) -> ProcessSpec {
    ProcessSpec {
        tty: Some(WindowSize { rows: 24, cols: 80 }),
        ..sh(script)
    }
}

pub(crate) fn program(name: &str) -> ProcessSpec {
    ProcessSpec {
        argv: vec![name.into()],
        ..sh("")
    }
}
