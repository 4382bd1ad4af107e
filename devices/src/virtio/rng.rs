//! The entropy device (virtio 1.2, 5.4): the host's random numbers for the guest.

use std::io;
use std::os::fd::RawFd;

use super::chain::Chain;
use super::device::{Active, DeviceError, Outcome, VirtioDevice};
use super::limited::{Answer, LimitedQueue, Served};
use crate::limiter::{LimitHandle, LimiterConfig};
use crate::published::Published;
use crate::{GuestMemory, sys};

const DEVICE_TYPE: u32 = 4;
const QUEUE_SIZES: [u16; 1] = [256];

/// The most that one request is given. A driver asks again for more; without a limit one request of 4 GiB would
/// keep the vCPU, and the device's lock, for seconds.
const MAX_BYTES: u32 = 64 * 1024;

/// How much is fetched from the host at once, on the stack.
const CHUNK: usize = 1024;

/// What happened on an entropy device since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RngCounters {
    /// Requests that were served.
    pub served: u64,
    /// Random bytes that the guest got.
    pub bytes: u64,
    /// How often a limit held a request back.
    pub limited: u64,
}

/// The machine's end of an entropy device. Any thread may use it.
#[derive(Debug, Clone)]
pub struct RngHandle {
    /// Its limit.
    pub limit: LimitHandle,
    /// What happened, as of the device's last call.
    pub counters: Published<RngCounters>,
}

/// The entropy device.
#[derive(Debug)]
pub struct Rng {
    counters: RngCounters,
    published: Published<RngCounters>,
    queue: LimitedQueue,
}

impl Rng {
    /// An entropy device. Fails where there is no timer for its limit.
    pub fn new(limit: &LimiterConfig) -> io::Result<Self> {
        Ok(Self {
            counters: RngCounters::default(),
            published: Published::default(),
            queue: LimitedQueue::new(limit)?,
        })
    }

    /// By which the machine changes its limit.
    pub fn handle(&self) -> RngHandle {
        RngHandle {
            limit: self.queue.limit(),
            counters: self.published.clone(),
        }
    }

    /// Serves what waits in the queue, as far as the limit allows.
    fn serve(&mut self, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        let Self { queue, counters, .. } = self;
        let Served {
            interrupt, limited, ..
        } = queue.serve(active, |chain, memory| {
            let bytes = fill(chain, memory)?;
            counters.served = counters.served.wrapping_add(1);
            counters.bytes = counters.bytes.wrapping_add(bytes.into());
            Ok(Answer::Now {
                written: bytes,
                moved: bytes.into(),
            })
        })?;
        counters.limited = counters.limited.wrapping_add(limited.into());
        self.published.set(self.counters);
        Ok(Outcome {
            interrupt,
            config_changed: false,
        })
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

    fn handle_queue(&mut self, _index: u16, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        self.serve(active)
    }

    fn host_fds(&self) -> Vec<RawFd> {
        vec![self.queue.alarm_fd()]
    }

    fn handle_host(&mut self, active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        if self.queue.is_behind() {
            self.serve(active)
        } else {
            Ok(Outcome::default())
        }
    }

    fn reset(&mut self) {
        self.queue.reset();
    }
}

#[cfg(test)]
mod tests;
