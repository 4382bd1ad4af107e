//! The metadata service as a guest meets it: frames of all kinds, well made ones among them, segments of a connection that is
//! there, and requests. Nothing panics, nothing grows, and only what was put there comes out.
#![no_main]

use std::net::Ipv4Addr;

use secovia_devices::virtio::net::Neighbour;
use secovia_vmm::mmds::{self, Endpoint, SharedMmds};
use secovia_vmm_api::MmdsVersion;

const SERVICE: [u8; 4] = [169, 254, 169, 254];
const GUEST: [u8; 4] = [10, 0, 0, 2];

/// The sum of RFC 1071.
fn sum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// A segment in a packet in a frame, whose own sum the service does not look at.
fn segment(port: u16, sequence: u32, acknowledged: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    let length = (40 + data.len()) as u16;
    let mut ip = vec![0x45, 0];
    ip.extend(length.to_be_bytes());
    ip.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    ip.extend(GUEST);
    ip.extend(SERVICE);
    let check = sum(&ip);
    ip[10..12].copy_from_slice(&check);
    let mut frame = vec![6, 1, 0x23, 0x45, 0x67, 1, 6, 0, 0, 0, 0, 2, 8, 0];
    frame.extend(ip);
    frame.extend(port.to_be_bytes());
    frame.extend(80u16.to_be_bytes());
    frame.extend(sequence.to_be_bytes());
    frame.extend(acknowledged.to_be_bytes());
    frame.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    frame.extend(data);
    frame
}

/// Who asks for the service's hardware address.
fn question() -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([6, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 6, 0, 0, 0, 0, 2]);
    frame.extend(GUEST);
    frame.extend([0; 6]);
    frame.extend(SERVICE);
    frame
}

/// Takes what there is for the guest; gives back the number that the service's last segment begins with, and its length.
fn drain(endpoint: &mut Endpoint) -> Option<u32> {
    let mut next = None;
    for count in 0.. {
        assert!(count < 10_000, "it never ends");
        let Some(frame) = endpoint.give() else { break };
        assert!((14..=1514).contains(&frame.len()));
        if frame.len() >= 54 && frame[12..14] == [8, 0] {
            let number = u32::from_be_bytes([frame[38], frame[39], frame[40], frame[41]]);
            let length = u16::from_be_bytes([frame[16], frame[17]]);
            let header = u16::from(frame[46] >> 4) * 4 + 20;
            let flags = frame[47];
            let data = u32::from(length.saturating_sub(header)) + u32::from(flags & 2 != 0);
            next = Some(number.wrapping_add(data));
        }
    }
    next
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(mmds::Parsed::Whole(_, length)) = mmds::parse(data) {
        assert!(length <= data.len());
    }
    let shared = SharedMmds::new(1000).expect("random numbers");
    let version = match data.first() {
        Some(byte) if byte & 1 == 1 => MmdsVersion::V2,
        _ => MmdsVersion::V1,
    };
    shared.lock().configure(version, false);
    shared.lock().put(serde_json::json!({ "a": { "b": "c" }, "d": 1 })).expect("it fits");
    let mut endpoint = Endpoint::new(Ipv4Addr::from(SERVICE), 1500, shared).expect("random numbers");
    endpoint.take(&question());
    drain(&mut endpoint);
    let (mut sequence, mut acknowledged) = (1000u32, 0);
    let mut rest = data.get(1..).unwrap_or_default();
    while let [kind, length, tail @ ..] = rest {
        let (piece, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        match kind % 8 {
            // Any frame, and any behind a good head.
            0 => endpoint.take(piece),
            1 => endpoint.take(&[&question()[..14], piece].concat()),
            2 => endpoint.take(&[&segment(40_000, 0, 0, 2, &[])[..34], piece].concat()),
            // A connection is begun.
            3 => {
                sequence = 1000;
                endpoint.take(&segment(40_000, sequence, 0, 2, &[]));
                sequence += 1;
                acknowledged = drain(&mut endpoint).unwrap_or_default();
                endpoint.take(&segment(40_000, sequence, acknowledged, 0x10, &[]));
            }
            // Something is sent on it.
            4 | 5 => {
                endpoint.take(&segment(40_000, sequence, acknowledged, 0x18, piece));
                sequence = sequence.wrapping_add(piece.len() as u32);
            }
            // Out of order, or with other flags.
            6 => endpoint.take(&segment(40_000, sequence.wrapping_add(u32::from(*length)), acknowledged, *kind, piece)),
            _ => endpoint.reset(),
        }
        acknowledged = drain(&mut endpoint).unwrap_or(acknowledged);
        assert!(endpoint.wait().is_none_or(|wait| !wait.is_zero()));
    }
});
