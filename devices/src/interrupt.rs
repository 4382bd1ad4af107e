//! The lines by which a device asks for the guest's attention.

/// An edge-triggered interrupt line (one GSI).
///
/// Called from any thread, also with a device's lock held; an implementation takes no device lock.
pub trait Interrupt: Send + Sync {
    /// Raises one edge. An error is logged by the caller and otherwise ignored: the guest may poll.
    fn trigger(&self) -> std::io::Result<()>;
}

/// A message-signalled interrupt, as a device writes it to the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Msi {
    /// The address: `0xfee` in bits 20 to 31, the destination's bits 0 to 7 in bits 12 to 19 and its bits 8 to 14
    /// in bits 5 to 11 (the extended destination ID that KVM_FEATURE_MSI_EXT_DEST_ID promises the guest).
    pub address: u64,
    /// The data: vector, delivery mode, trigger mode.
    pub data: u32,
}

/// Where message-signalled interrupts go: the machine's local APICs.
///
/// Called from any thread, also with a device's lock held; an implementation takes no lock of this crate.
pub trait MsiSink: Send + Sync {
    /// Delivers one message.
    fn signal(&self, msi: Msi) -> std::io::Result<()>;
}
