use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_HOST_UFO,
};

use super::*;

const CSUM: u64 = 1 << VIRTIO_NET_F_CSUM;
const TSO4: u64 = 1 << VIRTIO_NET_F_HOST_TSO4;
const TSO6: u64 = 1 << VIRTIO_NET_F_HOST_TSO6;
const ECN: u64 = 1 << VIRTIO_NET_F_HOST_ECN;
const UFO: u64 = 1 << VIRTIO_NET_F_HOST_UFO;
const ALL: u64 = CSUM | TSO4 | TSO6 | ECN | UFO;

/// Flags, type, header length, segment size, checksum's start and offset.
type Fields = (u8, u8, u16, u16, u16, u16);

fn bytes((flags, gso, header_len, segment, start, offset): Fields) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[0] = flags;
    bytes[1] = gso;
    for (at, value) in [(2, header_len), (4, segment), (6, start), (8, offset)] {
        bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

fn check(fields: Fields, len: u32, features: u64, expected: Option<Fields>) {
    let made = outgoing(&bytes(fields), len, Agreed(features));
    assert_eq!(
        made,
        expected.map(bytes),
        "{fields:?} before {len} bytes with {features:#x}"
    );
}

#[test]
fn a_plain_packet_has_an_empty_header_whatever_the_driver_left_in_it() {
    check((0, 0, 0, 0, 0, 0), 60, 0, Some((0, 0, 0, 0, 0, 0)));
    check((0xfe, 0, 999, 999, 999, 999), 60, 0, Some((0, 0, 0, 0, 0, 0)));
    let mut raw = bytes((0, 0, 0, 0, 0, 0));
    raw[10..].copy_from_slice(&[7, 7]);
    assert_eq!(outgoing(&raw, 60, Agreed(ALL)), Some([0; HEADER_LEN]));
}

#[test]
fn frames_have_a_least_and_a_greatest_length() {
    for (len, good) in [
        (0, false),
        (13, false),
        (14, true),
        (65553, true),
        (65554, false),
        (u32::MAX, false),
    ] {
        check((0, 0, 0, 0, 0, 0), len, ALL, good.then_some((0, 0, 0, 0, 0, 0)));
    }
}

#[test]
fn a_checksum_lies_in_the_frame_and_was_agreed_on() {
    check((1, 0, 0, 0, 34, 16), 60, CSUM, Some((1, 0, 0, 0, 34, 16)));
    check((1, 0, 0, 0, 34, 16), 60, 0, None);
    check((1, 0, 0, 0, 34, 24), 60, CSUM, Some((1, 0, 0, 0, 34, 24)));
    check((1, 0, 0, 0, 34, 25), 60, CSUM, None);
    check((1, 0, 0, 0, 13, 16), 60, CSUM, None);
    check((1, 0, 0, 0, u16::MAX, u16::MAX), 65553, CSUM, None);
}

#[test]
fn segments_are_cut_only_as_agreed() {
    for (kind, feature) in [(1, TSO4), (4, TSO6), (3, UFO)] {
        let good = (1, kind, 54, 1448, 34, 16);
        check(good, 9000, CSUM | feature, Some(good));
        check(good, 9000, ALL & !feature, None);
        // The feature means nothing without checksums.
        check(good, 9000, ALL & !CSUM, None);
        check((0, kind, 54, 1448, 34, 16), 9000, ALL, None);
        check((1, kind, 54, 0, 34, 16), 9000, ALL, None);
    }
    for kind in [2, 5, 6, 0x7f] {
        check((1, kind, 54, 1448, 34, 16), 9000, ALL, None);
    }
    // A header longer than the frame is a wrong hint, no more.
    check(
        (1, 1, 65535, 1448, 34, 16),
        9000,
        ALL,
        Some((1, 1, 9000, 1448, 34, 16)),
    );
}

#[test]
fn congestion_marks_go_with_tcp_alone() {
    check(
        (1, 0x81, 54, 1448, 34, 16),
        9000,
        ALL,
        Some((1, 0x81, 54, 1448, 34, 16)),
    );
    check(
        (1, 0x84, 54, 1448, 34, 16),
        9000,
        ALL,
        Some((1, 0x84, 54, 1448, 34, 16)),
    );
    check((1, 0x81, 54, 1448, 34, 16), 9000, ALL & !ECN, None);
    check((1, 0x83, 54, 1448, 34, 16), 9000, ALL, None);
    check((0, 0x80, 0, 0, 0, 0), 60, ALL, None);
}
