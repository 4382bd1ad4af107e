//! A file or a piece of memory, read at places and copied to the guest once.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use secovia_devices::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

/// A kernel's bytes.
pub(super) enum Image<'a> {
    /// In a file. It is read, not mapped: a file that shrinks meanwhile is an error then, and no fatal signal.
    File {
        /// The file.
        file: &'a File,
        /// Its length when it was opened.
        length: u64,
        /// Its first bytes, which hold all headers of most kernels.
        head: Box<[u8]>,
    },
    /// Unpacked already.
    Bytes(&'a [u8]),
}

/// Bytes of a file that are read ahead.
const HEAD: usize = 4096;

impl<'a> Image<'a> {
    pub(super) fn of_file(file: &'a File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let mut head = vec![0; length.min(HEAD as u64) as usize].into_boxed_slice();
        file.read_exact_at(&mut head, 0)?;
        Ok(Self::File { file, length, head })
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::File { length, .. } => *length,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Fills `buffer` from `offset` on; an error of kind `UnexpectedEof` where the image ends before.
    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let known: &[u8] = match self {
            Self::File { head, .. } => head,
            Self::Bytes(bytes) => bytes,
        };
        let found = usize::try_from(offset)
            .ok()
            .and_then(|start| known.get(start..start.checked_add(buffer.len())?));
        match (self, found) {
            (_, Some(found)) => {
                buffer.copy_from_slice(found);
                Ok(())
            }
            (Self::File { file, .. }, None) => file.read_exact_at(buffer, offset),
            (Self::Bytes(_), None) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Copies `size` bytes from `offset` on to guest memory at `address`.
    pub(super) fn copy_to(
        &self,
        memory: &GuestMemory,
        offset: u64,
        address: u64,
        size: u64,
    ) -> io::Result<()> {
        let length = usize::try_from(size).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let address = GuestAddress(address);
        match self {
            Self::File { file, .. } => {
                let mut file = *file;
                file.seek(SeekFrom::Start(offset))?;
                memory
                    .read_exact_volatile_from(address, &mut file, length)
                    .map_err(io::Error::other)
            }
            Self::Bytes(bytes) => {
                let range = usize::try_from(offset)
                    .ok()
                    .and_then(|start| Some(start..start.checked_add(length)?));
                let bytes = range
                    .and_then(|range| bytes.get(range))
                    .ok_or(io::ErrorKind::UnexpectedEof)?;
                memory.write_slice(bytes, address).map_err(io::Error::other)
            }
        }
    }
}
