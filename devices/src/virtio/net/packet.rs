//! How long a packet is, and its header (virtio 1.2, 5.1.6).

/// Flags, GSO type, header length, segment size, checksum's start and offset, number of buffers.
pub(super) const HEADER_LEN: usize = 12;
/// Where the number of buffers is.
pub(super) const NUM_BUFFERS: u32 = 10;

/// Ethernet's header.
pub(super) const ETHERNET: u32 = 14;
/// The tag of a VLAN.
const VLAN: u32 = 4;
/// The largest IP packet.
const IP_MAX: u32 = 65535;

/// The longest frame that a network interface gives or takes; with segmentation offload it is cut up later.
pub(super) const MAX_FRAME: u32 = IP_MAX + ETHERNET + VLAN;
/// The shortest.
pub(super) const MIN_FRAME: u32 = ETHERNET;
