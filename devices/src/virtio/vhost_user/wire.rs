//! The protocol's messages (vhost-user, QEMU's docs/interop/vhost-user): a header of request, flags and length, and a
//! payload; every number in the host's byte order, which is little-endian here.

/// The requests that are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Request {
    GetFeatures = 1,
    SetFeatures = 2,
    SetOwner = 3,
    SetMemTable = 5,
    SetVringNum = 8,
    SetVringAddr = 9,
    SetVringBase = 10,
    GetVringBase = 11,
    SetVringKick = 12,
    SetVringCall = 13,
    GetProtocolFeatures = 15,
    SetProtocolFeatures = 16,
    SetVringEnable = 18,
    GetConfig = 24,
}

/// The length of a header.
pub(super) const HEADER: usize = 12;
/// Of what a disk's configuration space has in virtio 1.1, which every backend knows, the length.
pub(super) const CONFIG: usize = 60;
/// What precedes it in a message: offset, length and flags.
pub(super) const CONFIG_HEAD: usize = 12;

/// The virtio feature that says that there are protocol features.
pub(super) const F_PROTOCOL_FEATURES: u64 = 1 << 30;
/// The protocol feature by which every request is answered.
pub(super) const P_REPLY_ACK: u64 = 1 << 3;
/// The protocol feature by which the configuration space is read.
pub(super) const P_CONFIG: u64 = 1 << 9;

const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// An answer that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Mistake {
    #[error("it answers another request")]
    Request,
    #[error("it speaks another version, or asks where it should answer")]
    Flags,
    #[error("it answers with {0} bytes")]
    Length(u32),
}

/// A message of ours.
pub(super) fn message(request: Request, need_reply: bool, payload: &[u8]) -> Vec<u8> {
    let flags = VERSION | if need_reply { NEED_REPLY } else { 0 };
    // Ours are a few hundred bytes at most.
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut message = numbers32(&[request as u32, flags, length]);
    message.extend_from_slice(payload);
    message
}

/// Checks the header of an answer to `request`, which has to be of this length.
pub(super) fn answers(header: &[u8; HEADER], request: Request, length: usize) -> Result<(), Mistake> {
    let mut fields = header.chunks_exact(4).map(|field| {
        field
            .iter()
            .rev()
            .fold(0_u32, |number, byte| (number << 8) | u32::from(*byte))
    });
    let mut field = || fields.next().unwrap_or_default();
    let (answered, flags, size) = (field(), field(), field());
    if answered != request as u32 {
        return Err(Mistake::Request);
    }
    if flags & VERSION_MASK != VERSION || flags & REPLY == 0 {
        return Err(Mistake::Flags);
    }
    if size as usize != length {
        return Err(Mistake::Length(size));
    }
    Ok(())
}

/// A payload of these numbers.
pub(super) fn numbers32(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// A payload of these numbers.
pub(super) fn numbers64(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}
