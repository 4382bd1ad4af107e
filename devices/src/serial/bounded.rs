//! A file that a guest may write for ever.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

/// How much of what was written stays when the file is begun anew, at most: enough for a kernel's last words.
const TAIL: u64 = 64 * 1024;

/// What stands where something was left out.
const MARK: &[u8] = b"\n[older output left out]\n";

/// Keeps the end of what is written in a file, which is never longer than a limit.
///
/// When the file is full it is cut to nothing and begins with the last bytes that it held: at most 64 KiB, and never
/// more than half of it. They are kept in memory, so that the file need not be readable.
#[derive(Debug)]
pub struct BoundedFile {
    file: File,
    limit: u64,
    size: u64,
    tail: VecDeque<u8>,
    tail_max: usize,
}

impl BoundedFile {
    /// The least limit that leaves something to be read.
    pub const LIMIT_MIN: u64 = 4096;

    /// Goes on at the file's end; it must be a regular one. A limit below [`Self::LIMIT_MIN`] counts as that.
    pub fn new(mut file: File, limit: u64) -> io::Result<Self> {
        let limit = limit.max(Self::LIMIT_MIN);
        let size = file.seek(SeekFrom::End(0))?;
        Ok(Self {
            file,
            limit,
            size,
            tail: VecDeque::new(),
            tail_max: usize::try_from(limit.div_euclid(2).min(TAIL)).unwrap_or(usize::MAX),
        })
    }

    /// Begins anew with the tail.
    fn begin(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.size = 0;
        self.put(MARK)?;
        let tail = std::mem::take(&mut self.tail);
        let (first, second) = tail.as_slices();
        self.put(first)?;
        self.put(second)?;
        self.tail = tail;
        Ok(())
    }

    fn put(&mut self, data: &[u8]) -> io::Result<()> {
        self.file.write_all(data)?;
        self.size = self.size.saturating_add(data.len() as u64);
        Ok(())
    }
}

impl Write for BoundedFile {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        // No more than the tail at a time, so that what is written fits after it.
        let data = data.get(..self.tail_max.div_euclid(2)).unwrap_or(data);
        if self.size.saturating_add(data.len() as u64) > self.limit {
            self.begin()?;
        }
        self.put(data)?;
        self.tail.extend(data);
        let old = self.tail.len().saturating_sub(self.tail_max);
        self.tail.drain(..old);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
