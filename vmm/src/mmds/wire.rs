//! Frames in and out of the stack.

use std::collections::VecDeque;

use smoltcp::phy::{self, Checksum, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

/// What waits in either direction at most. What comes beyond that is lost, as on any wire, and sent again by whoever
/// misses it.
const FRAMES_MAX: usize = 64;

/// The cable between the guest and the stack.
#[derive(Debug)]
pub(super) struct Wire {
    /// The longest frame for the guest.
    frame_max: usize,
    to_stack: VecDeque<Vec<u8>>,
    to_guest: VecDeque<Vec<u8>>,
}

impl Wire {
    /// A cable for packets of so many bytes, behind Ethernet's header.
    pub(super) fn new(mtu: u16) -> Self {
        Self {
            frame_max: usize::from(mtu).saturating_add(14),
            to_stack: VecDeque::new(),
            to_guest: VecDeque::new(),
        }
    }

    /// Takes a frame of the guest's.
    pub(super) fn put(&mut self, frame: &[u8]) {
        if self.to_stack.len() < FRAMES_MAX {
            self.to_stack.push_back(frame.into());
        }
    }

    /// The next frame for the guest.
    pub(super) fn get(&mut self) -> Option<Vec<u8>> {
        self.to_guest.pop_front()
    }

    /// Whether there is one.
    pub(super) fn has_some(&self) -> bool {
        !self.to_guest.is_empty()
    }
}

/// A frame of the guest's.
pub(super) struct Received(Vec<u8>);

/// Room for one to it.
pub(super) struct Room<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl phy::TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl phy::Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, now: Instant) -> Option<(Received, Room<'_>)> {
        // An answer may need room.
        if self.to_guest.len() >= FRAMES_MAX {
            return None;
        }
        let frame = self.to_stack.pop_front()?;
        Some((Received(frame), self.transmit(now)?))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        (self.to_guest.len() < FRAMES_MAX).then_some(Room(&mut self.to_guest))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.frame_max;
        // Between a guest and its own host nothing is damaged, and the guest leaves the sum to whoever sends it on.
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities
    }
}
