//! What holds an image of other people's making: a directory in OCI's layout, or a tar of one or of docker's.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tar::Archive;

use super::error::OciError;
use super::path::parse_path;
use crate::caller::Caller;

/// The file that OCI's layout is known by.
pub(super) const LAYOUT_FILE: &str = "oci-layout";

/// So many files a layout may have.
const MEMBERS_MAX: usize = 16_384;

/// No document is larger: they are held in memory.
const DOCUMENT_MAX: u64 = 4 << 20;

/// Where documents and layers are read from, by name. Files are opened with the caller's rights.
#[derive(Debug)]
pub enum Source {
    /// A directory in OCI's layout.
    Directory {
        /// The directory.
        path: PathBuf,
        /// Who must be able to read it.
        caller: Caller,
    },
    /// A tar.
    Archive {
        /// The tar.
        file: File,
        /// Offset and length of each regular file in it.
        members: BTreeMap<String, (u64, u64)>,
    },
}

impl Source {
    /// The archive at `path`, or the layout that the directory there holds; nothing where it is a directory without one.
    pub fn open(path: &Path, caller: &Caller) -> Result<Option<Self>, OciError> {
        match caller.open(path) {
            Ok(file) => Self::archive(file).map(Some),
            Err(_) if path.is_dir() => {
                let is_layout = caller.open(&path.join(LAYOUT_FILE)).is_ok();
                Ok(is_layout.then(|| Self::Directory {
                    path: path.to_path_buf(),
                    caller: caller.clone(),
                }))
            }
            Err(source) => Err(OciError::Open(source)),
        }
    }

    /// The members of a tar.
    pub fn archive(file: File) -> Result<Self, OciError> {
        let mut magic = [0; 2];
        if file.read_at(&mut magic, 0).map_err(OciError::Open)? == 2 && magic == [0x1f, 0x8b] {
            return Err(OciError::Compressed);
        }
        let end = file.metadata().map_err(OciError::Open)?.len();
        let window = Window {
            file: &file,
            at: 0,
            end,
        };
        let mut members = BTreeMap::new();
        let mut archive = Archive::new(window);
        // Nothing of what an archive of an image needs has a name that takes an extension; those are passed over.
        for member in archive
            .entries_with_seek()
            .map_err(OciError::NoArchive)?
            .raw(true)
        {
            let member = member.map_err(OciError::NoArchive)?;
            let (offset, length) = (member.raw_file_position(), member.size());
            if !member.header().entry_type().is_file() {
                continue;
            }
            if offset.checked_add(length).is_none_or(|last| last > end) {
                return Err(OciError::NoArchive(io::ErrorKind::UnexpectedEof.into()));
            }
            if let Ok(names) = parse_path(&member.header().path_bytes()) {
                members.insert(names.join("/"), (offset, length));
            }
            if members.len() > MEMBERS_MAX {
                return Err(OciError::Members(MEMBERS_MAX));
            }
        }
        Ok(Self::Archive { file, members })
    }

    /// Whether there is a file of this name.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::Directory { path, caller } => caller.open(&path.join(name)).is_ok(),
            Self::Archive { members, .. } => members.contains_key(name),
        }
    }

    /// Opens a file. `name` is one of the layout's own, or made of a digest; in an archive it may be any.
    pub fn open_file(&self, name: &str) -> Result<Box<dyn Read + '_>, OciError> {
        let failed = |source| OciError::Read {
            name: name.to_string(),
            source,
        };
        match self {
            Self::Directory { path, caller } => Ok(Box::new(caller.open(&path.join(name)).map_err(failed)?)),
            Self::Archive { file, members } => {
                let missing = || failed(io::Error::new(io::ErrorKind::NotFound, "is not in the archive"));
                let (at, length) = members.get(name).copied().ok_or_else(missing)?;
                let end = at + length;
                Ok(Box::new(Window { file, at, end }))
            }
        }
    }

    /// Reads a file that is held in memory.
    pub fn document(&self, name: &str) -> Result<Vec<u8>, OciError> {
        let mut bytes = Vec::new();
        let read = self
            .open_file(name)?
            .take(DOCUMENT_MAX + 1)
            .read_to_end(&mut bytes);
        read.map_err(|source| OciError::Read {
            name: name.to_string(),
            source,
        })?;
        if bytes.len() as u64 > DOCUMENT_MAX {
            return Err(OciError::document(
                name,
                format!("is larger than {DOCUMENT_MAX} bytes"),
            ));
        }
        Ok(bytes)
    }
}

/// A part of a file, read by its place: several readers share the file.
#[derive(Debug)]
struct Window<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = (self.end.saturating_sub(self.at)).min(buffer.len() as u64) as usize;
        let count = self.file.read_at(&mut buffer[..room], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl io::Seek for Window<'_> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let at = match to {
            io::SeekFrom::Start(at) => Some(at),
            io::SeekFrom::End(step) => self.end.checked_add_signed(step),
            io::SeekFrom::Current(step) => self.at.checked_add_signed(step),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
