//! Reads and writes of a file that go on while the device does other things (io_uring). All of this crate's unsafe code
//! about it.
//!
//! # What the ring may do
//! The kernel does what a ring asks for without system calls, where no filter sees it. So a ring is bound before it can
//! be used, for good: it reads, writes and flushes the one file that is registered with it, and the only thing about
//! itself that can be changed is which file that is.
//!
//! # Why memory is not lost under it
//! The kernel reads and writes guest memory at any time from [`Ring::begin`] on until the operation's end is taken from
//! the ring. The ring holds a reference to that memory, is the only one to say where in it the kernel works, and whoever
//! drops it waits for the end of everything that was begun.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use io_uring::register::Restriction;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fixed, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode};
use vm_memory::bitmap::Bitmap;
use vm_memory::{GuestAddress, GuestMemoryBackend};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::GuestMemory;

/// How many operations go on at once.
pub(crate) const DEPTH: usize = 64;

/// The most pieces that Linux takes in one operation (UIO_MAXIOV).
const MAX_PIECES: usize = 1024;

/// IORING_REGISTER_FILES_UPDATE of `linux/io_uring.h`.
const FILES_UPDATE: u8 = 6;

/// The file's number in the ring.
const FILE: Fixed = Fixed(0);

/// What is asked of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Fill the pieces from this byte on.
    Read(u64),
    /// Write the pieces to this byte on.
    Write(u64),
    /// Make durable what was written.
    Flush,
}

/// An operation that has ended.
#[derive(Debug)]
pub(crate) struct Done<T> {
    /// What it was begun with.
    pub(crate) tag: T,
    /// Whether all of it was done.
    pub(crate) result: io::Result<()>,
}

/// Room for an operation that goes on.
#[derive(Debug)]
struct Flight<T> {
    /// What is left to do, and for whom.
    task: Option<(Operation, T)>,
    /// The rest of the pieces; the kernel reads the list while there is a task.
    pieces: VecDeque<libc::iovec>,
}

/// Whether the kernel tells of an operation's end by the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bell {
    /// It does.
    On,
    /// It does not: whoever submits looks by himself.
    Off,
}

/// Operations on one file, up to [`DEPTH`] of them at once; `T` is what the caller knows each by.
pub(crate) struct Ring<T> {
    uring: IoUring,
    event: EventFd,
    bell: Bell,
    memory: Option<GuestMemory>,
    /// By the number that the kernel knows each by.
    flights: Vec<Flight<T>>,
    /// Numbers that are free.
    free: Vec<u16>,
    /// Ended, not handed out yet.
    done: VecDeque<Done<T>>,
}

// SAFETY: the addresses in the flights point to guest memory, which is the process's; every thread may name it.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T> std::fmt::Debug for Ring<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Ring({} in flight)", self.in_flight())
    }
}

impl<T> Ring<T> {
    /// A ring for `file`, which is open without O_NONBLOCK: with it Linux gives up where it would have to wait.
    ///
    /// # Errors
    /// The host's kernel has no io_uring (before 5.11), or not for this process.
    pub(crate) fn new(file: &File) -> io::Result<Self> {
        let uring = IoUring::builder().setup_r_disabled().build(DEPTH as u32)?;
        if !uring.params().is_feature_ext_arg() {
            return Err(io::Error::from_raw_os_error(libc::ENOSYS));
        }
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        let submitter = uring.submitter();
        submitter.register_restrictions(&mut [
            Restriction::sqe_op(opcode::Readv::CODE),
            Restriction::sqe_op(opcode::Writev::CODE),
            Restriction::sqe_op(opcode::Fsync::CODE),
            Restriction::sqe_flags_required(Flags::FIXED_FILE.bits()),
            Restriction::register_op(FILES_UPDATE),
        ])?;
        submitter.register_files(&[file.as_raw_fd()])?;
        submitter.register_eventfd(event.as_raw_fd())?;
        submitter.register_enable_rings()?;
        let mut flights = Vec::with_capacity(DEPTH);
        flights.resize_with(DEPTH, || Flight {
            task: None,
            pieces: VecDeque::new(),
        });
        Ok(Self {
            uring,
            event,
            bell: Bell::On,
            memory: None,
            flights,
            free: (0..DEPTH as u16).collect(),
            done: VecDeque::with_capacity(DEPTH),
        })
    }

    /// What becomes readable when an operation ends after [`listen`](Self::listen). It is watched edge-triggered and need
    /// not be read.
    pub(crate) fn event_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// How many operations go on.
    pub(crate) fn in_flight(&self) -> usize {
        self.flights.len().saturating_sub(self.free.len())
    }

    /// Whether something goes on, or has ended and was not taken.
    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight() > 0 || !self.done.is_empty()
    }

    /// Whether one more fits.
    pub(crate) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// The memory that all pieces are in from now on.
    ///
    /// # Errors
    /// Something goes on.
    pub(crate) fn set_memory(&mut self, memory: &GuestMemory) -> io::Result<()> {
        self.idle()?;
        self.memory = Some(memory.clone());
        Ok(())
    }

    /// Takes another file in the place of this one.
    ///
    /// # Errors
    /// Something goes on, or the kernel refuses.
    pub(crate) fn set_file(&mut self, file: &File) -> io::Result<()> {
        self.idle()?;
        self.uring
            .submitter()
            .register_files_update(FILE.0, &[file.as_raw_fd()])
            .map(drop)
    }

    fn idle(&self) -> io::Result<()> {
        match self.in_flight() {
            0 => Ok(()),
            _ => Err(io::ErrorKind::ResourceBusy.into()),
        }
    }

    /// Prepares an operation on pieces of guest memory (address and length); [`submit`](Self::submit) hands it to the
    /// kernel. It ends once, by [`next`](Self::next).
    ///
    /// # Errors
    /// There is no room, there are too many pieces, or they are not in memory; then nothing was prepared.
    pub(crate) fn begin(
        &mut self,
        operation: Operation,
        pieces: impl Iterator<Item = (GuestAddress, usize)>,
        tag: T,
    ) -> io::Result<()> {
        let memory = self.memory.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let number = *self.free.last().ok_or(io::ErrorKind::ResourceBusy)?;
        let flight = self.flights.get_mut(usize::from(number));
        let flight = flight.ok_or(io::ErrorKind::InvalidData)?;
        resolve(&mut flight.pieces, pieces, memory)?;
        flight.task = Some((operation, tag));
        self.free.pop();
        self.push(number)
    }

    /// Puts flight `number` into the submission queue.
    fn push(&mut self, number: u16) -> io::Result<()> {
        let Some(Flight {
            task: Some((operation, _)),
            pieces,
        }) = self.flights.get(usize::from(number))
        else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        // `resolve` made it one run, and only the front is taken away.
        let (pieces, _) = pieces.as_slices();
        let (start, count) = (pieces.as_ptr(), pieces.len() as u32);
        let entry: Entry = match *operation {
            Operation::Read(offset) => opcode::Readv::new(FILE, start, count).offset(offset).build(),
            Operation::Write(offset) => opcode::Writev::new(FILE, start, count).offset(offset).build(),
            Operation::Flush => opcode::Fsync::new(FILE).flags(FsyncFlags::DATASYNC).build(),
        };
        let entry = entry.user_data(number.into());
        // SAFETY: the list of pieces is in the flight, which stays in its place, and whose list is not touched, until the
        // kernel has said that the operation is over. The pieces are in guest memory, mapped for as long as `self.memory`
        // is there: it is only replaced when nothing is in flight, and only dropped after `drop` has waited for
        // that. The guest may change that memory at any time; the kernel copes, and no Rust reference to it exists.
        let pushed = unsafe { self.uring.submission().push(&entry) };
        // There are as many entries as flights, and each is in it at most once.
        pushed.map_err(io::Error::other)
    }

    /// Hands what was prepared to the kernel. What it can do at once it does here: look with [`next`](Self::next).
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        while !self.uring.submission().is_empty() {
            match self.uring.submit() {
                Ok(0) => return self.ring_bell(),
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // It has no memory for it just now: the event loop comes back.
                    Some(libc::EAGAIN | libc::EBUSY) => return self.ring_bell(),
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }

    /// Takes the end of an operation, if one has ended.
    pub(crate) fn next(&mut self) -> io::Result<Option<Done<T>>> {
        self.collect()?;
        Ok(self.done.pop_front())
    }

    /// Takes all ends from the kernel. What was done in part is begun again where it left off.
    fn collect(&mut self) -> io::Result<()> {
        loop {
            let Some(end) = self.uring.completion().next() else {
                return self.submit_rest();
            };
            let Ok(number) = u16::try_from(end.user_data()) else {
                continue;
            };
            let Some(flight) = self.flights.get_mut(usize::from(number)) else {
                continue;
            };
            let Some((mut operation, tag)) = flight.task.take() else {
                continue;
            };
            match advance(&mut operation, &mut flight.pieces, end.result()) {
                Some(result) => {
                    self.free.push(number);
                    self.done.push_back(Done { tag, result });
                }
                None => {
                    flight.task = Some((operation, tag));
                    self.push(number)?;
                }
            }
        }
    }

    /// As `submit`; what ends at once is announced by the event.
    fn submit_rest(&mut self) -> io::Result<()> {
        if !self.uring.submission().is_empty() {
            self.ring_bell()?;
            self.submit()?;
        }
        Ok(())
    }

    /// Whether [`next`](Self::next) has something.
    pub(crate) fn has_ended(&mut self) -> bool {
        !self.done.is_empty() || !self.uring.completion().is_empty()
    }

    /// The caller is about to submit and will look at what ended at once by itself: where nothing else goes on, the event
    /// need not wake anybody for it. [`listen`](Self::listen) has to follow.
    pub(crate) fn hush(&mut self) {
        if self.in_flight() == 0 && self.bell == Bell::On {
            self.uring.completion().disable_eventfd();
            self.bell = Bell::Off;
        }
    }

    /// The caller looks away: from here on the event tells of ends.
    ///
    /// An end that the kernel posts at this very moment may miss the change of mind; it is found because the event rings
    /// once more than needed.
    pub(crate) fn listen(&mut self) -> io::Result<()> {
        if self.in_flight() == 0 || self.bell == Bell::On {
            return Ok(());
        }
        self.uring.completion().enable_eventfd();
        self.bell = Bell::On;
        fence(Ordering::SeqCst);
        self.ring_bell()
    }

    fn ring_bell(&self) -> io::Result<()> {
        self.event.write(1)
    }

    /// Waits until nothing goes on any more, at most for `patience`; says whether that is so. The ends wait for
    /// [`next`](Self::next).
    pub(crate) fn wait(&mut self, patience: Duration) -> io::Result<bool> {
        let now = Instant::now();
        let until = now.checked_add(patience).unwrap_or(now);
        loop {
            self.collect()?;
            if self.in_flight() == 0 {
                return Ok(true);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let left = Timespec::from(left);
            let args = SubmitArgs::new().timespec(&left);
            match self.uring.submitter().submit_with_args(1, &args) {
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ETIME) => {}
                    _ => return Err(error),
                },
            }
        }
    }
}

/// Puts the host addresses of `pieces` into `found`, in one run, as the kernel wants them.
fn resolve(
    found: &mut VecDeque<libc::iovec>,
    pieces: impl Iterator<Item = (GuestAddress, usize)>,
    memory: &GuestMemory,
) -> io::Result<()> {
    found.clear();
    for (start, length) in pieces {
        for slice in GuestMemoryBackend::get_slices(memory, start, length) {
            let slice = slice.map_err(io::Error::other)?;
            if found.len() >= MAX_PIECES {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            // Without Xen the guard holds nothing: the memory stays mapped for as long as the ring holds on to it.
            let guard = slice.ptr_guard_mut();
            found.push_back(libc::iovec {
                iov_base: guard.as_ptr().cast(),
                iov_len: guard.len(),
            });
            slice.bitmap().mark_dirty(0, slice.len());
        }
    }
    found.make_contiguous();
    Ok(())
}

/// What follows from the kernel's answer; `None` if there is something left to do.
fn advance(
    operation: &mut Operation,
    pieces: &mut VecDeque<libc::iovec>,
    answer: i32,
) -> Option<io::Result<()>> {
    let Ok(mut moved) = usize::try_from(answer) else {
        return match answer.checked_neg() {
            Some(libc::EINTR) => None,
            error => Some(Err(io::Error::from_raw_os_error(error.unwrap_or(libc::EIO)))),
        };
    };
    let (offset, ended) = match operation {
        Operation::Flush => return Some(Ok(())),
        Operation::Read(offset) => (offset, io::ErrorKind::UnexpectedEof),
        Operation::Write(offset) => (offset, io::ErrorKind::WriteZero),
    };
    if moved == 0 && !pieces.is_empty() {
        // The file became shorter under the guest.
        return Some(Err(ended.into()));
    }
    *offset = offset.saturating_add(moved as u64);
    while let Some(piece) = pieces.front_mut() {
        match moved.checked_sub(piece.iov_len) {
            Some(rest) => {
                moved = rest;
                pieces.pop_front();
            }
            None => {
                piece.iov_base = piece.iov_base.wrapping_byte_add(moved);
                piece.iov_len = piece.iov_len.saturating_sub(moved);
                return None;
            }
        }
    }
    Some(Ok(()))
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        let waited = loop {
            match self.wait(Duration::from_secs(1)) {
                Ok(true) => return,
                Ok(false) => log::debug!("io_uring: waiting for {} operations", self.in_flight()),
                Err(error) => break error,
            }
        };
        // The kernel may go on with them: what they work on stays for the rest of the process's life.
        log::error!("io_uring: wait for operations: {waited}");
        std::mem::forget(self.memory.take());
        std::mem::forget(std::mem::take(&mut self.flights));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{Read, Seek};
    use std::os::fd::BorrowedFd;

    use super::*;
    use crate::testing::TempPath;

    /// A descriptor that the caller keeps open.
    pub(crate) fn borrowed(fd: RawFd) -> BorrowedFd<'static> {
        // SAFETY: as the caller says; and a closed one fails calls, no more.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }

    fn ring(path: &TempPath) -> (Ring<u8>, File) {
        std::fs::write(path.as_path(), [7; 4096]).unwrap();
        let file = File::options()
            .read(true)
            .write(true)
            .open(path.as_path())
            .unwrap();
        let mut ring = Ring::new(&file).unwrap();
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 4096)]).unwrap();
        ring.set_memory(&memory).unwrap();
        (ring, file)
    }

    fn end(ring: &mut Ring<u8>) -> Done<u8> {
        ring.submit().unwrap();
        assert!(ring.wait(Duration::from_secs(10)).unwrap());
        ring.next().unwrap().unwrap()
    }

    #[test]
    fn a_ring_does_nothing_but_read_write_and_flush_its_file() {
        let path = TempPath::new("ring");
        let (mut ring, file) = ring(&path);
        let own = io_uring::types::Fd(file.as_raw_fd());
        let mut bytes = [0u8; 16];
        let (start, iovec) = (
            bytes.as_mut_ptr(),
            libc::iovec {
                iov_base: bytes.as_mut_ptr().cast(),
                iov_len: bytes.len(),
            },
        );
        for (entry, what) in [
            (
                opcode::Readv::new(own, &iovec, 1).build(),
                "a file that is not registered",
            ),
            (
                opcode::Read::new(FILE, start, 16).build(),
                "an operation that is not needed",
            ),
            (opcode::OpenAt::new(own, c"/".as_ptr()).build(), "open"),
            (
                opcode::Connect::new(own, std::ptr::null(), 0).build(),
                "connect to somebody",
            ),
            (opcode::Close::new(own).build(), "close"),
        ] {
            let task = (Operation::Flush, 1);
            let number = ring.free.pop().unwrap();
            ring.flights[usize::from(number)].task = Some(task);
            // SAFETY: all that it names outlives the ring's answer, which is waited for.
            unsafe { ring.uring.submission().push(&entry.user_data(number.into())) }.unwrap();
            let error = end(&mut ring).result.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{what}");
        }
        let submitter = ring.uring.submitter();
        let refused = submitter.unregister_files().unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EACCES));
        let refused = submitter.register_eventfd(0).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EACCES));
        assert_eq!(bytes, [0; 16]);
    }

    #[test]
    fn operations_move_bytes_between_file_and_memory() {
        let path = TempPath::new("ring");
        let (mut ring, mut file) = ring(&path);
        ring.begin(Operation::Read(0), [(GuestAddress(0), 512)].into_iter(), 1)
            .unwrap();
        assert!(matches!(
            end(&mut ring),
            Done {
                tag: 1,
                result: Ok(())
            }
        ));
        let pieces = [(GuestAddress(256), 512), (GuestAddress(100), 10)];
        ring.begin(Operation::Write(1000), pieces.into_iter(), 2).unwrap();
        assert!(matches!(
            end(&mut ring),
            Done {
                tag: 2,
                result: Ok(())
            }
        ));
        ring.begin(Operation::Flush, std::iter::empty(), 3).unwrap();
        assert!(matches!(
            end(&mut ring),
            Done {
                tag: 3,
                result: Ok(())
            }
        ));
        let mut content = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut content).unwrap();
        let expected = [[7; 256].as_slice(), &[0; 256], &[7; 10]].concat();
        assert_eq!(content[1000..1522], expected);
        // Behind the end of the file, and outside of memory.
        ring.begin(Operation::Read(4000), [(GuestAddress(0), 512)].into_iter(), 4)
            .unwrap();
        let error = end(&mut ring).result.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let outside = [(GuestAddress(4000), 512)].into_iter();
        ring.begin(Operation::Read(0), outside, 5).unwrap_err();
        assert_eq!(ring.in_flight(), 0);
    }
}
