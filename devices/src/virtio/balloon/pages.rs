//! Page numbers as the driver sends them, and the runs that they make.

use crate::virtio::chain::Buffers;
use crate::virtio::device::DeviceError;

/// The balloon's page, whatever the guest's is (5.5.6).
pub(super) const PAGE: u64 = 4096;
/// Pages that are looked at together; what Linux puts into one request.
pub(super) const AT_ONCE: usize = 256;
/// Pages of one request that are given back; a request with more is served so far. Each may cost a system call.
pub(super) const MAX_PAGES: u32 = 4096;

/// Reads as many page numbers as fit into `numbers`.
pub(super) fn read(buffers: Buffers<'_>, numbers: &mut [u32]) -> Result<(), DeviceError> {
    let mut bytes = [0; AT_ONCE * 4];
    let len = numbers.len().saturating_mul(4).min(bytes.len());
    let bytes = bytes.get_mut(..len).unwrap_or_default();
    buffers.read(bytes)?;
    let (words, _) = bytes.as_chunks();
    for (number, word) in numbers.iter_mut().zip(words) {
        *number = u32::from_le_bytes(*word);
    }
    Ok(())
}

/// Runs of pages that follow each other, lowest first: first page and count.
pub(super) struct Runs<'a>(&'a [u32]);

impl<'a> Runs<'a> {
    /// The runs in `numbers`, which are put in order.
    pub(super) fn of(numbers: &'a mut [u32]) -> Self {
        numbers.sort_unstable();
        Self(numbers)
    }
}

impl Iterator for Runs<'_> {
    type Item = (u32, u32);

    fn next(&mut self) -> Option<(u32, u32)> {
        let (&first, mut rest) = self.0.split_first()?;
        let mut last = first;
        while let Some((&number, later)) = rest.split_first() {
            // A page may be named twice.
            if number.saturating_sub(last) > 1 {
                break;
            }
            last = number;
            rest = later;
        }
        self.0 = rest;
        Some((first, last.saturating_sub(first).saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(mut numbers: Vec<u32>) -> Vec<(u32, u32)> {
        Runs::of(&mut numbers).collect()
    }

    #[test]
    fn pages_that_follow_each_other_are_one_run() {
        assert_eq!(runs(vec![]), []);
        assert_eq!(runs(vec![7]), [(7, 1)]);
        assert_eq!(runs(vec![9, 8, 7, 3, 4, 12]), [(3, 2), (7, 3), (12, 1)]);
        assert_eq!(runs(vec![5, 5, 6, 5]), [(5, 2)]);
        assert_eq!(runs(vec![u32::MAX, 0, u32::MAX - 1]), [(0, 1), (u32::MAX - 1, 2)]);
    }
}
