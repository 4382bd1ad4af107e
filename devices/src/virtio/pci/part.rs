//! What lies where in the BAR.

pub(super) const COMMON: u32 = 0x0000;
pub(super) const STATUS: u32 = 0x1000;
pub(super) const DEVICE: u32 = 0x2000;
pub(super) const NOTIFY: u32 = 0x3000;
pub(super) const MESSAGES: u32 = 0x4000;
pub(super) const PENDING: u32 = 0x5000;
/// Each of them has a page.
pub(super) const LEN: u32 = 0x1000;
/// The bits of an offset in one of them.
pub(super) const INSIDE: u32 = LEN - 1;
/// Bytes between the addresses by which two queues are notified.
pub(super) const NOTIFY_STRIDE: u32 = 4;
