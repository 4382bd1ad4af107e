//! The system calls that no safe interface covers; the only unsafe code of this crate.

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use vm_memory::bitmap::Bitmap;

use crate::GuestSlice;

/// How many pieces go into one system call. Linux takes 1024; a request rarely has more pieces than this, and the
/// array lives on the stack.
const MAX_PIECES: usize = 64;

/// Pieces of guest memory, to be read into or written from in one system call.
pub(crate) struct Pieces<'a> {
    pieces: [libc::iovec; MAX_PIECES],
    count: usize,
    /// Keeps the guest's memory mapped for as long as the addresses in `pieces` are here.
    memory: PhantomData<GuestSlice<'a>>,
}

impl<'a> Pieces<'a> {
    pub(crate) fn new() -> Self {
        Self {
            pieces: [libc::iovec {
                iov_base: std::ptr::null_mut(),
                iov_len: 0,
            }; MAX_PIECES],
            count: 0,
            memory: PhantomData,
        }
    }

    /// Adds a piece; `false` if there is no room.
    pub(crate) fn push(&mut self, slice: &GuestSlice<'a>) -> bool {
        let Some(place) = self.pieces.get_mut(self.count) else {
            return false;
        };
        // Without Xen the guard holds nothing: the memory stays mapped for 'a by the slice itself.
        let guard = slice.ptr_guard_mut();
        *place = libc::iovec {
            iov_base: guard.as_ptr().cast(),
            iov_len: guard.len(),
        };
        // What a read does not reach is marked without need, which costs a page more to a snapshot.
        slice.bitmap().mark_dirty(0, slice.len());
        self.count = self.count.saturating_add(1);
        true
    }

    /// Fills the pieces from `file` at `offset`; returns how many bytes came.
    pub(crate) fn read_from(&self, file: &File, offset: u64) -> io::Result<usize> {
        let offset = to_off(offset)?;
        retry(|| {
            // SAFETY: the first `count` entries of `pieces` point to mapped guest memory of their lengths, which
            // stays mapped for 'a. The guest may change that memory at any time; the kernel copes, and no Rust
            // reference to it exists. `count` is at most MAX_PIECES, which fits.
            unsafe { libc::preadv(file.as_raw_fd(), self.pieces.as_ptr(), self.count as i32, offset) }
        })
    }

    /// Writes the pieces to `file` at `offset`; returns how many bytes went.
    pub(crate) fn write_to(&self, file: &File, offset: u64) -> io::Result<usize> {
        let offset = to_off(offset)?;
        retry(|| {
            // SAFETY: as in `read_from`; the kernel only reads the memory.
            unsafe { libc::pwritev(file.as_raw_fd(), self.pieces.as_ptr(), self.count as i32, offset) }
        })
    }
}

fn to_off(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Calls again for as long as a signal interrupts.
fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        if let Ok(done) = usize::try_from(call()) {
            return Ok(done);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Fills `buffer` with the host's random numbers.
///
/// By the system call, and not by the getrandom crate: that finds the call by its name at run time, which a static
/// program has no linker for, and falls back to /dev/urandom, which an empty root does not have.
pub(crate) fn fill_random(buffer: &mut [u8]) -> io::Result<()> {
    let mut rest = buffer;
    while !rest.is_empty() {
        // SAFETY: `rest` is writable for its length.
        let done = retry(|| unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) })?;
        rest = rest.get_mut(done..).unwrap_or_default();
    }
    Ok(())
}

/// Waits until `fd` can be written to (or has an error, which a write then reports); `false` after `patience`, or
/// when a signal came in between.
pub(crate) fn poll_writable(fd: BorrowedFd<'_>, patience: Duration) -> io::Result<bool> {
    let mut entry = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    let timeout = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `entry` is one valid pollfd, alive during the call.
    let ready = unsafe { libc::poll(&raw mut entry, 1, timeout) };
    if ready < 0 {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::Interrupted => Ok(false),
            _ => Err(error),
        };
    }
    Ok(ready > 0)
}

/// Whether `fd` is a regular file; not, if that cannot be told.
pub(crate) fn is_regular_file(fd: BorrowedFd<'_>) -> bool {
    fd.try_clone_to_owned()
        .and_then(|fd| File::from(fd).metadata())
        .is_ok_and(|metadata| metadata.is_file())
}
