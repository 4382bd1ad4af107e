//! One command, the workload or an exec: its streams and its end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::posix_openpt;
use nix::sys::eventfd::{EfdFlags, EventFd};
use secovia_guest_protocol::{
    ExitStatus, GuestError, GuestErrorCode, ProcessSpec, WindowSize, WorkloadState,
};

use crate::children::{Children, Pids, thread};
use crate::output::{Output, Piece, ReaderId, Stream};
use crate::plan::{Plan, refused};
use crate::stdin::{Fed, Stdin};
use crate::{lock, pump, sys};

/// A command from before its start to after its end. Sessions share it.
pub(crate) struct Process {
    children: Arc<Children>,
    pids: Pids,
    state: Mutex<State>,
    /// Something in `state` changed.
    changed: Condvar,
    stdin: Stdin,
    /// Readable once the command has ended.
    exited: EventFd,
}

struct State {
    life: Life,
    output: Output,
}

enum Life {
    Waiting,
    Running(Running),
    Ended(ExitStatus),
}

struct Running {
    pid: i32,
    terminal: Option<Arc<OwnedFd>>,
    /// How many of its streams are still read.
    streams: usize,
    /// Set once it was reaped; it counts as ended when its streams are read too.
    status: Option<ExitStatus>,
}

/// What a follower gets next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Data(Stream, Vec<u8>),
    Gap(u64),
    Exit(ExitStatus),
    /// The follower was detached.
    Detached,
}

fn failed(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> GuestError {
    move |error| refused(GuestErrorCode::Failed, format!("{what}: {error}"))
}

impl Process {
    /// A command that waits for its start, and keeps this many bytes of its output.
    pub(crate) fn new(children: Arc<Children>, history: usize) -> io::Result<Arc<Self>> {
        Self::new_among(children, history, Pids::Ours)
    }

    /// The same, with these process numbers.
    pub(crate) fn new_among(children: Arc<Children>, history: usize, pids: Pids) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            children,
            pids,
            state: Mutex::new(State {
                life: Life::Waiting,
                output: Output::new(history),
            }),
            changed: Condvar::new(),
            stdin: Stdin::new()?,
            exited: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
        }))
    }

    /// Starts it; only once. After an error it still waits.
    pub(crate) fn start(self: &Arc<Self>, spec: &ProcessSpec) -> Result<(), GuestError> {
        let mut state = lock(&self.state);
        if !matches!(state.life, Life::Waiting) {
            let message = "the workload was started before; a guest runs one";
            return Err(refused(GuestErrorCode::AlreadyStarted, message));
        }
        let plan = Plan::new(spec)?;
        let running = self.spawn(plan, spec.tty)?;
        state.life = Life::Running(running);
        self.changed.notify_all();
        Ok(())
    }

    /// With the state locked: the child and the pumps report back through it, and so wait for their entry in it.
    fn spawn(self: &Arc<Self>, plan: Plan, tty: Option<WindowSize>) -> Result<Running, GuestError> {
        let mut command = plan.command(tty.is_some(), matches!(self.pids, Pids::New));
        let (terminal, streams) = match tty {
            Some(size) => {
                let (master, peer) = open_terminal(size).map_err(failed("cannot open a terminal"))?;
                let copy = |fd: &OwnedFd| fd.try_clone().map_err(failed("cannot copy a descriptor"));
                command.stdin(copy(&peer)?).stdout(copy(&peer)?).stderr(peer);
                let master = Arc::new(master);
                (Some(Arc::clone(&master)), vec![(Stream::Stdout, master)])
            }
            None => {
                let open = || quiet_pipe().map_err(failed("cannot open a pipe"));
                let (out, err) = (open()?, open()?);
                let stdin = self
                    .stdin
                    .reader()
                    .map_err(failed("cannot hand over standard input"))?;
                command.stdin(stdin).stdout(out.1).stderr(err.1);
                let streams = vec![
                    (Stream::Stdout, Arc::new(out.0)),
                    (Stream::Stderr, Arc::new(err.0)),
                ];
                (None, streams)
            }
        };
        let count = streams.len();
        for (stream, source) in streams {
            let process = Arc::clone(self);
            let pump = move || {
                let take = |bytes: &[u8]| process.push(stream, bytes);
                pump::output(source.as_fd(), process.exited.as_fd(), take);
                process.stream_ended();
            };
            thread("output", pump).map_err(failed("cannot start a thread"))?;
        }
        let process = Arc::clone(self);
        let on_end = Box::new(move |status| process.exited(status));
        let pid = self
            .children
            .spawn(&mut command, &self.pids, on_end)
            .map_err(|error| {
                let code = match error.kind() {
                    io::ErrorKind::NotFound => GuestErrorCode::NotFound,
                    io::ErrorKind::PermissionDenied => GuestErrorCode::NotExecutable,
                    _ => GuestErrorCode::Failed,
                };
                refused(code, format!("cannot run {}: {error}", plan.program().display()))
            })?;
        // Our copies of the child's ends go with the command: what reads the child's streams must see their end.
        drop(command);
        if let Some(master) = &terminal
            && let Err(error) = self.start_typist(Arc::clone(master))
        {
            let _ = self.children.signal(pid, libc::SIGKILL);
            return Err(failed("cannot start a thread")(error));
        }
        self.stdin.handed_over();
        Ok(Running {
            pid,
            terminal,
            streams: count,
            status: None,
        })
    }

    fn start_typist(&self, master: Arc<OwnedFd>) -> io::Result<()> {
        let source = self.stdin.reader()?;
        thread("input", move || pump::typist(source, master.as_fd()))
    }

    /// Takes output; blocks while a follower is behind.
    fn push(&self, stream: Stream, mut bytes: &[u8]) {
        let mut state = lock(&self.state);
        loop {
            let taken = state.output.accept(stream, bytes);
            if taken > 0 {
                self.changed.notify_all();
            }
            bytes = bytes.get(taken..).unwrap_or_default();
            if bytes.is_empty() {
                return;
            }
            if taken == 0 {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn stream_ended(&self) {
        self.settle(|running| running.streams = running.streams.saturating_sub(1));
    }

    fn exited(&self, status: ExitStatus) {
        let _ = self.exited.write(1);
        self.settle(|running| running.status = Some(status));
    }

    /// Changes a running command, which may end it.
    fn settle(&self, change: impl FnOnce(&mut Running)) {
        let mut state = lock(&self.state);
        if let Life::Running(running) = &mut state.life {
            change(running);
            if let Running {
                streams: 0,
                status: Some(status),
                ..
            } = *running
            {
                state.life = Life::Ended(status);
            }
        }
        self.changed.notify_all();
    }

    /// Adds a follower at byte `from` of the output; `None` where so much was never written.
    pub(crate) fn attach(&self, from: u64) -> Option<ReaderId> {
        lock(&self.state).output.attach(from)
    }

    /// Removes a follower: it holds nobody up any more, and its [`Process::follow`] ends.
    pub(crate) fn detach(&self, id: ReaderId) {
        lock(&self.state).output.detach(id);
        self.changed.notify_all();
    }

    /// Blocks until there is something for a follower. [`Process::advance`] acknowledges it.
    pub(crate) fn follow(&self, id: ReaderId, max: usize) -> Event {
        let mut state = lock(&self.state);
        loop {
            match (state.output.next(id, max), &state.life) {
                (Piece::Data(stream, bytes), _) => return Event::Data(stream, bytes),
                (Piece::Gap(count), _) => return Event::Gap(count),
                (Piece::Detached, _) => return Event::Detached,
                (Piece::UpToDate, Life::Ended(status)) => return Event::Exit(*status),
                (Piece::UpToDate, Life::Waiting | Life::Running(_)) => {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// A follower has got so many bytes on their way.
    pub(crate) fn advance(&self, id: ReaderId, count: u64) {
        lock(&self.state).output.advance(id, count);
        self.changed.notify_all();
    }

    /// Signals its process group; false where it does not run.
    pub(crate) fn signal(&self, signal: i32) -> io::Result<bool> {
        match &lock(&self.state).life {
            Life::Running(Running {
                pid, status: None, ..
            }) => self.children.signal(*pid, signal),
            Life::Waiting | Life::Running(_) | Life::Ended(_) => Ok(false),
        }
    }

    /// Tells its terminal, where it has one, a new size.
    pub(crate) fn resize(&self, size: WindowSize) {
        if let Life::Running(Running {
            terminal: Some(terminal),
            ..
        }) = &lock(&self.state).life
        {
            let _ = sys::set_window_size(terminal.as_fd(), size);
        }
    }

    /// Gives it input; see [`Stdin::feed`].
    pub(crate) fn feed(&self, bytes: &[u8], host: BorrowedFd<'_>) -> Fed {
        self.stdin.feed(bytes, host)
    }

    /// Ends its input.
    pub(crate) fn end_input(&self) {
        self.stdin.close();
    }

    /// Its number here, while it runs.
    pub(crate) fn pid(&self) -> Option<i32> {
        match &lock(&self.state).life {
            Life::Running(Running {
                pid, status: None, ..
            }) => Some(*pid),
            Life::Waiting | Life::Running(_) | Life::Ended(_) => None,
        }
    }

    /// How it ended, once it has and its streams are read.
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        match &lock(&self.state).life {
            Life::Ended(status) => Some(*status),
            Life::Waiting | Life::Running(_) => None,
        }
    }

    /// What it does, and how many bytes it has written.
    pub(crate) fn report(&self) -> (WorkloadState, u64) {
        let state = lock(&self.state);
        let life = match &state.life {
            Life::Waiting => WorkloadState::Waiting,
            Life::Running(_) => WorkloadState::Running,
            Life::Ended(status) => WorkloadState::Ended(*status),
        };
        (life, state.output.total())
    }

    /// Waits until it does not run, at most until the deadline, which is asked for anew after each
    /// [`Process::wake`]. True where it does not run.
    pub(crate) fn wait_until_over(&self, deadline: impl Fn() -> Instant) -> bool {
        let mut state = lock(&self.state);
        loop {
            if !matches!(state.life, Life::Running(_)) {
                return true;
            }
            let left = deadline().saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Makes those who wait look again.
    pub(crate) fn wake(&self) {
        drop(lock(&self.state));
        self.changed.notify_all();
    }

    /// Ends it because the host that asked for it is gone.
    pub(crate) fn hang_up(&self) {
        const GRACE: Duration = Duration::from_secs(2);
        self.end_input();
        let deadline = Instant::now().checked_add(GRACE);
        if self.signal(libc::SIGHUP).unwrap_or(false)
            && !self.wait_until_over(|| deadline.unwrap_or_else(Instant::now))
        {
            let _ = self.signal(libc::SIGKILL);
        }
    }
}

/// A pipe whose reading end does not block.
fn quiet_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((reader, writer))
}

/// A terminal: our end, which does not block, and the command's.
fn open_terminal(size: WindowSize) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let master = posix_openpt(flags)?;
    nix::pty::unlockpt(&master)?;
    let master = OwnedFd::from(master);
    let peer = sys::terminal_peer(master.as_fd())?;
    sys::set_window_size(peer.as_fd(), size)?;
    Ok((master, peer))
}
