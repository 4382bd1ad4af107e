//! The entropy device (virtio 1.2, 5.4): the host's random numbers for the guest.

use super::chain::{Chain, serve};
use super::device::{Active, DeviceError, Outcome, VirtioDevice};
use crate::{GuestMemory, sys};

const DEVICE_TYPE: u32 = 4;
const QUEUE_SIZES: [u16; 1] = [256];

/// The most that one request is given. A driver asks again for more; without a limit one request of 4 GiB would
/// keep the vCPU, and the device's lock, for seconds.
const MAX_BYTES: u32 = 64 * 1024;

/// How much is fetched from the host at once, on the stack.
const CHUNK: usize = 1024;

/// The entropy device.
#[derive(Debug, Default)]
pub struct Rng {
    chain: Chain,
}

impl Rng {
    /// An entropy device; it has no settings.
    pub fn new() -> Self {
        Self::default()
    }
}

/// Fills the writable part of `chain`, up to [`MAX_BYTES`], and returns the number of bytes.
fn fill(chain: &Chain, memory: &GuestMemory) -> Result<u32, DeviceError> {
    let writable = chain.writable(memory);
    let total = writable.len().min(MAX_BYTES);
    let Some((mut rest, _)) = writable.split_at(total) else {
        return Ok(0);
    };
    let mut random = [0; CHUNK];
    while !rest.is_empty() {
        let len = rest.len().min(CHUNK as u32);
        let (Some((now, later)), Some(random)) = (rest.split_at(len), random.get_mut(..len as usize)) else {
            break;
        };
        sys::fill_random(random).map_err(|source| DeviceError::Host {
            operation: "random bytes from the host",
            source,
        })?;
        now.write(random)?;
        rest = later;
    }
    Ok(total)
}

impl VirtioDevice for Rng {
    fn device_type(&self) -> u32 {
        DEVICE_TYPE
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        0
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn activate(&mut self, _active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        Ok(Outcome::default())
    }

    fn handle_queue(&mut self, index: u16, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        Ok(Outcome {
            interrupt: serve(index, active, &mut self.chain, fill)?,
            config_changed: false,
        })
    }

    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests;
