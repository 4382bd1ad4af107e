//! The header before each packet of the guest's, checked (virtio 1.2, 5.1.6).
//!
//! What goes to the host's kernel is a header of our own making: nothing that the driver may not ask for, no place
//! outside of the frame, and nothing that the driver can still change after it was looked at.

use virtio_bindings::virtio_net::{
    VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_ECN, VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4,
    VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_HDR_GSO_UDP,
};

use super::features::Agreed;
use super::packet::{HEADER_LEN, MAX_FRAME, MIN_FRAME};

const NEEDS_CSUM: u8 = VIRTIO_NET_HDR_F_NEEDS_CSUM as u8;
const GSO_NONE: u8 = VIRTIO_NET_HDR_GSO_NONE as u8;
const GSO_TCPV4: u8 = VIRTIO_NET_HDR_GSO_TCPV4 as u8;
const GSO_TCPV6: u8 = VIRTIO_NET_HDR_GSO_TCPV6 as u8;
const GSO_UDP: u8 = VIRTIO_NET_HDR_GSO_UDP as u8;
const GSO_ECN: u8 = VIRTIO_NET_HDR_GSO_ECN as u8;

/// The header for the host's kernel, made from the driver's `bytes` before a frame of `len` bytes; `None` where it is
/// not one that this driver may send.
pub(super) fn outgoing(bytes: &[u8; HEADER_LEN], len: u32, agreed: Agreed) -> Option<[u8; HEADER_LEN]> {
    if !(MIN_FRAME..=MAX_FRAME).contains(&len) {
        return None;
    }
    let &[flags, gso_type, h0, h1, s0, s1, c0, c1, o0, o1, _, _] = bytes;
    let header_len = u16::from_le_bytes([h0, h1]);
    let segment = u16::from_le_bytes([s0, s1]);
    let start = u16::from_le_bytes([c0, c1]);
    let offset = u16::from_le_bytes([o0, o1]);

    let mut made = [0; HEADER_LEN];
    let mut put = |at: usize, bytes: &[u8]| {
        for (to, from) in made.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    // The other flags are a device's to set.
    let checksum = flags & NEEDS_CSUM != 0;
    if checksum {
        // The checksum's two bytes lie in the frame, behind Ethernet's header.
        let end = u32::from(start)
            .saturating_add(u32::from(offset))
            .saturating_add(2);
        if !agreed.host_checksums() || u32::from(start) < MIN_FRAME || end > len {
            return None;
        }
        put(0, &[NEEDS_CSUM]);
        put(6, &start.to_le_bytes());
        put(8, &offset.to_le_bytes());
    }
    let ecn = gso_type & GSO_ECN != 0;
    let allowed = match gso_type & !GSO_ECN {
        GSO_NONE => return (!ecn).then_some(made),
        GSO_TCPV4 => agreed.host_tso4(),
        GSO_TCPV6 => agreed.host_tso6(),
        GSO_UDP => agreed.host_ufo() && !ecn,
        _ => false,
    };
    // Segments need a size, and each a checksum of its own.
    if !allowed || !checksum || segment == 0 || (ecn && !agreed.host_ecn()) {
        return None;
    }
    put(1, &[gso_type]);
    // A hint, and no more than there is.
    let hint = u16::try_from(len).map_or(header_len, |len| header_len.min(len));
    put(2, &hint.to_le_bytes());
    put(4, &segment.to_le_bytes());
    Some(made)
}

#[cfg(test)]
mod tests;
