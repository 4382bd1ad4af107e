//! The system calls that need `unsafe`, each behind a safe function.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::SigSet;
use nix::sys::socket::{SockFlag, accept4};
use nix::unistd::{Gid, Uid};
use secovia_guest_protocol::{ExitStatus, WindowSize};

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Accepts a connection.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let fd = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whose end to wait for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wait {
    Any,
    One(i32),
}

/// Blocks until a child has ended, and leaves it unreaped: its number cannot be given to another process yet.
pub(crate) fn wait(whose: Wait) -> io::Result<i32> {
    let (kind, id) = match whose {
        Wait::Any => (libc::P_ALL, 0),
        Wait::One(pid) => (libc::P_PID, pid as libc::id_t),
    };
    // SAFETY: siginfo_t is plain data, for which zeroes are a valid value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one siginfo_t, which `info` has room for.
    check(unsafe { libc::waitid(kind, id, &raw mut info, libc::WEXITED | libc::WNOWAIT) })?;
    // SAFETY: waitid succeeded without WNOHANG, so it filled in the fields of SIGCHLD.
    Ok(unsafe { info.si_pid() })
}

/// Reaps a child that has ended; `None` where it has not.
pub(crate) fn reap(pid: i32) -> io::Result<Option<ExitStatus>> {
    let mut status = 0;
    // SAFETY: the kernel writes one integer, which `status` has room for.
    let reaped = check(unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) })?;
    Ok(match reaped {
        0 => None,
        _ if libc::WIFSIGNALED(status) => Some(ExitStatus::Signaled(libc::WTERMSIG(status))),
        _ => Some(ExitStatus::Exited(libc::WEXITSTATUS(status))),
    })
}

/// Sends a signal, real-time ones included, to a process group.
pub(crate) fn signal_group(leader: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill touches no memory.
    check(unsafe { libc::kill(leader.saturating_neg(), signal) }).map(drop)
}

/// Sends a signal to every process but this one and kernel threads. Only for PID 1.
pub fn signal_everyone(signal: i32) -> io::Result<()> {
    // SAFETY: kill touches no memory.
    check(unsafe { libc::kill(-1, signal) }).map(drop)
}

/// A set of signals; real-time ones too, which the library's set has no names for.
pub struct SignalSet(libc::sigset_t);

impl SignalSet {
    /// The set of these numbers; one that is no signal is left out.
    pub fn of(signals: &[i32]) -> Self {
        // SAFETY: sigset_t is plain data, for which zeroes are a valid value.
        let mut set = unsafe { std::mem::zeroed() };
        // SAFETY: sigemptyset and sigaddset write to one sigset_t, which `set` is; they refuse numbers out of range.
        unsafe {
            libc::sigemptyset(&raw mut set);
            for signal in signals {
                libc::sigaddset(&raw mut set, *signal);
            }
        }
        Self(set)
    }

    /// Blocks the signals in this thread and in all that it will start.
    pub fn block(&self) -> io::Result<()> {
        // SAFETY: the set is read only; no old mask is asked for.
        let result =
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const self.0, std::ptr::null_mut()) };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(result))
        }
    }

    /// Waits for one of them, which must be blocked.
    pub fn wait(&self) -> io::Result<i32> {
        let mut signal = 0;
        // SAFETY: the set is read only, and `signal` has room for the integer that is written.
        let result = unsafe { libc::sigwait(&raw const self.0, &raw mut signal) };
        if result == 0 {
            Ok(signal)
        } else {
            Err(io::Error::from_raw_os_error(result))
        }
    }
}

/// What a child does between fork and exec.
#[derive(Debug)]
pub(crate) struct Setup {
    /// Its standard input is a terminal, which becomes the controlling one.
    pub(crate) terminal: bool,
    /// It has new process numbers, and mounts `/proc` for them.
    pub(crate) own_proc: bool,
    /// Whom it becomes; nobody else where none is given.
    pub(crate) identity: Option<(Uid, Gid, Vec<Gid>)>,
    /// Where it goes, as the new user.
    pub(crate) cwd: CString,
}

/// Makes `command` start in a session of its own, set up as asked.
pub(crate) fn prepare(command: &mut Command, setup: Setup) {
    let enter = move || {
        // PID 1 blocks what it waits for, and may itself have been started with signals ignored (a shell's background
        // job is); a child must inherit neither.
        default_signals();
        SigSet::empty().thread_set_mask()?;
        nix::unistd::setsid()?;
        if setup.own_proc {
            mount_proc()?;
        }
        if setup.terminal {
            // SAFETY: the ioctl takes a number and touches no memory.
            check(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })?;
        }
        if let Some((uid, gid, groups)) = &setup.identity {
            nix::unistd::setgroups(groups)?;
            nix::unistd::setgid(*gid)?;
            nix::unistd::setuid(*uid)?;
        }
        nix::unistd::chdir(setup.cwd.as_c_str())?;
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are made: `enter` makes plain system calls on memory
    // that was allocated before, and takes no lock.
    unsafe { command.pre_exec(enter) };
}

/// Mounts `/proc` for the process numbers of whoever calls this. It makes one system call and is safe after a fork.
fn mount_proc() -> io::Result<()> {
    let kind = c"proc".as_ptr();
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: the kernel reads two constant texts that end in a zero; there is no data.
    check(unsafe { libc::mount(kind, c"/proc".as_ptr(), kind, flags, std::ptr::null()) }).map(drop)
}

/// A descriptor that stands for a process.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two numbers and touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).map_err(io::Error::other).and_then(check)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives every signal its default action. Those that have no other (SIGKILL, SIGSTOP) refuse, which is as good.
fn default_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: the call takes numbers; no handler is installed.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// The other end of a new pseudo-terminal, of its master; needs no path and no mounted devpts.
pub(crate) fn terminal_peer(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the ioctl takes flags by value and touches no memory.
    let fd: RawFd = check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Tells a terminal its size; its foreground processes get SIGWINCH.
pub(crate) fn set_window_size(terminal: BorrowedFd<'_>, size: WindowSize) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: size.rows,
        ws_col: size.cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the kernel reads one winsize, which outlives the call.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }).map(drop)
}

/// Switches the loopback interface on.
pub fn loopback_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: ifreq is plain data, for which zeroes are a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo\0") {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the kernel reads one ifreq, whose name ends in a zero and which outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }).map(drop)
}

/// Freezes the file system that `directory` is in: its journal is written out and it needs no recovery. For good: this
/// is the last thing before the power goes.
pub fn freeze(directory: BorrowedFd<'_>) -> io::Result<()> {
    /// `FIFREEZE` of linux/fs.h, `_IOWR('X', 119, int)`.
    const FIFREEZE: libc::Ioctl = 0xc004_5877;
    // SAFETY: the kernel ignores the argument of this ioctl and touches no memory of ours.
    check(unsafe { libc::ioctl(directory.as_raw_fd(), FIFREEZE, 0) }).map(drop)
}
