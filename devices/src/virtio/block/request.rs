//! A descriptor chain as a block request, checked whole (virtio 1.2, 5.2.6).

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK,
    VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};

use crate::virtio::chain::Buffers;

/// The unit of capacity and addresses, whatever the block size.
pub(super) const SECTOR: u64 = 512;
/// The length of a disk's serial number.
pub(super) const ID_LEN: usize = 20;
/// The length of the queue, in descriptors.
pub(super) const QUEUE_SIZE: u16 = 256;
/// A request has a header and a status beside its data.
pub(super) const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// The longest of its pieces. Nobody asks for as much at once, and what a request may take in all is bounded by it.
pub(super) const SIZE_MAX: u32 = 1 << 20;
/// What one request may read or write, as a driver that keeps to the limits does: the disk is busy with it for as long
/// as it takes, and so is the device.
pub(super) const DATA_MAX: u32 = SEG_MAX * SIZE_MAX;
/// The most ranges in one DISCARD or WRITE_ZEROES.
pub(super) const MAX_SEGMENTS: u32 = 16;
/// The most sectors in one range of a DISCARD: 2 GiB.
pub(super) const MAX_DISCARD_SECTORS: u32 = 1 << 22;
/// The most sectors in one range of a WRITE_ZEROES: 8 MiB, for on some file systems they must be written one by
/// one while the guest waits.
pub(super) const MAX_ZERO_SECTORS: u32 = 1 << 14;

const HEADER_LEN: u32 = 16;
const SEGMENT_LEN: u32 = 16;
const FLAG_UNMAP: u32 = 1;

/// What a request is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    Ok = VIRTIO_BLK_S_OK as u8,
    IoErr = VIRTIO_BLK_S_IOERR as u8,
    Unsupported = VIRTIO_BLK_S_UNSUPP as u8,
}

/// What a request is checked against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The disk's capacity.
    pub(super) sectors: u64,
    /// The most bytes that one request may read or write.
    pub(super) data: u32,
    /// Whether it may not be written, whatever the driver accepted.
    pub(super) read_only: bool,
    /// What was negotiated.
    pub(super) features: u64,
}

impl Limits {
    fn has(&self, feature: u32) -> bool {
        self.features & (1 << feature) != 0
    }
}

/// A range of bytes on the disk, inside of its capacity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) offset: u64,
    pub(super) len: u64,
    /// The range may lose its blocks (WRITE_ZEROES only).
    pub(super) unmap: bool,
}

/// The ranges of one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segments {
    ranges: [Range; MAX_SEGMENTS as usize],
    count: usize,
}

impl Segments {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Range> {
        self.ranges.iter().take(self.count)
    }
}

/// A request that keeps all the rules.
#[derive(Debug, Clone, Copy)]
pub(super) enum Request<'a> {
    Read { offset: u64, data: Buffers<'a> },
    Write { offset: u64, data: Buffers<'a> },
    Flush,
    Id { data: Buffers<'a> },
    Discard { segments: Segments },
    WriteZeroes { segments: Segments },
}

impl Request<'_> {
    /// How many bytes of data it moves between disk and memory.
    pub(super) fn moves(&self) -> u64 {
        match self {
            Self::Read { data, .. } | Self::Write { data, .. } => data.len().into(),
            Self::Flush | Self::Id { .. } | Self::Discard { .. } | Self::WriteZeroes { .. } => 0,
        }
    }
}

/// Reads a request: its header and data from `readable`; `room` is what is writable, without the status.
pub(super) fn parse<'a>(
    readable: Buffers<'a>,
    room: Buffers<'a>,
    limits: &Limits,
) -> Result<Request<'a>, Status> {
    let (header, data) = readable.split_at(HEADER_LEN).ok_or(Status::IoErr)?;
    let header: [u32; 4] = header.read_obj().map_err(|_| Status::IoErr)?;
    let [kind, _reserved, low, high] = header.map(u32::from_le);
    let sector = u64::from(low) | (u64::from(high) << 32);
    match kind {
        VIRTIO_BLK_T_IN => {
            let offset = check(sector, room.len(), limits)?;
            Ok(Request::Read { offset, data: room })
        }
        VIRTIO_BLK_T_OUT if limits.read_only => Err(Status::IoErr),
        VIRTIO_BLK_T_OUT => {
            let offset = check(sector, data.len(), limits)?;
            Ok(Request::Write { offset, data })
        }
        VIRTIO_BLK_T_FLUSH if limits.has(VIRTIO_BLK_F_FLUSH) => Ok(Request::Flush),
        VIRTIO_BLK_T_GET_ID => match room.split_at(ID_LEN as u32) {
            Some((data, _)) => Ok(Request::Id { data }),
            None => Err(Status::IoErr),
        },
        VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES if limits.read_only => Err(Status::IoErr),
        VIRTIO_BLK_T_DISCARD if limits.has(VIRTIO_BLK_F_DISCARD) => Ok(Request::Discard {
            segments: segments(data, limits, MAX_DISCARD_SECTORS, 0)?,
        }),
        VIRTIO_BLK_T_WRITE_ZEROES if limits.has(VIRTIO_BLK_F_WRITE_ZEROES) => Ok(Request::WriteZeroes {
            segments: segments(data, limits, MAX_ZERO_SECTORS, FLAG_UNMAP)?,
        }),
        _ => Err(Status::Unsupported),
    }
}

/// The byte offset of `sector`, if `len` bytes from there are whole sectors inside of the disk.
fn check(sector: u64, len: u32, limits: &Limits) -> Result<u64, Status> {
    if len > limits.data {
        return Err(Status::IoErr);
    }
    let len = u64::from(len);
    if !len.is_multiple_of(SECTOR) {
        return Err(Status::IoErr);
    }
    inside(sector, len / SECTOR, limits)
}

fn inside(sector: u64, sectors: u64, limits: &Limits) -> Result<u64, Status> {
    match sector.checked_add(sectors) {
        Some(end) if end <= limits.sectors => sector.checked_mul(SECTOR).ok_or(Status::IoErr),
        _ => Err(Status::IoErr),
    }
}

/// The ranges of a DISCARD or WRITE_ZEROES, all of them checked before the first is touched.
fn segments(data: Buffers<'_>, limits: &Limits, max_sectors: u32, flags: u32) -> Result<Segments, Status> {
    let count = data.len() / SEGMENT_LEN;
    if !data.len().is_multiple_of(SEGMENT_LEN) || count == 0 || count > MAX_SEGMENTS {
        return Err(Status::IoErr);
    }
    let mut segments = Segments {
        ranges: [Range::default(); MAX_SEGMENTS as usize],
        count: count as usize,
    };
    let mut rest = data;
    for range in segments.ranges.iter_mut().take(segments.count) {
        let (segment, later) = rest.split_at(SEGMENT_LEN).ok_or(Status::IoErr)?;
        rest = later;
        let segment: [u32; 4] = segment.read_obj().map_err(|_| Status::IoErr)?;
        let [low, high, sectors, flag] = segment.map(u32::from_le);
        // 5.2.6.2: an unknown flag, and UNMAP in a DISCARD, are not supported.
        if flag & !flags != 0 {
            return Err(Status::Unsupported);
        }
        if sectors > max_sectors {
            return Err(Status::IoErr);
        }
        let sector = u64::from(low) | (u64::from(high) << 32);
        *range = Range {
            offset: inside(sector, u64::from(sectors), limits)?,
            len: u64::from(sectors).saturating_mul(SECTOR),
            unmap: flag & FLAG_UNMAP != 0,
        };
    }
    Ok(segments)
}

#[cfg(test)]
mod tests;
