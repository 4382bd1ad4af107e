//! What a command has written: a bounded history with any number of readers. Pure: no descriptors, no clocks, no locks.

use std::collections::{BTreeMap, VecDeque};

/// Which of a command's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output; with a terminal, everything.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Names a reader that is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ReaderId(u64);

/// What a reader gets next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Bytes of one stream.
    Data(Stream, Vec<u8>),
    /// So many bytes are gone: they were dropped while nobody was attached.
    Gap(u64),
    /// Nothing yet.
    UpToDate,
    /// The reader was detached.
    Detached,
}

/// The history.
///
/// Both streams share one count of bytes, in the order in which they were read from the command. While readers are
/// attached nothing that one of them has yet to read is dropped: [`Output::accept`] takes less instead, and the command
/// waits. What all readers have, or what nobody is there to read, makes room for the new, oldest first.
#[derive(Debug)]
pub(crate) struct Output {
    bytes: VecDeque<u8>,
    /// Where each run of bytes of one stream begins, oldest first; the first may begin before what is kept.
    runs: VecDeque<(u64, Stream)>,
    /// The count of the oldest byte that is kept.
    start: u64,
    /// The count of the next byte to come.
    end: u64,
    capacity: usize,
    readers: BTreeMap<ReaderId, u64>,
    last_reader: u64,
}

/// What a run is charged against the capacity, so that a command that alternates streams byte by byte stays in bounds.
const RUN_COST: usize = size_of::<(u64, Stream)>();

impl Output {
    /// A history of at most `capacity` bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            bytes: VecDeque::new(),
            runs: VecDeque::new(),
            start: 0,
            end: 0,
            capacity: capacity.max(RUN_COST.saturating_mul(4)),
            readers: BTreeMap::new(),
            last_reader: 0,
        }
    }

    /// How many bytes the command has written in all.
    pub(crate) fn total(&self) -> u64 {
        self.end
    }

    /// Adds a reader at byte `from`; `None` where so much was never written.
    pub(crate) fn attach(&mut self, from: u64) -> Option<ReaderId> {
        if from > self.end {
            return None;
        }
        self.last_reader = self.last_reader.wrapping_add(1);
        let id = ReaderId(self.last_reader);
        self.readers.insert(id, from);
        Some(id)
    }

    /// Removes a reader; it holds nobody up any more.
    pub(crate) fn detach(&mut self, id: ReaderId) {
        self.readers.remove(&id);
    }

    /// Takes bytes from the command and says how many it took; the rest has to wait for a reader.
    pub(crate) fn accept(&mut self, stream: Stream, data: &[u8]) -> usize {
        let new_run = self.runs.back().is_none_or(|(_, last)| *last != stream);
        let cost = if new_run { RUN_COST } else { 0 };
        self.make_room(data.len().saturating_add(cost));
        let room = self.capacity.saturating_sub(self.used()).saturating_sub(cost);
        let taken = data.get(..room.min(data.len())).unwrap_or_default();
        if taken.is_empty() {
            return 0;
        }
        if new_run {
            self.runs.push_back((self.end, stream));
        }
        self.bytes.extend(taken);
        self.end = self.end.saturating_add(taken.len() as u64);
        taken.len()
    }

    /// What comes next for a reader, at most `max` bytes of it.
    pub(crate) fn next(&self, id: ReaderId, max: usize) -> Piece {
        let Some(&at) = self.readers.get(&id) else {
            return Piece::Detached;
        };
        if at < self.start {
            return Piece::Gap(self.start.saturating_sub(at));
        }
        let after = self.runs.partition_point(|(begin, _)| *begin <= at);
        let run = after.checked_sub(1).and_then(|i| self.runs.get(i));
        let Some((_, stream)) = run.filter(|_| at < self.end) else {
            return Piece::UpToDate;
        };
        let run_end = self.runs.get(after).map_or(self.end, |(begin, _)| *begin);
        let skip = at.saturating_sub(self.start) as usize;
        let length = (run_end.saturating_sub(at) as usize).min(max);
        Piece::Data(*stream, self.copy(skip, length))
    }

    /// A reader has taken this many bytes, or has been told of the gap.
    pub(crate) fn advance(&mut self, id: ReaderId, count: u64) {
        if let Some(at) = self.readers.get_mut(&id) {
            *at = at.saturating_add(count).min(self.end);
        }
    }

    fn copy(&self, skip: usize, length: usize) -> Vec<u8> {
        let (front, back) = self.bytes.as_slices();
        let mut bytes = Vec::with_capacity(length);
        let from_front = front.get(skip..).unwrap_or_default();
        bytes.extend_from_slice(from_front.get(..length).unwrap_or(from_front));
        let from_back = back.get(skip.saturating_sub(front.len())..).unwrap_or_default();
        let rest = length.saturating_sub(bytes.len());
        bytes.extend_from_slice(from_back.get(..rest).unwrap_or(from_back));
        bytes
    }

    fn used(&self) -> usize {
        self.bytes
            .len()
            .saturating_add(self.runs.len().saturating_mul(RUN_COST))
    }

    /// Drops the oldest bytes until `wanted` fits, but nothing that a reader still waits for.
    fn make_room(&mut self, wanted: usize) {
        let keep = self.readers.values().copied().min().unwrap_or(self.end);
        while self.used().saturating_add(wanted) > self.capacity && self.start < keep {
            let excess = self.used().saturating_add(wanted).saturating_sub(self.capacity);
            let run_end = self.runs.get(1).map_or(self.end, |(begin, _)| *begin);
            let in_run = run_end.min(keep).saturating_sub(self.start) as usize;
            let count = excess.min(in_run);
            self.bytes.drain(..count);
            self.start = self.start.saturating_add(count as u64);
            // The newest run stays, even when it is empty: more of the same stream may follow.
            if self.start == run_end && self.runs.len() > 1 {
                self.runs.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests;
