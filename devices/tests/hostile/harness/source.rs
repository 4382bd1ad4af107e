//! Where a hostile driver's decisions come from: a seed, or the bytes of a fuzzer.

/// A stream of decisions.
pub enum Source<'a> {
    /// Never ends; the same seed makes the same decisions.
    Seed(u64),
    /// Ends with the bytes; from there on every decision is 0.
    Bytes(&'a [u8]),
}

impl Source<'_> {
    /// Whether there is nothing left to decide by.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Seed(_) => false,
            Self::Bytes(bytes) => bytes.is_empty(),
        }
    }

    pub fn u8(&mut self) -> u8 {
        match self {
            // SplitMix64: each step is a good number by itself, so that taking one byte of it is fair.
            Self::Seed(_) => self.u64() as u8,
            Self::Bytes(bytes) => match bytes.split_first() {
                Some((first, rest)) => {
                    *bytes = rest;
                    *first
                }
                None => 0,
            },
        }
    }

    pub fn u64(&mut self) -> u64 {
        match self {
            Self::Seed(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut value = *state;
                value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                value ^ (value >> 31)
            }
            Self::Bytes(_) => (0..8).fold(0, |value, _| value << 8 | u64::from(self.u8())),
        }
    }

    pub fn u16(&mut self) -> u16 {
        u16::from(self.u8()) << 8 | u16::from(self.u8())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from(self.u16()) << 16 | u32::from(self.u16())
    }

    /// Less than `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        match bound {
            0..=256 => u64::from(self.u8()) % bound.max(1),
            257..=65536 => u64::from(self.u16()) % bound,
            _ => self.u64() % bound,
        }
    }

    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }

    /// True once in `times`.
    pub fn one_in(&mut self, times: u64) -> bool {
        times < 2 || self.below(times) == 1
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.u8()).collect()
    }
}
