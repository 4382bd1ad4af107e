//! The system calls that no safe interface covers; but for `ring`, the only unsafe code of this crate.

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::time::Duration;

use vm_memory::bitmap::Bitmap;

use crate::GuestSlice;

/// How many pieces go into one system call. Linux takes 1024; a request rarely has more pieces than this, and the
/// array lives on the stack.
const MAX_PIECES: usize = 64;

/// An entry that names no memory.
const EMPTY: libc::iovec = libc::iovec {
    iov_base: ptr::null_mut(),
    iov_len: 0,
};

/// Pieces of guest memory, to be read into or written from in one system call.
pub(crate) struct Pieces<'a> {
    /// The first entry and the one after the pieces are for bytes of the device's own around them; empty but during
    /// such a call.
    entries: [libc::iovec; MAX_PIECES + 2],
    /// Entries in between that are pieces.
    count: usize,
    /// Keeps the guest's memory mapped for as long as the addresses in `pieces` are here.
    memory: PhantomData<GuestSlice<'a>>,
}

impl<'a> Pieces<'a> {
    pub(crate) fn new() -> Self {
        Self {
            entries: [EMPTY; MAX_PIECES + 2],
            count: 0,
            memory: PhantomData,
        }
    }

    /// Adds a piece; `false` if there is no room.
    pub(crate) fn push(&mut self, slice: &GuestSlice<'a>) -> bool {
        let next = self.count.saturating_add(1);
        let Some(place) = self.entries.get_mut(next).filter(|_| next <= MAX_PIECES) else {
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
        self.count = next;
        true
    }

    /// The first of the pieces, and how many there are; at most MAX_PIECES, which fits.
    fn pieces(&self) -> (*const libc::iovec, i32) {
        let pieces = self.entries.get(1..).unwrap_or_default();
        (pieces.as_ptr(), self.count as i32)
    }

    /// Fills the pieces from `file` at `offset`; returns how many bytes came.
    pub(crate) fn read_from(&self, file: &File, offset: u64) -> io::Result<usize> {
        let offset = to_off(offset)?;
        let (pieces, count) = self.pieces();
        retry(|| {
            // SAFETY: `count` entries from `pieces` on point to mapped guest memory of their lengths, which stays
            // mapped for 'a. The guest may change that memory at any time; the kernel copes, and no Rust reference
            // to it exists.
            unsafe { libc::preadv(file.as_raw_fd(), pieces, count, offset) }
        })
    }

    /// Writes the pieces to `file` at `offset`; returns how many bytes went.
    pub(crate) fn write_to(&self, file: &File, offset: u64) -> io::Result<usize> {
        let offset = to_off(offset)?;
        let (pieces, count) = self.pieces();
        retry(|| {
            // SAFETY: as in `read_from`; the kernel only reads the memory.
            unsafe { libc::pwritev(file.as_raw_fd(), pieces, count, offset) }
        })
    }

    /// Takes one packet from `fd` into the pieces, and what they have no room for into `beyond`; returns the length of
    /// both together.
    pub(crate) fn receive(&mut self, fd: BorrowedFd<'_>, beyond: &mut [u8]) -> io::Result<usize> {
        let count = self.count.saturating_add(1);
        if let Some(last) = self.entries.get_mut(count) {
            *last = libc::iovec {
                iov_base: beyond.as_mut_ptr().cast(),
                iov_len: beyond.len(),
            };
        }
        let (pieces, _) = self.pieces();
        // SAFETY: as in `read_from`; the one entry more is `beyond`, which is borrowed for the length of the call.
        let received = retry(|| unsafe { libc::readv(fd.as_raw_fd(), pieces, count as i32) });
        if let Some(last) = self.entries.get_mut(count) {
            *last = EMPTY;
        }
        received
    }

    /// Sends one packet to `fd`: `head`, then the pieces.
    pub(crate) fn send(&mut self, fd: BorrowedFd<'_>, head: &[u8]) -> io::Result<usize> {
        if let Some(first) = self.entries.first_mut() {
            *first = libc::iovec {
                iov_base: head.as_ptr().cast_mut().cast(),
                iov_len: head.len(),
            };
        }
        let count = self.count.saturating_add(1);
        // SAFETY: as in `write_to`; the one entry more is `head`, which is borrowed for the length of the call and only
        // read.
        let sent = retry(|| unsafe { libc::writev(fd.as_raw_fd(), self.entries.as_ptr(), count as i32) });
        if let Some(first) = self.entries.first_mut() {
            *first = EMPTY;
        }
        sent
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

/// Makes `file`, which is /dev/net/tun, the tap interface `name`: whole frames, each after a virtio header.
pub(crate) fn attach_tap(file: &File, name: &str) -> io::Result<()> {
    // SAFETY: all zeroes is a valid `struct ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    let room = request.ifr_name.len().saturating_sub(1);
    if name.len() > room {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: the call reads and writes `request`, a valid `struct ifreq`.
    done(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })
}

/// The length of the header before each frame of a tap interface.
pub(crate) fn set_tap_header(file: &File, length: u8) -> io::Result<()> {
    let length = libc::c_int::from(length);
    // SAFETY: the call reads one integer.
    done(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const length) })
}

/// What the reader of a tap interface takes without the kernel's help (TUN_F_*).
pub(crate) fn set_tap_offloads(file: &File, offloads: u32) -> io::Result<()> {
    // SAFETY: the argument is a number, no address.
    done(unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            libc::TUNSETOFFLOAD,
            libc::c_ulong::from(offloads),
        )
    })
}

fn done(status: libc::c_int) -> io::Result<()> {
    match status {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Fills `buffer` with the host's random numbers.
///
/// By the system call, and not by the getrandom crate: that finds the call by its name at run time, which a static
/// program has no linker for, and falls back to /dev/urandom, which an empty root does not have.
pub fn fill_random(buffer: &mut [u8]) -> io::Result<()> {
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
