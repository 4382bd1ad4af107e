//! What to do with each frame, key and signal of a session. Pure: `drive` does what the effects say.

#[cfg(test)]
mod tests;

use secovia_guest_protocol::{
    ExitStatus, Frame, GuestError, MAX_PAYLOAD, ProcessSpec, Reply, Request, WindowSize,
};

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGPIPE: i32 = 13;
const SIGTERM: i32 = 15;

/// So many SIGINT or SIGTERM, and the person wants to leave even though the process does not.
const PATIENCE: u8 = 3;

/// What the session is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The workload's streams.
    Attach {
        /// Standard input goes to the workload.
        stdin: bool,
    },
    /// One more process.
    Exec {
        /// In which container, where the microVM has several.
        container: Option<String>,
        /// What runs.
        process: ProcessSpec,
        /// Standard input goes to it; otherwise it finds its input at its end.
        stdin: bool,
    },
}

/// One of the two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// The guest sent this.
    Frame(Frame),
    /// The connection ended, or what came over it is no frame.
    HangUp,
    /// The person typed, or the pipe brought, this.
    Stdin(Vec<u8>),
    /// Standard input is at its end.
    StdinEof,
    /// This process got a signal.
    Signal(i32),
    /// The terminal has a new size.
    Resize(WindowSize),
    /// Nobody reads this output any more.
    OutputClosed(Output),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Send this to the guest.
    Send(Frame),
    /// Write these bytes here.
    Write(Output, Vec<u8>),
    /// Tell the person, on standard error.
    Tell(String),
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The process ended so.
    Exit(ExitStatus),
    /// The guest refused the request, or the session failed in it.
    Refused(GuestError),
    /// The connection ended before the process did.
    HungUp,
    /// The person asked [`PATIENCE`] times to leave, or the terminal is gone.
    Abandoned,
    /// Nobody reads the output of the process any more, and it is of no use without.
    Unread,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// The request is not sent.
    New,
    /// The guest has not answered yet.
    Opening,
    /// The streams flow.
    Streaming,
    /// It is over.
    Ended(Outcome),
}

/// A session at this end.
#[derive(Debug)]
pub(crate) struct Pump {
    purpose: Purpose,
    /// The process runs on a terminal, which is this one.
    tty: bool,
    state: State,
    /// Bytes of the workload's output seen so far, dropped ones included: where to go on after a hang-up.
    offset: u64,
    stdin_ended: bool,
    stdout_closed: bool,
    stderr_closed: bool,
    /// SIGINT and SIGTERM so far.
    pleas: u8,
}

impl Pump {
    /// A session that is not open yet.
    pub(crate) fn new(purpose: Purpose, tty: bool) -> Self {
        Self {
            purpose,
            tty,
            state: State::New,
            offset: 0,
            stdin_ended: false,
            stdout_closed: false,
            stderr_closed: false,
            pleas: 0,
        }
    }

    /// What to send first on a new connection. After a hang-up the workload's output goes on where it broke off.
    pub(crate) fn open(&mut self) -> Vec<Effect> {
        self.state = State::Opening;
        match &self.purpose {
            Purpose::Attach { stdin } => vec![Effect::Send(Frame::Request(Request::Attach {
                from: self.offset,
                stdin: *stdin && !self.stdin_ended,
            }))],
            Purpose::Exec {
                container,
                process,
                stdin,
            } => {
                let process = process.clone();
                let request = match container.clone() {
                    None => Request::Exec(process),
                    Some(container) => Request::ExecIn { container, process },
                };
                let mut effects = vec![Effect::Send(Frame::Request(request))];
                if !stdin {
                    effects.push(Effect::Send(Frame::StdinEof));
                }
                effects
            }
        }
    }

    /// Whether standard input is wanted now.
    pub(crate) fn wants_stdin(&self) -> bool {
        let (Purpose::Attach { stdin } | Purpose::Exec { stdin, .. }) = self.purpose;
        stdin && !self.stdin_ended && self.state == State::Streaming
    }

    /// Whether the streams flow: the time for the terminal to be raw.
    pub(crate) fn is_streaming(&self) -> bool {
        self.state == State::Streaming
    }

    /// How it ended, when it has.
    pub(crate) fn outcome(&self) -> Option<&Outcome> {
        match &self.state {
            State::New | State::Opening | State::Streaming => None,
            State::Ended(outcome) => Some(outcome),
        }
    }

    /// Takes what happened and says what to do.
    pub(crate) fn step(&mut self, input: Input) -> Vec<Effect> {
        match self.state {
            // What still arrives after the end changes nothing.
            State::Ended(_) => Vec::new(),
            State::New | State::Opening | State::Streaming => match input {
                Input::Frame(frame) => self.frame(frame),
                Input::HangUp => self.end(Outcome::HungUp),
                Input::Stdin(bytes) => bytes
                    .chunks(MAX_PAYLOAD)
                    .map(|part| Effect::Send(Frame::Stdin(part.to_vec())))
                    .collect(),
                Input::StdinEof => {
                    self.stdin_ended = true;
                    vec![Effect::Send(Frame::StdinEof)]
                }
                Input::Signal(signal) => self.signal(signal),
                Input::Resize(size) => vec![Effect::Send(Frame::Resize(size))],
                Input::OutputClosed(output) => self.closed(output),
            },
        }
    }

    fn frame(&mut self, frame: Frame) -> Vec<Effect> {
        match (&self.state, frame) {
            (State::Opening, Frame::Reply(Reply::Done {})) => {
                self.state = State::Streaming;
                Vec::new()
            }
            (_, Frame::Error(error)) => self.end(Outcome::Refused(error)),
            (State::Streaming, Frame::Stdout(bytes)) => self.write(Output::Stdout, bytes),
            (State::Streaming, Frame::Stderr(bytes)) => self.write(Output::Stderr, bytes),
            (State::Streaming, Frame::Gap(bytes)) => {
                self.offset = self.offset.saturating_add(bytes);
                vec![Effect::Tell(format!(
                    "{bytes} bytes of output were dropped here: nobody was there to read them"
                ))]
            }
            (State::Streaming, Frame::Exit(status)) => self.end(Outcome::Exit(status)),
            // A guest that speaks out of turn is not listened to any longer.
            (_, _) => self.end(Outcome::HungUp),
        }
    }

    fn write(&mut self, output: Output, bytes: Vec<u8>) -> Vec<Effect> {
        self.offset = self.offset.saturating_add(bytes.len() as u64);
        let closed = match output {
            Output::Stdout => self.stdout_closed,
            Output::Stderr => self.stderr_closed,
        };
        if closed || bytes.is_empty() {
            Vec::new()
        } else {
            vec![Effect::Write(output, bytes)]
        }
    }

    fn signal(&mut self, signal: i32) -> Vec<Effect> {
        if signal == SIGINT || signal == SIGTERM {
            self.pleas += 1;
        }
        if self.pleas >= PATIENCE {
            return self.end(Outcome::Abandoned);
        }
        if signal == SIGHUP && self.tty {
            self.end(Outcome::Abandoned);
        }
        vec![Effect::Send(Frame::Signal(signal))]
    }

    /// As a pipe would: the writer gets SIGPIPE. A process of exec is ended by the hang-up if it goes on.
    fn closed(&mut self, output: Output) -> Vec<Effect> {
        match (output, &self.purpose) {
            (Output::Stderr, _) => {
                self.stderr_closed = true;
                Vec::new()
            }
            (Output::Stdout, Purpose::Exec { .. }) => self.end(Outcome::Unread),
            (Output::Stdout, Purpose::Attach { .. }) => {
                self.stdout_closed = true;
                vec![Effect::Send(Frame::Signal(SIGPIPE))]
            }
        }
    }

    fn end(&mut self, outcome: Outcome) -> Vec<Effect> {
        self.state = State::Ended(outcome);
        Vec::new()
    }
}
