//! What was agreed on with the driver, and what follows from it.

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_UFO, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4,
    VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_UFO, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS,
};

use super::config::NetConfig;
use super::packet::{ETHERNET, HEADER_LEN, MAX_FRAME};

/// The MTU where none was agreed on.
const USUAL_MTU: u16 = 1500;

const ALWAYS: u64 = 1 << VIRTIO_NET_F_CSUM
    | 1 << VIRTIO_NET_F_GUEST_CSUM
    | 1 << VIRTIO_NET_F_GUEST_TSO4
    | 1 << VIRTIO_NET_F_GUEST_TSO6
    | 1 << VIRTIO_NET_F_GUEST_ECN
    | 1 << VIRTIO_NET_F_GUEST_UFO
    | 1 << VIRTIO_NET_F_HOST_TSO4
    | 1 << VIRTIO_NET_F_HOST_TSO6
    | 1 << VIRTIO_NET_F_HOST_ECN
    | 1 << VIRTIO_NET_F_HOST_UFO
    | 1 << VIRTIO_NET_F_MRG_RXBUF
    | 1 << VIRTIO_NET_F_STATUS;

/// The features that the device offers.
pub(super) fn offered(config: &NetConfig) -> u64 {
    let mut features = ALWAYS;
    if config.mac.is_some() {
        features |= 1 << VIRTIO_NET_F_MAC;
    }
    if config.mtu.is_some() {
        features |= 1 << VIRTIO_NET_F_MTU;
    }
    features
}

/// The features that the driver accepted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Agreed(pub(super) u64);

impl Agreed {
    fn has(self, feature: u32) -> bool {
        self.0 & (1 << feature) != 0
    }

    /// A feature that stands on another one (5.1.3.1); a driver that accepts it alone does not get it.
    fn has_on(self, feature: u32, base: u32) -> bool {
        self.has(feature) && self.has(base)
    }

    /// The device may leave checksums to the driver.
    pub(super) fn guest_checksums(self) -> bool {
        self.has(VIRTIO_NET_F_GUEST_CSUM)
    }

    /// The driver may leave checksums to the device.
    pub(super) fn host_checksums(self) -> bool {
        self.has(VIRTIO_NET_F_CSUM)
    }

    pub(super) fn host_tso4(self) -> bool {
        self.has_on(VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_CSUM)
    }

    pub(super) fn host_tso6(self) -> bool {
        self.has_on(VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_CSUM)
    }

    pub(super) fn host_ufo(self) -> bool {
        self.has_on(VIRTIO_NET_F_HOST_UFO, VIRTIO_NET_F_CSUM)
    }

    pub(super) fn host_ecn(self) -> bool {
        self.has(VIRTIO_NET_F_HOST_ECN) && (self.host_tso4() || self.host_tso6())
    }

    /// A received packet may lie in several buffers.
    pub(super) fn mergeable(self) -> bool {
        self.has(VIRTIO_NET_F_MRG_RXBUF)
    }

    /// What the driver takes as it is, in the words of TUNSETOFFLOAD.
    pub(super) fn tap_offloads(self) -> u32 {
        if !self.guest_checksums() {
            return 0;
        }
        let mut offloads = libc::TUN_F_CSUM;
        let tso4 = self.has(VIRTIO_NET_F_GUEST_TSO4);
        let tso6 = self.has(VIRTIO_NET_F_GUEST_TSO6);
        for (has, flag) in [
            (tso4, libc::TUN_F_TSO4),
            (tso6, libc::TUN_F_TSO6),
            // The kernel refuses it alone.
            (
                self.has(VIRTIO_NET_F_GUEST_ECN) && (tso4 || tso6),
                libc::TUN_F_TSO_ECN,
            ),
            (self.has(VIRTIO_NET_F_GUEST_UFO), libc::TUN_F_UFO),
        ] {
            if has {
                offloads |= flag;
            }
        }
        offloads
    }

    /// The room that any packet fits into, its header included. With less, a packet may have to wait for more.
    pub(super) fn largest_packet(self, mtu: Option<u16>) -> u32 {
        const HEADER: u32 = HEADER_LEN as u32;
        let large = libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_UFO;
        if self.mergeable() {
            // Whatever the interface's MTU is.
            HEADER + MAX_FRAME
        } else if self.tap_offloads() & large != 0 {
            // What 5.1.6.3.1 demands of each buffer then.
            HEADER + 65550
        } else {
            let agreed = mtu.filter(|_| self.has(VIRTIO_NET_F_MTU));
            (HEADER + ETHERNET).saturating_add(u32::from(agreed.unwrap_or(USUAL_MTU)))
        }
    }
}
