//! The contract between a virtio device's core and the transport that carries it.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use virtio_queue::Queue;

use crate::GuestMemory;

/// A virtio device without its transport: a plain state machine over queues and guest memory.
///
/// # Who calls what
/// The transport owns the queues, the negotiated features and the status machine, and holds one lock around all
/// of it. Every method is called with that lock held, from the vCPU's thread (queue notifications, configuration
/// accesses, reset) or from the event loop's (host events). A device takes no other device's lock.
///
/// # Life
/// `activate` is called once when the driver sets DRIVER_OK with valid queues; `handle_queue` and `handle_host`
/// only between `activate` and `reset`. After `reset` the device is as new, ready to be activated again.
/// A call works off what its queue holds, but ends when its [`Share`] is over: a driver can fill its queue as fast as it
/// is emptied, and whoever wants the lock would wait for ever. The transport then calls the same method again, on the
/// event loop's thread, once that has looked after everything else.
///
/// While the machine is paused none of the `handle_*` methods is called; work that arrives meanwhile waits in the
/// queues or in the kernel's buffers. A device that has the kernel work on guest memory between calls has it finish in
/// `settle` (before a pause, and before the driver has a queue back), in `reset`, and when it is dropped.
///
/// # Errors
/// An `Err` means that the driver broke the protocol in a way that leaves no used entry to answer with, or that
/// the device cannot go on. The transport then sets DEVICE_NEEDS_RESET, counts it, tells the driver, and calls
/// nothing but `reset` and `read_config` until the driver resets the device (virtio 1.2, 2.1.2).
/// A failing request that can be answered (a block I/O error) is answered and is no `Err`.
pub trait VirtioDevice: Send {
    /// The device type of virtio 1.2 section 5 (network 1, block 2, entropy 4, vsock 19).
    fn device_type(&self) -> u32;

    /// The largest size of each queue, in descriptors, a power of two; its length is the number of queues.
    fn queue_max_sizes(&self) -> &[u16];

    /// How many of the queues, from the first on, a driver sets up that accepted `features`; all, for most devices.
    fn queues_needed(&self, _features: u64) -> usize {
        self.queue_max_sizes().len()
    }

    /// The device's own feature bits. The transport adds those of the ring and of itself (VERSION_1,
    /// RING_INDIRECT_DESC, RING_EVENT_IDX).
    fn features(&self) -> u64;

    /// Which of the transport's own feature bits the device can do; all, unless another process has the queues.
    fn ring_features(&self) -> u64 {
        u64::MAX
    }

    /// Reads the device configuration space. `data` arrives zeroed; bytes past the space's end stay zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Writes the device configuration space; most devices have nothing that a driver may write.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// The driver is ready.
    fn activate(&mut self, active: &mut Active<'_>) -> Result<Outcome, DeviceError>;

    /// The driver notified queue `index` (always less than the number of queues).
    fn handle_queue(&mut self, index: u16, active: &mut Active<'_>) -> Result<Outcome, DeviceError>;

    /// The descriptors whose readiness means work from the host's side; always the same ones. The event loop watches
    /// them edge-triggered for as long as the device exists, and the transport calls `handle_host` once after
    /// `activate`, so that nothing that was ready before is missed.
    fn host_fds(&self) -> Vec<RawFd> {
        Vec::new()
    }

    /// One of `host_fds` became ready, whichever. The device takes all that it can; what it must leave (no free descriptors) it
    /// remembers and takes up again in `handle_queue`.
    fn handle_host(&mut self, _active: &mut Active<'_>) -> Result<Outcome, DeviceError> {
        Ok(Outcome::default())
    }

    /// Waits until the kernel is done with what was begun on guest memory, at most for `patience`, and begins nothing
    /// new; says whether it is done. It is answered in the next call of `handle_host`. Called in any state.
    fn settle(&mut self, _patience: Duration) -> bool {
        true
    }

    /// Back to the state before `activate`; whatever is open towards the host on behalf of the driver is dropped.
    fn reset(&mut self);
}

/// What an active device works on; lent by the transport for the length of one call.
pub struct Active<'a> {
    /// The guest's memory.
    pub memory: &'a GuestMemory,
    /// The queues, all of them, in order.
    pub queues: &'a mut [Queue],
    /// The feature bits that were negotiated, the transport's included.
    pub features: u64,
    /// How long the call may go on.
    pub share: Share,
}

/// The time that one call of a device gets.
#[derive(Debug)]
pub struct Share {
    until: Instant,
    cut_short: bool,
}

impl Share {
    /// Long enough for a queue full of ordinary requests, too short to be felt by whoever wants the machine to end, to
    /// pause, or the same device.
    const LENGTH: Duration = Duration::from_millis(5);

    /// The share of a call that begins now.
    pub fn begin() -> Self {
        Self::of(Self::LENGTH)
    }

    /// A share of this length from now on.
    pub fn of(length: Duration) -> Self {
        let now = Instant::now();
        Self {
            until: now.checked_add(length).unwrap_or(now),
            cut_short: false,
        }
    }

    /// Whether the device must leave off. To be asked after each request, so that every call gets something done;
    /// what is left is taken up by another call.
    pub fn is_over(&mut self) -> bool {
        self.cut_short |= Instant::now() >= self.until;
        self.cut_short
    }

    /// Whether the device was told to leave off.
    pub fn was_cut_short(&self) -> bool {
        self.cut_short
    }
}

/// What the transport has to tell the driver after a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The driver wants to hear that used entries were added (the device has asked
    /// `Queue::needs_notification`, so that EVENT_IDX is honoured).
    pub interrupt: bool,
    /// The configuration space changed: the transport moves the generation on and sends a configuration interrupt.
    pub config_changed: bool,
}

/// Why a device cannot go on until it is reset.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The ring itself is broken.
    #[error("queue {queue}: {source}")]
    Queue {
        /// The queue's index.
        queue: u16,
        /// What the ring's code said.
        source: virtio_queue::Error,
    },
    /// A descriptor chain breaks the device's rules and has no place to answer in.
    #[error("queue {queue}: malformed request: {reason}")]
    Malformed {
        /// The queue's index.
        queue: u16,
        /// Which rule.
        reason: &'static str,
    },
    /// The host's side failed.
    #[error("{operation}: {source}")]
    Host {
        /// What was tried, on what.
        operation: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}
