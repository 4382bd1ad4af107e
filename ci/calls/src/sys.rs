//! ptrace and waitpid, which no crate wraps so that real-time signals come through.

use std::io;
use std::ptr;

/// Why a traced thread stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Before or after a system call.
    Call,
    /// It started this thread or process; `true` says that it is a thread.
    Started(i32, bool),
    /// Something that concerns nobody here; to be resumed.
    Event,
    /// This signal is about to reach it.
    Signal(i32),
    /// It is gone.
    Gone,
}

fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn request(request: libc::c_uint, thread: i32, data: usize) -> io::Result<()> {
    // SAFETY: the requests that are made here take a number as data, and no address of ours.
    checked(unsafe { libc::ptrace(request, thread, 0_usize, data) }).map(drop)
}

/// Begins to trace a process of one thread, and all that it will start.
pub(crate) fn seize(pid: i32) -> io::Result<()> {
    let options = libc::PTRACE_O_TRACESYSGOOD
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACEEXEC;
    request(libc::PTRACE_SEIZE, pid, options as usize)?;
    // It goes on without stops at calls until it is stopped once.
    request(libc::PTRACE_INTERRUPT, pid, 0)
}

/// Lets a thread go on to its next call, with a signal (or 0).
pub(crate) fn resume(thread: i32, signal: i32) -> io::Result<()> {
    request(libc::PTRACE_SYSCALL, thread, signal as usize)
}

/// The registers of a stopped thread.
pub(crate) fn registers(thread: i32) -> io::Result<libc::user_regs_struct> {
    // SAFETY: all zeroes is a valid value of a structure of numbers.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    // SAFETY: `registers` is writable and what the request fills.
    let result = unsafe {
        libc::ptrace(
            libc::PTRACE_GETREGS,
            thread,
            ptr::null_mut::<u8>(),
            &raw mut registers,
        )
    };
    checked(result).map(|_| registers)
}

/// Waits for the next stop of any traced thread; `None` when there is none left.
pub(crate) fn wait() -> io::Result<Option<(i32, Stop)>> {
    let mut status = 0;
    // SAFETY: `status` is writable.
    let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) };
    if thread == -1 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ECHILD) => Ok(None),
            _ => Err(error),
        };
    }
    if !libc::WIFSTOPPED(status) {
        return Ok(Some((thread, Stop::Gone)));
    }
    let stop = match (status >> 16, libc::WSTOPSIG(status)) {
        (0, signal) if signal == libc::SIGTRAP | 0x80 => Stop::Call,
        (0, signal) => Stop::Signal(signal),
        (event, _) => match event {
            libc::PTRACE_EVENT_CLONE => Stop::Started(message(thread)?, true),
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK => Stop::Started(message(thread)?, false),
            _ => Stop::Event,
        },
    };
    Ok(Some((thread, stop)))
}

/// What belongs to the event that a thread stopped for.
fn message(thread: i32) -> io::Result<i32> {
    let mut message: libc::c_ulong = 0;
    // SAFETY: `message` is writable and what the request fills.
    let result = unsafe {
        libc::ptrace(
            libc::PTRACE_GETEVENTMSG,
            thread,
            ptr::null_mut::<u8>(),
            &raw mut message,
        )
    };
    checked(result).map(|_| message as i32)
}
