//! The vsock packet header of virtio 1.2, section 5.10.6.
//!
//! The header is read and written here instead of with the virtio-vsock crate, which wants header and payload in
//! at most two descriptors; virtio 1.2 section 2.7.4.1 lets a driver cut a packet as it likes, and new Linux
//! guests do (one descriptor for each page of a zero-copy send).

/// Bytes of the header on the wire, `virtio_vsock_hdr`.
pub(super) const HEADER_LEN: usize = 44;

/// The host's context identifier.
pub(super) const HOST_CID: u64 = 2;

/// Stream sockets, the only type that is served.
pub(super) const TYPE_STREAM: u16 = 1;

/// OP_SHUTDOWN: the sender will receive no more.
pub(super) const SHUTDOWN_RECEIVE: u32 = 1;
/// OP_SHUTDOWN: the sender will send no more.
pub(super) const SHUTDOWN_SEND: u32 = 2;
/// OP_SHUTDOWN: both.
pub(super) const SHUTDOWN_BOTH: u32 = SHUTDOWN_RECEIVE | SHUTDOWN_SEND;

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Request,
    Response,
    Reset,
    Shutdown,
    Data,
    CreditUpdate,
    CreditRequest,
}

impl Op {
    /// The operation behind a number from the wire; `None` is answered with a reset.
    pub(super) fn parse(op: u16) -> Option<Self> {
        Some(match op {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::Data,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => return None,
        })
    }

    /// The number on the wire.
    pub(super) fn number(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Reset => 3,
            Self::Shutdown => 4,
            Self::Data => 5,
            Self::CreditUpdate => 6,
            Self::CreditRequest => 7,
        }
    }
}

/// A packet's header, decoded but not judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Header {
    pub(super) src_cid: u64,
    pub(super) dst_cid: u64,
    pub(super) src_port: u32,
    pub(super) dst_port: u32,
    pub(super) len: u32,
    pub(super) kind: u16,
    pub(super) op: u16,
    pub(super) flags: u32,
    pub(super) buf_alloc: u32,
    pub(super) fwd_cnt: u32,
}

impl Header {
    /// Reads the wire format.
    pub(super) fn parse(bytes: &[u8; HEADER_LEN]) -> Self {
        Self {
            src_cid: u64::from_le_bytes(field(bytes, 0)),
            dst_cid: u64::from_le_bytes(field(bytes, 8)),
            src_port: u32::from_le_bytes(field(bytes, 16)),
            dst_port: u32::from_le_bytes(field(bytes, 20)),
            len: u32::from_le_bytes(field(bytes, 24)),
            kind: u16::from_le_bytes(field(bytes, 28)),
            op: u16::from_le_bytes(field(bytes, 30)),
            flags: u32::from_le_bytes(field(bytes, 32)),
            buf_alloc: u32::from_le_bytes(field(bytes, 36)),
            fwd_cnt: u32::from_le_bytes(field(bytes, 40)),
        }
    }

    /// Writes the wire format.
    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let fields = self
            .src_cid
            .to_le_bytes()
            .into_iter()
            .chain(self.dst_cid.to_le_bytes())
            .chain(self.src_port.to_le_bytes())
            .chain(self.dst_port.to_le_bytes())
            .chain(self.len.to_le_bytes())
            .chain(self.kind.to_le_bytes())
            .chain(self.op.to_le_bytes())
            .chain(self.flags.to_le_bytes())
            .chain(self.buf_alloc.to_le_bytes())
            .chain(self.fwd_cnt.to_le_bytes());
        for (to, from) in bytes.iter_mut().zip(fields) {
            *to = from;
        }
        bytes
    }

    /// The reset that answers this packet, with the addresses turned round.
    ///
    /// The type is echoed, also one that is not served: the guest finds its socket by it.
    pub(super) fn reset(&self) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            kind: self.kind,
            op: Op::Reset.number(),
            ..Self::default()
        }
    }
}

fn field<const N: usize>(bytes: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(bytes.iter().skip(at)) {
        *to = *from;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_format_is_that_of_the_specification() {
        let header = Header {
            src_cid: 0x0102_0304_0506_0708,
            dst_cid: 2,
            src_port: 0x1112_1314,
            dst_port: 1024,
            len: 0x2122_2324,
            kind: TYPE_STREAM,
            op: Op::Data.number(),
            flags: 3,
            buf_alloc: 0x3132_3334,
            fwd_cnt: 0x4142_4344,
        };
        let bytes = header.encode();
        let expected = [
            8, 7, 6, 5, 4, 3, 2, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0x14, 0x13, 0x12, 0x11, 0, 4, 0, 0, 0x24, 0x23,
            0x22, 0x21, 1, 0, 5, 0, 3, 0, 0, 0, 0x34, 0x33, 0x32, 0x31, 0x44, 0x43, 0x42, 0x41,
        ];
        assert_eq!(bytes, expected);
        assert_eq!(Header::parse(&bytes), header);
    }

    #[test]
    fn every_operation_has_one_number_and_others_are_unknown() {
        for number in 1..=7 {
            assert_eq!(Op::parse(number).map(Op::number), Some(number));
        }
        for number in [0, 8, 255, u16::MAX] {
            assert_eq!(Op::parse(number), None);
        }
    }

    #[test]
    fn a_reset_goes_back_where_the_packet_came_from() {
        let packet = Header {
            src_cid: 3,
            dst_cid: 2,
            src_port: 10,
            dst_port: 20,
            kind: 2,
            op: 1,
            len: 5,
            ..Header::default()
        };
        let reset = packet.reset();
        assert_eq!((reset.src_cid, reset.dst_cid), (2, 3));
        assert_eq!((reset.src_port, reset.dst_port), (20, 10));
        assert_eq!((reset.kind, reset.op, reset.len), (2, Op::Reset.number(), 0));
    }
}
