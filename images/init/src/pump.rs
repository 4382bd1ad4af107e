//! Bytes from one descriptor to the next, each in a thread of its own.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, SpecialCharacterIndices, tcgetattr};

/// Small enough for the stack, as large as a pipe in its usual size.
const CHUNK: usize = 64 * 1024;

/// Reads a command's output until its end. Once the command itself has ended, which `exited` tells by becoming
/// readable, what is in the pipe is read, but nothing is waited for: a process that the command left behind may hold
/// the other end open for ever.
///
/// `source` must not block.
pub(crate) fn output(source: BorrowedFd<'_>, exited: BorrowedFd<'_>, mut take: impl FnMut(&[u8])) {
    let mut buffer = vec![0; CHUNK];
    let mut last_round = false;
    loop {
        match nix::unistd::read(source, &mut buffer) {
            Ok(0) => return,
            Ok(count) => take(buffer.get(..count).unwrap_or_default()),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if last_round => return,
            Err(Errno::EAGAIN) => {
                let mut fds = [
                    PollFd::new(source, PollFlags::POLLIN),
                    PollFd::new(exited, PollFlags::POLLIN),
                ];
                let _ = poll(&mut fds, PollTimeout::NONE);
                let [_, exited] = &fds;
                last_round = exited.any().unwrap_or(true);
            }
            // A terminal says EIO when its last user is gone.
            Err(_) => return,
        }
    }
}

/// Types a command's input on its terminal, and at its end the terminal's end-of-file key, where keys have a meaning.
pub(crate) fn typist(source: OwnedFd, terminal: BorrowedFd<'_>) {
    let mut buffer = vec![0; 4096];
    loop {
        match nix::unistd::read(&source, &mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                if write_all(terminal, buffer.get(..count).unwrap_or_default()).is_err() {
                    return;
                }
            }
            Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
    if let Ok(settings) = tcgetattr(terminal)
        && settings.local_flags.contains(LocalFlags::ICANON)
        && let Some(key) = settings.control_chars.get(SpecialCharacterIndices::VEOF as usize)
    {
        let _ = write_all(terminal, &[*key]);
    }
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match nix::unistd::write(to, bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let mut fds = [PollFd::new(to.as_fd(), PollFlags::POLLOUT)];
                poll(&mut fds, PollTimeout::NONE)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
