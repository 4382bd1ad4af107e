//! This end of a session: standard input, output and error, signals, the terminal.
//!
//! Blocking reads and writes happen on two threads, so that a full pipe or an idle keyboard holds up neither signals
//! nor the guest. One thread writes both outputs, which keeps their order. The threads end with the process.

use std::io::{self, Read, Write};
use std::thread;

use secovia_guest_protocol::WindowSize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::pump::Output;
use crate::terminal::{self, RawMode};

const STDIN_CHUNK: usize = 64 * 1024;

/// Standard input as chunks; an empty channel end is the end of input.
#[derive(Debug)]
pub(crate) struct Stdin(mpsc::Receiver<Vec<u8>>);

impl Stdin {
    /// Starts reading: from here on what is typed is taken.
    pub(crate) fn start() -> io::Result<Self> {
        // A depth of one: what the guest does not take stays in the pipe.
        let (sender, receiver) = mpsc::channel(1);
        thread::Builder::new().name("stdin".into()).spawn(move || {
            let mut stdin = io::stdin().lock();
            let mut buffer = vec![0; STDIN_CHUNK];
            loop {
                match stdin.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(n) => {
                        if sender.blocking_send(buffer[..n].to_vec()).is_err() {
                            return;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // An input that cannot be read has nothing more to give.
                    Err(_) => return,
                }
            }
        })?;
        Ok(Self(receiver))
    }

    /// The next chunk; `None` at the end. May be dropped without losing any.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        self.0.recv().await
    }
}

/// Standard output and error, each write flushed at once.
#[derive(Debug)]
pub(crate) struct Outputs {
    sender: mpsc::Sender<(Output, Vec<u8>)>,
    closed: mpsc::Receiver<Output>,
    finished: oneshot::Receiver<()>,
}

impl Outputs {
    /// Starts the thread that writes.
    pub(crate) fn start() -> io::Result<Self> {
        let (sender, mut receiver) = mpsc::channel::<(Output, Vec<u8>)>(8);
        // Each output closes once.
        let (closed_sender, closed) = mpsc::channel(2);
        let (finish, finished) = oneshot::channel();
        thread::Builder::new().name("output".into()).spawn(move || {
            let (mut stdout, mut stderr) = (Some(io::stdout()), Some(io::stderr()));
            while let Some((output, bytes)) = receiver.blocking_recv() {
                let result = match output {
                    Output::Stdout => write(&mut stdout, &bytes),
                    Output::Stderr => write(&mut stderr, &bytes),
                };
                if result.is_err() {
                    match output {
                        Output::Stdout => stdout = None,
                        Output::Stderr => stderr = None,
                    }
                    let _ = closed_sender.try_send(output);
                }
            }
            let _ = finish.send(());
        })?;
        Ok(Self {
            sender,
            closed,
            finished,
        })
    }

    /// The way to the writer; `reserve` waits for room.
    pub(crate) fn sender(&self) -> mpsc::Sender<(Output, Vec<u8>)> {
        self.sender.clone()
    }

    /// The next output that nobody reads any more.
    pub(crate) async fn closed(&mut self) -> Option<Output> {
        self.closed.recv().await
    }

    /// Waits until all is written; the senders must be gone.
    pub(crate) async fn finish(self) {
        drop(self.sender);
        let _ = self.finished.await;
    }
}

fn write<W: Write>(target: &mut Option<W>, bytes: &[u8]) -> io::Result<()> {
    match target {
        Some(target) => {
            target.write_all(bytes)?;
            target.flush()
        }
        None => Ok(()),
    }
}

/// What a signal means to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// For the process in the guest: the signal's Linux number.
    Signal(i32),
    /// The terminal has a new size.
    Resized,
}

/// The signals that are handed on to the guest instead of ending this process.
#[derive(Debug)]
pub(crate) struct Signals {
    hangup: Signal,
    interrupt: Signal,
    quit: Signal,
    user1: Signal,
    user2: Signal,
    terminate: Signal,
    window: Signal,
}

impl Signals {
    /// Takes the signals over, for the rest of this process's life.
    pub(crate) fn take_over() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            terminate: signal(SignalKind::terminate())?,
            window: signal(SignalKind::window_change())?,
        })
    }

    /// The next one. May be dropped without losing any.
    pub(crate) async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.hangup.recv() => Event::Signal(1),
            _ = self.interrupt.recv() => Event::Signal(2),
            _ = self.quit.recv() => Event::Signal(3),
            _ = self.user1.recv() => Event::Signal(10),
            _ = self.user2.recv() => Event::Signal(12),
            _ = self.terminate.recv() => Event::Signal(15),
            _ = self.window.recv() => Event::Resized,
        }
    }

    /// The next that asks this process to end.
    pub(crate) async fn next_plea(&mut self) -> i32 {
        loop {
            match self.next().await {
                Event::Signal(signal @ (1 | 2 | 3 | 15)) => return signal,
                Event::Signal(_) | Event::Resized => {}
            }
        }
    }
}

/// All of it, for one `run` or `exec`.
#[derive(Debug)]
pub(crate) struct Console {
    /// The signals.
    pub signals: Signals,
    /// The outputs.
    pub outputs: Outputs,
    /// The input, from when it was first wanted.
    pub stdin: Option<Stdin>,
    /// The process in the guest runs on a terminal.
    pub tty: bool,
    /// Keys go to the process in the guest.
    pub interactive: bool,
}

impl Console {
    /// Takes signals and outputs over.
    pub(crate) fn open(tty: bool, interactive: bool) -> io::Result<Self> {
        Ok(Self {
            signals: Signals::take_over()?,
            outputs: Outputs::start()?,
            stdin: None,
            tty,
            interactive,
        })
    }

    /// Makes the terminal raw where there is one and its keys go to a terminal in the guest.
    pub(crate) fn raw_mode(&self) -> io::Result<Option<RawMode>> {
        if self.tty && self.interactive && terminal::stdin_is_terminal() {
            RawMode::enter().map(Some)
        } else {
            Ok(None)
        }
    }
}

/// The terminal's size, for the guest.
pub(crate) fn window_size() -> WindowSize {
    let size = terminal::size();
    WindowSize {
        rows: size.rows,
        cols: size.cols,
    }
}
