//! Requests to a block device, past the page cache.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Where a buffer must begin, and the sizes it may have, for any device that there is.
const ALIGNMENT: usize = 4096;

/// Which places of the device, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Requests {
    /// All of them.
    pub(crate) count: u64,
    /// Bytes of each, a multiple of 4096.
    pub(crate) size: usize,
    /// How many at a time: so many threads that each wait for theirs.
    pub(crate) depth: u64,
    pub(crate) random: bool,
    pub(crate) write: bool,
}

impl Requests {
    /// Makes them all; how long it took.
    pub(crate) fn make(self, path: &Path) -> io::Result<Duration> {
        if self.size == 0 || !self.size.is_multiple_of(ALIGNMENT) || self.depth == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the size must be a multiple of 4096, the depth at least 1",
            ));
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(self.write)
            .custom_flags(libc::O_DIRECT)
            .open(path)?;
        let places = file.seek(SeekFrom::End(0))? / self.size as u64;
        let begin = Instant::now();
        thread::scope(|scope| {
            let file = &file;
            let threads: Vec<_> = (0..self.depth)
                .map(|first| scope.spawn(move || self.part(file, first, places)))
                .collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into())))
        })?;
        Ok(begin.elapsed())
    }

    /// Every `depth`th, beginning with `first`.
    fn part(self, file: &File, first: u64, places: u64) -> io::Result<()> {
        let mut memory = vec![0x5a; self.size + ALIGNMENT];
        let skip = memory.as_ptr().align_offset(ALIGNMENT);
        let buffer = &mut memory[skip..][..self.size];
        for number in (first..self.count).step_by(self.depth as usize) {
            let place = match self.random {
                // The golden ratio's multiples: far apart, and the same at each run.
                true => number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20,
                false => number,
            };
            let place = place.checked_rem(places).unwrap_or(0) * self.size as u64;
            match self.write {
                true => file.write_all_at(buffer, place)?,
                false => file.read_exact_at(buffer, place)?,
            }
        }
        Ok(())
    }
}
