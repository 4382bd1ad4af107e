//! Message-signalled interrupts (MSI-X, 7.7.2) as a plain value: a table of messages, each of which the guest can hold back,
//! and what waits meanwhile.

use crate::interrupt::Msi;

/// The capability's identifier.
pub(crate) const CAPABILITY: u8 = 0x11;
/// Message control: on.
pub(crate) const ENABLE: u16 = 1 << 15;
/// Message control: all held back.
pub(crate) const MASK_ALL: u16 = 1 << 14;

/// A table entry: address (64 bits), data, control.
const ENTRY: u64 = 16;
/// Vector control: this one is held back.
const MASKED: u32 = 1;

#[derive(Debug, Clone, Copy)]
struct Vector {
    words: [u32; 4],
    pending: bool,
}

impl Vector {
    fn message(&self) -> Msi {
        let [low, high, data, _] = self.words;
        Msi {
            address: u64::from(low) | u64::from(high) << 32,
            data,
        }
    }

    fn is_masked(&self) -> bool {
        let [.., control] = self.words;
        control & MASKED != 0
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Msix {
    vectors: Vec<Vector>,
    control: u16,
}

impl Msix {
    /// A table of `count` messages, all held back, as after a reset.
    pub(crate) fn new(count: u16) -> Self {
        let vector = Vector {
            words: [0, 0, 0, MASKED],
            pending: false,
        };
        Self {
            vectors: vec![vector; usize::from(count)],
            control: 0,
        }
    }

    /// Whether there is such a message.
    pub(crate) fn has(&self, vector: u16) -> bool {
        usize::from(vector) < self.vectors.len()
    }

    /// The device has something to tell: the message, or nothing where it is held back, or all are switched off.
    pub(crate) fn raise(&mut self, vector: u16) -> Option<Msi> {
        let held_back = self.control & MASK_ALL != 0;
        let vector = self.vectors.get_mut(usize::from(vector))?;
        if self.control & ENABLE == 0 {
            return None;
        }
        if held_back || vector.is_masked() {
            vector.pending = true;
            return None;
        }
        Some(vector.message())
    }

    /// The guest wrote message control. Returns what is held back no longer.
    pub(crate) fn set_control(&mut self, control: u16) -> Vec<Msi> {
        self.control = control;
        if control & ENABLE == 0 {
            self.vectors.iter_mut().for_each(|vector| vector.pending = false);
            return Vec::new();
        }
        if control & MASK_ALL != 0 {
            return Vec::new();
        }
        let waiting = self.vectors.iter_mut().filter(|vector| !vector.is_masked());
        waiting
            .filter_map(|vector| std::mem::take(&mut vector.pending).then(|| vector.message()))
            .collect()
    }

    /// The guest reads the table; by 4 or 8 bytes, else it reads zeroes (7.7.2).
    pub(crate) fn read_table(&self, offset: u64, data: &mut [u8]) {
        for (number, chunk) in (0..).zip(data.chunks_mut(4)) {
            let word = words_on(offset, number).and_then(|at| self.word(at));
            if let (Some(word), Ok(chunk)) = (word, <&mut [u8; 4]>::try_from(chunk)) {
                *chunk = word.to_le_bytes();
            }
        }
    }

    /// The guest writes the table. Returns what is held back no longer.
    pub(crate) fn write_table(&mut self, offset: u64, data: &[u8]) -> Option<Msi> {
        let mut sent = None;
        for (number, chunk) in (0..).zip(data.chunks(4)) {
            if let (Some(at), Ok(chunk)) = (words_on(offset, number), <[u8; 4]>::try_from(chunk)) {
                sent = self.set_word(at, u32::from_le_bytes(chunk)).or(sent);
            }
        }
        sent
    }

    /// The guest reads which messages wait: a bit each.
    pub(crate) fn read_pending(&self, offset: u64, data: &mut [u8]) {
        for (number, byte) in (0..).zip(data) {
            let at = offset.saturating_add(number);
            let first = usize::try_from(at.saturating_mul(8)).unwrap_or(usize::MAX);
            let waiting = self.vectors.iter().skip(first).take(8).enumerate();
            *byte = waiting.fold(0, |bits, (bit, vector)| bits | u8::from(vector.pending) << bit);
        }
    }

    fn word(&self, at: u64) -> Option<u32> {
        let (vector, word) = place(at)?;
        self.vectors.get(vector)?.words.get(word).copied()
    }

    fn set_word(&mut self, at: u64, value: u32) -> Option<Msi> {
        let (place, word) = place(at)?;
        let on = self.control & (ENABLE | MASK_ALL) == ENABLE;
        let vector = self.vectors.get_mut(place)?;
        // Of control only one bit is anything.
        *vector.words.get_mut(word)? = if word == 3 { value & MASKED } else { value };
        let goes = on && vector.pending && !vector.is_masked();
        goes.then(|| {
            vector.pending = false;
            vector.message()
        })
    }
}

/// The offset `number` words behind `offset`.
fn words_on(offset: u64, number: u64) -> Option<u64> {
    number.checked_mul(4)?.checked_add(offset)
}

/// Which entry, and which word of it.
fn place(at: u64) -> Option<(usize, usize)> {
    if !at.is_multiple_of(4) {
        return None;
    }
    let vector = usize::try_from(at.checked_div(ENTRY)?).ok()?;
    let word = usize::try_from(at.checked_rem(ENTRY)?.checked_div(4)?).ok()?;
    Some((vector, word))
}
