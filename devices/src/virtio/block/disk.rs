//! A file or block device as a disk: I/O straight between it and the guest's memory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use vmm_sys_util::fallocate::{FallocateMode, fallocate};

use super::config::{BlockConfig, BlockError, Cache, Engine};
use super::request::{Range, SECTOR};
use crate::sys::Pieces;
use crate::virtio::chain::Buffers;

/// What zeros are written from where the file system cannot make them itself.
static ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];

/// An open, locked disk: shared for reading, exclusively for writing.
#[derive(Debug)]
pub struct Disk {
    file: File,
    /// What the lock is on, if that is not `file`: an io_uring keeps its file open for a while after its process is gone.
    _lock: Option<File>,
    path: PathBuf,
    /// In bytes.
    size: u64,
    cache: Cache,
}

impl Disk {
    /// Opens the disk of `config`, and locks it.
    pub fn open(config: &BlockConfig) -> Result<Self, BlockError> {
        let path = config.path.clone();
        let (file, size) = look(config)?;
        let locked = if config.read_only {
            file.try_lock_shared()
        } else {
            file.try_lock()
        };
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(BlockError::InUse {
                    path,
                    read_only: config.read_only,
                });
            }
            Err(TryLockError::Error(source)) => return Err(BlockError::Lock { path, source }),
        }
        let (file, lock) = match config.engine {
            Engine::Sync => (file, None),
            Engine::Async => (again(config, &file)?, Some(file)),
        };
        Ok(Self {
            file,
            _lock: lock,
            path,
            size,
            cache: config.cache,
        })
    }

    /// How many sectors the disk of `config` has now; it is not locked.
    pub fn measure(config: &BlockConfig) -> Result<u64, BlockError> {
        look(config).map(|(_, size)| size / SECTOR)
    }

    /// Its size in bytes.
    pub(in crate::virtio) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn sectors(&self) -> u64 {
        self.size / SECTOR
    }

    pub(super) fn resize(&mut self, sectors: u64) {
        self.size = sectors.saturating_mul(SECTOR);
    }

    pub(in crate::virtio) fn file(&self) -> &File {
        &self.file
    }

    pub(in crate::virtio) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads from byte `offset` into guest memory.
    pub(super) fn read(&self, offset: u64, data: Buffers<'_>) -> io::Result<()> {
        self.transfer(offset, data, io::ErrorKind::UnexpectedEof, |pieces, offset| {
            pieces.read_from(&self.file, offset)
        })
    }

    /// Writes guest memory to byte `offset`.
    pub(super) fn write(&self, offset: u64, data: Buffers<'_>) -> io::Result<()> {
        self.transfer(offset, data, io::ErrorKind::WriteZero, |pieces, offset| {
            pieces.write_to(&self.file, offset)
        })
    }

    /// Moves all of `data` by as many system calls as it takes; one is the rule.
    fn transfer(
        &self,
        mut offset: u64,
        data: Buffers<'_>,
        ended: io::ErrorKind,
        mut step: impl FnMut(&Pieces<'_>, u64) -> io::Result<usize>,
    ) -> io::Result<()> {
        let mut rest = data;
        while !rest.is_empty() {
            let mut pieces = Pieces::new();
            for slice in rest.slices() {
                if !pieces.push(&slice.map_err(io::Error::other)?) {
                    break;
                }
            }
            let moved = step(&pieces, offset)?;
            if moved == 0 {
                // The file became shorter under the guest.
                return Err(ended.into());
            }
            let later = u32::try_from(moved)
                .ok()
                .and_then(|moved| rest.split_at(moved))
                .ok_or(io::ErrorKind::InvalidData)?;
            rest = later.1;
            offset = offset.saturating_add(moved as u64);
        }
        Ok(())
    }

    /// Makes what was written durable.
    pub(in crate::virtio) fn flush(&self) -> io::Result<()> {
        match self.cache {
            Cache::Writeback => self.file.sync_data(),
            Cache::Unsafe => Ok(()),
        }
    }

    /// Gives the range's blocks back. A discard is advice (5.2.6.2), so that a file system that cannot do it is no
    /// error.
    pub(super) fn discard(&self, range: &Range) -> io::Result<()> {
        match self.punch(range) {
            Err(error) if unsupported(&error) => Ok(()),
            other => other,
        }
    }

    /// Makes the range read as zeros, by the cheapest means that the file system has.
    pub(super) fn write_zeroes(&self, range: &Range) -> io::Result<()> {
        let cheap = if range.unmap {
            self.punch(range)
        } else {
            self.allocate(FallocateMode::ZeroRange, range)
        };
        match cheap {
            Err(error) if unsupported(&error) => self.write_zeroes_plainly(range),
            other => other,
        }
    }

    fn write_zeroes_plainly(&self, range: &Range) -> io::Result<()> {
        let mut offset = range.offset;
        let mut left = range.len;
        while left > 0 {
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
            let zeros = ZEROS.get(..len).unwrap_or_default();
            self.file.write_all_at(zeros, offset)?;
            offset = offset.saturating_add(len as u64);
            left = left.saturating_sub(len as u64);
        }
        Ok(())
    }

    fn punch(&self, range: &Range) -> io::Result<()> {
        self.allocate(FallocateMode::PunchHole, range)
    }

    fn allocate(&self, mode: FallocateMode, range: &Range) -> io::Result<()> {
        if range.len == 0 {
            return Ok(());
        }
        fallocate(&self.file, mode, true, range.offset, range.len).map_err(io::Error::from)
    }
}

/// Opens the file of `config`, whose size is a sector or more, and says how many bytes it has.
fn look(config: &BlockConfig) -> Result<(File, u64), BlockError> {
    let path = config.path.clone();
    let open = |source| BlockError::Open {
        path: path.clone(),
        source,
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(!config.read_only)
        // A FIFO would otherwise wait for its other end. Files and disks do not care.
        .custom_flags(libc::O_NONBLOCK)
        .open(&path)
        .map_err(open)?;
    let metadata = file.metadata().map_err(open)?;
    let size = if metadata.is_file() {
        metadata.len()
    } else if metadata.file_type().is_block_device() {
        file.seek(SeekFrom::End(0)).map_err(open)?
    } else {
        return Err(BlockError::Kind { path });
    };
    if size < SECTOR {
        return Err(BlockError::Size { path, size });
    }
    Ok((file, size))
}

/// Opens the file of `config` once more, which is `file`; without O_NONBLOCK, with which an io_uring fails what it would
/// have to wait for.
fn again(config: &BlockConfig, file: &File) -> Result<File, BlockError> {
    let open = || {
        let again = OpenOptions::new()
            .read(true)
            .write(!config.read_only)
            .open(&config.path)?;
        let identity = |file: &File| file.metadata().map(|found| (found.dev(), found.ino()));
        if identity(&again)? == identity(file)? {
            Ok(again)
        } else {
            Err(io::Error::other(
                "it was replaced while it was being opened; try again",
            ))
        }
    };
    open().map_err(|source| BlockError::Open {
        path: config.path.clone(),
        source,
    })
}

fn unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL)
    )
}
