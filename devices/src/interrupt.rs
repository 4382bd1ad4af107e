//! The line by which a device asks for the guest's attention.

/// An edge-triggered interrupt line (one GSI).
///
/// Called from any thread, also with a device's lock held; an implementation takes no device lock.
pub trait Interrupt: Send + Sync {
    /// Raises one edge. An error is logged by the caller and otherwise ignored: the guest may poll.
    fn trigger(&self) -> std::io::Result<()>;
}
