//! Spawning and reaping.
//!
//! A child is reaped under the lock that signals are sent under, so a signal never reaches a stranger that was given
//! the number of a child that is gone.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};

use nix::sched::{CloneFlags, setns, unshare};
use secovia_guest_protocol::ExitStatus;

use crate::lock;
use crate::sys::{self, Wait};

/// Which processes are reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaping {
    /// Every child, also those that came here because their parent died. Only for PID 1.
    All,
    /// Only what was spawned here; other children of this process are left alone.
    Own,
}

/// Told once, from a thread of its own, that a child has ended and has been reaped. Must not block for long.
pub(crate) type OnEnd = Box<dyn FnOnce(ExitStatus) + Send>;

/// Whose process numbers a child has.
#[derive(Debug, Clone)]
pub enum Pids {
    /// This process's.
    Ours,
    /// New ones, of which it has the first: all that it leaves ends with it.
    New,
    /// Those of another process, which this pidfd names.
    Like(Arc<OwnedFd>),
}

/// The processes that were spawned here and run.
pub struct Children {
    reaping: Reaping,
    table: Mutex<Table>,
    spawned: Condvar,
}

#[derive(Default)]
struct Table {
    running: BTreeMap<i32, OnEnd>,
    /// How many were ever spawned.
    generation: u64,
    /// Whether nothing is spawned any more.
    closed: bool,
}

impl Children {
    /// Starts reaping.
    pub fn new(reaping: Reaping) -> io::Result<Arc<Self>> {
        let children = Arc::new(Self {
            reaping,
            table: Mutex::default(),
            spawned: Condvar::new(),
        });
        if reaping == Reaping::All {
            let children = Arc::clone(&children);
            thread("reaper", move || children.reap_all())?;
        }
        Ok(children)
    }

    /// Spawns a child and remembers whom to tell of its end.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        command: &mut Command,
        pids: &Pids,
        on_end: OnEnd,
    ) -> io::Result<i32> {
        // The lock is held from before the child exists until it is in the table, so that its end finds it there; and
        // so that nobody else reaps a child that failed to execute, whom the library waits for itself.
        let mut table = lock(&self.table);
        if table.closed {
            return Err(io::Error::other("the machine is being switched off"));
        }
        let pid = spawn_among(command, pids)?;
        table.running.insert(pid, on_end);
        table.generation = table.generation.wrapping_add(1);
        drop(table);
        self.spawned.notify_all();
        if self.reaping == Reaping::Own {
            let children = Arc::clone(self);
            let waiting = thread("wait", move || children.reap_one(pid));
            if let Err(error) = waiting {
                // Nobody would see its end: it must not run on.
                let _ = self.signal(pid, libc::SIGKILL);
                lock(&self.table).running.remove(&pid);
                let _ = sys::wait(Wait::One(pid)).and_then(sys::reap);
                return Err(error);
            }
        }
        Ok(pid)
    }

    /// Signals the process group of a child. False where the child has ended.
    pub(crate) fn signal(&self, pid: i32, signal: i32) -> io::Result<bool> {
        let table = lock(&self.table);
        if !table.running.contains_key(&pid) {
            return Ok(false);
        }
        sys::signal_group(pid, signal).map(|()| true)
    }

    /// Signals the process groups of all children.
    pub(crate) fn signal_all(&self, signal: i32) {
        let table = lock(&self.table);
        for pid in table.running.keys() {
            let _ = sys::signal_group(*pid, signal);
        }
    }

    /// Kills all children, and lets nobody spawn another.
    pub(crate) fn end(&self) {
        lock(&self.table).closed = true;
        self.signal_all(libc::SIGKILL);
    }

    fn reap_one(&self, pid: i32) {
        while let Err(error) = sys::wait(Wait::One(pid)) {
            if error.kind() != io::ErrorKind::Interrupted {
                break;
            }
        }
        self.reap(pid);
    }

    fn reap_all(&self) {
        loop {
            let generation = lock(&self.table).generation;
            match sys::wait(Wait::Any) {
                Ok(pid) => self.reap(pid),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // There is no child at all, and only a spawn can bring one.
                Err(_) => {
                    let table = lock(&self.table);
                    let same = |table: &mut Table| table.generation == generation;
                    drop(self.spawned.wait_while(table, same));
                }
            }
        }
    }

    fn reap(&self, pid: i32) {
        let ended = {
            let mut table = lock(&self.table);
            match sys::reap(pid) {
                Ok(Some(status)) => table.running.remove(&pid).map(|on_end| (on_end, status)),
                Ok(None) | Err(_) => None,
            }
        };
        if let Some((on_end, status)) = ended {
            on_end(status);
        }
    }
}

/// Spawns a child with these process numbers. They are chosen for the thread that spawns, which can start no other thread
/// afterwards: so that is one of its own.
fn spawn_among(command: &mut Command, pids: &Pids) -> io::Result<i32> {
    if let Pids::Ours = pids {
        return command.spawn().map(|child| child.id() as i32);
    }
    let spawn = || {
        match pids {
            Pids::Ours => {}
            Pids::New => unshare(CloneFlags::CLONE_NEWPID)?,
            Pids::Like(process) => setns(process, CloneFlags::CLONE_NEWPID)?,
        }
        command.spawn().map(|child| child.id() as i32)
    };
    std::thread::scope(|scope| {
        let spawner = std::thread::Builder::new()
            .name("spawn".to_string())
            .stack_size(STACK)
            .spawn_scoped(scope, spawn)?;
        spawner
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that spawns broke")))
    })
}

/// The stack of our threads, in bytes.
const STACK: usize = 256 * 1024;

/// A thread with a small stack: a guest may be small, and none of ours needs much.
pub(crate) fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new()
        .name(name.to_string())
        .stack_size(STACK)
        .spawn(body)
        .map(drop)
}
