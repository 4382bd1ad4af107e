//! Somebody on the guest's cable who is inside of this process.

use std::fmt;
use std::time::Duration;

/// Bytes of a frame by which it is told whom it is for: Ethernet's header and the addresses of IPv4, or all of ARP.
pub(super) const HEAD: usize = 42;

/// Somebody on the guest's cable who is inside of this process. What the guest sends him does not reach the link.
///
/// Called by the device, with its lock held, on whichever thread has that. Frames are Ethernet's, without the header of
/// virtio; the checksum of TCP or UDP in those of the guest's may be left out, and they may be longer than the MTU.
pub trait Neighbour: Send + fmt::Debug {
    /// Whether a frame that begins so is for him. `head` has up to 42 bytes.
    fn is_for_it(&self, head: &[u8]) -> bool;
    /// Takes a frame of the guest's.
    fn take(&mut self, frame: &[u8]);
    /// The next frame for the guest.
    fn give(&mut self) -> Option<Vec<u8>>;
    /// Whether there is one already.
    fn has_some(&self) -> bool;
    /// After which time he wants to be asked for one, though nothing was sent to him.
    fn wait(&mut self) -> Option<Duration>;
    /// The driver is gone, and knows nothing of what was begun.
    fn reset(&mut self);
}
