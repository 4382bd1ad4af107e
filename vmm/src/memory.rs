//! The guest's memory: anonymous (or, where another process serves a disk, a file that has no name), reserved nowhere, in one piece up to the gap below 4 GiB and one above it. Behind it,
//! files that lie in the guest's address space.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::{io, ptr};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;
use secovia_devices::virtio::balloon::Reclaim;
use secovia_devices::{GuestMemory, GuestSlice};
use vm_memory::mmap::{MmapRegion, MmapRegionBuilder};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryRegion, GuestRegionMmap};

use crate::layout::{GAP_END, GAP_START, WINDOW_GRAIN};

/// Why there is no guest memory.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The address space or the process's limit is too small.
    #[error("map {mib} MiB of guest memory: {source}")]
    Map {
        /// How much.
        mib: u64,
        /// Why not.
        source: io::Error,
    },
    /// There is no file that another process could map.
    #[error("make {mib} MiB of guest memory that a vhost-user backend can have: {source}")]
    Share {
        /// How much.
        mib: u64,
        /// Why not.
        source: io::Error,
    },
    /// The pool of huge pages is too small.
    #[error(
        "machine-config.huge_pages: take {mib} MiB of the host's huge pages: {source}; set aside {} of 2 MiB in \
         /proc/sys/vm/nr_hugepages, or give None or Transparent", mib / 2
    )]
    Pool {
        /// How much.
        mib: u64,
        /// Why not.
        source: io::Error,
    },
    /// A mapping is not as it should be.
    #[error("use a mapping as guest memory: {0}")]
    Use(#[from] vm_memory::mmap::MmapRegionError),
    /// The ranges do not fit together.
    #[error("arrange guest memory: {0}")]
    Arrange(#[from] vm_memory::GuestRegionCollectionError),
}

/// The size of a page.
const PAGE: usize = 4096;
/// The size of a huge page.
const HUGE: usize = 2 << 20;
const PROTECTION: i32 = libc::PROT_READ | libc::PROT_WRITE;
const FLAGS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

/// Not without reserving: a page that is not there when the guest first touches it would be its end.
const POOL_FLAGS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;

/// Which pages are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// Whichever the host likes.
    Any,
    /// Huge ones where the host has some to spare.
    Huge,
    /// Huge ones of the host's pool, which are there before the guest starts and are nobody else's.
    Pool,
}

/// Who has the guest's memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Owner {
    /// This process.
    #[default]
    Us,
    /// Other processes, too, that serve the guest's disks.
    Shared,
}

/// The address ranges that `size` bytes of memory take: start and length, lowest first.
pub fn ranges(size: u64) -> Vec<(u64, u64)> {
    if size <= GAP_START {
        vec![(0, size)]
    } else {
        vec![(0, GAP_START), (GAP_END, size - GAP_START)]
    }
}

/// Where memory of `size` bytes ends, and what else the guest has begins; at the end of the gap at least.
pub(crate) fn end(size: u64) -> u64 {
    let end = ranges(size).last().map_or(0, |(start, length)| start + length);
    end.max(GAP_END)
}

/// Maps `size` bytes of guest memory, a multiple of the page size (of the huge page's for [`Pages::Pool`]), for the rest of
/// the process's life.
///
/// The pages come from the host when the guest first touches them; nothing is set aside beforehand, so that a node can
/// lend memory by weight and take it back. Guest and host addresses agree up to the size of a huge page, without which
/// KVM could not use any; and huge ones, where they are asked for, pay: our kernel reaches its init in a quarter fewer instructions of
/// the host, for a seventh more memory (41 instead of 36 MiB in an idle guest of 256). Not below 2 MiB, where there is
/// little more than what the VMM writes at the start: clearing a huge page for that would take longer than the rest.
pub fn create(size: u64, pages: Pages) -> Result<GuestMemory, MemoryError> {
    map(ranges(size), pages, Owner::Us)
}

/// As [`create`], with `more` (start and length) behind it. Memory that is shared is never the pool's.
pub(crate) fn create_with(
    size: u64,
    more: Option<(u64, u64)>,
    pages: Pages,
    owner: Owner,
) -> Result<GuestMemory, MemoryError> {
    map(ranges(size).into_iter().chain(more), pages, owner)
}

fn map(
    ranges: impl IntoIterator<Item = (u64, u64)>,
    pages: Pages,
    owner: Owner,
) -> Result<GuestMemory, MemoryError> {
    let mut regions = Vec::with_capacity(3);
    for (start, length) in ranges {
        let mib = length >> 20;
        let length = length as usize;
        let plain = || map_aligned(length, PROTECTION).map_err(|source| MemoryError::Map { mib, source });
        let (address, flags) = match pages {
            Pages::Any => (plain()?, FLAGS),
            Pages::Huge => {
                let address = plain()?;
                ask_for_huge_pages(address, length);
                (address, FLAGS)
            }
            Pages::Pool => {
                let address = map_pool(length).map_err(|source| MemoryError::Pool { mib, source })?;
                (address, POOL_FLAGS)
            }
        };
        let region = match owner {
            // SAFETY: `address` is a mapping of `length` bytes, which nothing unmaps.
            Owner::Us => unsafe { MmapRegion::build_raw(address.cast(), length, PROTECTION, flags) }?,
            Owner::Shared => {
                share(address, length, pages).map_err(|source| MemoryError::Share { mib, source })?
            }
        };
        regions.extend(GuestRegionMmap::new(region, GuestAddress(start)));
    }
    Ok(GuestMemory::from_regions(regions)?)
}

/// A file of the host's in the guest's address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Where the guest sees it.
    pub(crate) guest: u64,
    /// Where it is mapped, for the rest of the process's life.
    pub(crate) host: u64,
    /// In bytes.
    pub(crate) length: u64,
    /// The guest cannot write it.
    pub(crate) read_only: bool,
}

/// All files in the guest's address space: one behind the other, above all memory.
///
/// Nobody here touches what is mapped: it is the guest's alone, and where another process cuts a file short, it is the
/// guest that gets no answer. Devices do not reach it either, as it is no guest memory.
#[derive(Debug)]
pub(crate) struct Windows {
    next: u64,
    open: Vec<Window>,
}

impl Windows {
    /// None yet, behind all memory, which ends at `end`.
    pub(crate) fn behind(end: u64) -> Self {
        Self {
            next: end.next_multiple_of(WINDOW_GRAIN),
            open: Vec::new(),
        }
    }

    /// Maps `size` bytes of `file`, with zeroes behind them up to `length`. Returns where the guest sees them.
    pub(crate) fn map(&mut self, file: &File, size: u64, length: u64, read_only: bool) -> io::Result<u64> {
        let guest = self.next;
        let next = guest
            .checked_add(length)
            .and_then(|end| end.checked_next_multiple_of(WINDOW_GRAIN));
        let (Some(next), Ok(room), true) = (next, usize::try_from(length), size <= length) else {
            return Err(io::ErrorKind::FileTooLarge.into());
        };
        let protection = if read_only { libc::PROT_READ } else { PROTECTION };
        let address = map_aligned(room, protection)?;
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        // SAFETY: the `size` bytes from `address` on are the start of a mapping that was just made and that nobody knows
        // yet; they are mapped anew.
        let mapped = unsafe { libc::mmap(address, size as usize, protection, flags, file.as_raw_fd(), 0) };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        self.next = next;
        self.open.push(Window {
            guest,
            host: address as u64,
            length,
            read_only,
        });
        Ok(guest)
    }

    /// Those that are mapped.
    pub(crate) fn open(&self) -> &[Window] {
        &self.open
    }
}

/// Puts a file that has no name in the place of a mapping of `length` bytes. Nobody can make the file shorter or longer:
/// a page that is not there would be the end of whoever touches it.
fn share(address: *mut libc::c_void, length: usize, pages: Pages) -> io::Result<MmapRegion> {
    let file = File::from(memfd_create(
        c"guest memory",
        MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
    )?);
    let size = libc::off_t::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
    ftruncate(&file, size)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
    let (at, fd) = (flags | libc::MAP_FIXED, file.as_raw_fd());
    // SAFETY: the `length` bytes from `address` on are a mapping that was just made and that nobody knows yet; they are
    // mapped anew.
    let mapped = unsafe { libc::mmap(address, length, PROTECTION, at, fd, 0) };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    if pages == Pages::Huge {
        ask_for_huge_pages(address, length);
    }
    // SAFETY: `address` is a mapping of `length` bytes of that file, which nothing unmaps.
    let builder = unsafe { MmapRegionBuilder::new(length).with_raw_mmap_pointer(address.cast()) };
    builder
        .with_mmap_prot(PROTECTION)
        .with_mmap_flags(flags)
        .with_file_offset(FileOffset::new(file, 0))
        .build()
        .map_err(io::Error::other)
}

/// Gives pages of the guest's memory, which this is the owner of, back to the host.
pub struct GiveBack(pub Owner);

impl Reclaim for GiveBack {
    fn reclaim(&self, slice: &GuestSlice<'_>) -> io::Result<()> {
        let guard = slice.ptr_guard_mut();
        let start = (guard.as_ptr() as usize).next_multiple_of(PAGE);
        let end = (guard.as_ptr() as usize).saturating_add(guard.len()) / PAGE * PAGE;
        let Some(length) = end.checked_sub(start).filter(|length| *length > 0) else {
            return Ok(());
        };
        let start = guard.as_ptr().wrapping_add(start - guard.as_ptr() as usize);
        // Of a file's pages, DONTNEED takes no more than the mapping.
        let advice = match self.0 {
            Owner::Us => libc::MADV_DONTNEED,
            Owner::Shared => libc::MADV_REMOVE,
        };
        // SAFETY: whole pages of the slice, which is guest memory: mapped by `map`, private and anonymous or a hole from
        // here on, so that its contents are zeroes. The guest may change them at any time; nobody holds a reference to them.
        match unsafe { libc::madvise(start.cast(), length, advice) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Maps huge pages of the host's pool, which always lie at a multiple of their size.
fn map_pool(length: usize) -> io::Result<*mut libc::c_void> {
    // SAFETY: a new mapping wherever the kernel likes.
    match unsafe { libc::mmap(ptr::null_mut(), length, PROTECTION, POOL_FLAGS, -1, 0) } {
        libc::MAP_FAILED => Err(io::Error::last_os_error()),
        address => Ok(address),
    }
}

/// Maps memory at a multiple of the huge page size. Kernels before 6.7 do not do so by themselves.
fn map_aligned(length: usize, protection: i32) -> io::Result<*mut libc::c_void> {
    let room = length.checked_add(HUGE).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: a new mapping wherever the kernel likes.
    let start = unsafe { libc::mmap(ptr::null_mut(), room, protection, FLAGS, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let head = (start as usize).next_multiple_of(HUGE) - start as usize;
    let address = start.wrapping_byte_add(head);
    for (spare, size) in [(start, head), (address.wrapping_byte_add(length), HUGE - head)] {
        // SAFETY: both ends lie inside of the mapping that was just made, outside of the `length` bytes from `address`
        // on, and nobody knows them.
        if size > 0 && unsafe { libc::munmap(spare, size) } != 0 {
            log::debug!(
                "unmap {size} bytes beside guest memory: {}",
                io::Error::last_os_error()
            );
        }
    }
    Ok(address)
}

/// For all of a mapping of `length` bytes but its first 2 MiB (see [`create`]).
fn ask_for_huge_pages(address: *mut libc::c_void, length: usize) {
    let Some(rest) = length.checked_sub(HUGE).filter(|rest| *rest > 0) else {
        return;
    };
    // SAFETY: `rest` bytes from there on are the end of the mapping; advice changes no contents.
    let advised = unsafe { libc::madvise(address.wrapping_byte_add(HUGE), rest, libc::MADV_HUGEPAGE) };
    if advised != 0 {
        log::debug!("ask for huge pages: {}", io::Error::last_os_error());
    }
}

/// The host addresses of a region, for KVM's memory slots.
pub(crate) fn host_address(region: &GuestRegionMmap) -> u64 {
    region.as_ptr() as u64
}

/// End of the memory below the gap.
pub(crate) fn low_end(size: u64) -> u64 {
    size.min(GAP_START)
}

/// A region's guest address and length.
pub(crate) fn extent(region: &GuestRegionMmap) -> (u64, u64) {
    (region.start_addr().0, region.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_leaves_the_gap_free() {
        assert_eq!(ranges(128 << 20), [(0, 128 << 20)]);
        assert_eq!(ranges(3 << 30), [(0, 3 << 30)]);
        assert_eq!(ranges(4 << 30), [(0, 3 << 30), (4 << 30, 1 << 30)]);
    }

    #[test]
    fn shared_memory_is_a_file_of_fixed_length() {
        use vm_memory::{Bytes, GuestMemoryBackend};
        let memory = create_with(64 << 20, None, Pages::Any, Owner::Shared).unwrap();
        memory.write_slice(b"guest", GuestAddress(5 << 20)).unwrap();
        let region = memory.iter().next().unwrap();
        let file = region.file_offset().unwrap();
        let mut bytes = [0; 5];
        std::os::unix::fs::FileExt::read_exact_at(file.file(), &mut bytes, 5 << 20).unwrap();
        assert_eq!((&bytes, file.start()), (b"guest", 0));
        for length in [0, 1 << 30] {
            assert!(file.file().set_len(length).is_err(), "{length}");
        }
    }

    #[test]
    fn whole_pages_go_back_to_the_host() {
        whole_pages_go_back(Owner::Us);
        whole_pages_go_back(Owner::Shared);
    }

    fn whole_pages_go_back(owner: Owner) {
        use vm_memory::{Bytes, GuestMemoryBackend};
        let memory = create_with(8 << 20, None, Pages::Huge, owner).unwrap();
        memory.write_slice(&[1; 5 * PAGE], GuestAddress(0)).unwrap();
        // Half of page 1 and page 4 each, and pages 2 and 3.
        let slice = memory
            .get_slice(GuestAddress(PAGE as u64 * 3 / 2), 3 * PAGE)
            .unwrap();
        GiveBack(owner).reclaim(&slice).unwrap();
        let mut contents = [0; 5 * PAGE];
        memory.read_slice(&mut contents, GuestAddress(0)).unwrap();
        for (page, byte) in [1, 1, 0, 0, 1].iter().enumerate() {
            assert_eq!(contents[page * PAGE..][..PAGE], [*byte; PAGE], "page {page}");
        }
        // Less than a page is nothing.
        let slice = memory.get_slice(GuestAddress(1), PAGE).unwrap();
        GiveBack(owner).reclaim(&slice).unwrap();
        assert_eq!(memory.read_obj::<u8>(GuestAddress(1)).unwrap(), 1);
    }

    #[test]
    fn windows_lie_behind_all_memory_and_apart() {
        let path = std::env::temp_dir().join(format!("window-{}", std::process::id()));
        std::fs::write(&path, [7; 5000]).unwrap();
        let file = File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        for (memory, first) in [
            (128 << 20, 4 << 30),
            (3 << 30, 4 << 30),
            (4 << 30, 5 << 30),
            ((4 << 30) + (1 << 20), (5 << 30) + (128 << 20)),
        ] {
            let mut windows = Windows::behind(end(memory));
            let mut map = |length: u64| windows.map(&file, 5000, length, true);
            assert_eq!(map(2 << 20).unwrap(), first);
            assert_eq!(map(130 << 20).unwrap(), first + (128 << 20));
            assert_eq!(map(2 << 20).unwrap(), first + (384 << 20));
            assert!(map(u64::MAX).is_err() && map(4096).is_err());
            let window = windows.open()[1];
            assert_eq!((window.length, window.host % HUGE as u64), (130 << 20, 0));
        }
    }

    #[test]
    fn memory_is_mapped_where_the_ranges_say() {
        use vm_memory::GuestMemoryBackend;
        let memory = create(5 << 30, Pages::Huge).unwrap();
        let extents: Vec<_> = memory.iter().map(extent).collect();
        assert_eq!(extents, ranges(5 << 30));
        for region in memory.iter() {
            assert_eq!(host_address(region) % HUGE as u64, 0);
        }
    }
}
