//! Unpacking of a bzImage's payload. Output is bounded by the size that the payload itself states, and that by memory.

use std::io::Read;

use super::error::KernelFault;

/// The block size of the LZ4 "legacy" frame that Linux uses.
const LZ4_BLOCK: usize = 8 << 20;

/// Enough for the 32 MiB dictionary with which Linux packs itself.
const XZ_MEMORY_KIB: u32 = 80 << 10;

/// The formats that are unpacked here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Lz4,
    Zstd,
    Gzip,
    Xz,
    /// Not packed at all.
    Elf,
}

impl Format {
    fn of(packed: &[u8]) -> Option<Self> {
        const MAGICS: [(&[u8], Format); 5] = [
            (b"\x02\x21\x4c\x18", Format::Lz4),
            (b"\x28\xb5\x2f\xfd", Format::Zstd),
            (b"\x1f\x8b\x08", Format::Gzip),
            (b"\xfd7zXZ\0", Format::Xz),
            (b"\x7fELF", Format::Elf),
        ];
        MAGICS
            .iter()
            .find(|(magic, _)| packed.starts_with(magic))
            .map(|(_, format)| *format)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Lz4 => "LZ4",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Elf => "ELF",
        }
    }
}

/// Unpacks a payload; `None` where its format is unknown. What it unpacks to must fit into `max` bytes.
pub(super) fn unpack(packed: &[u8], max: u64) -> Result<Option<Vec<u8>>, KernelFault> {
    let Some(format) = Format::of(packed) else {
        return Ok(None);
    };
    if format == Format::Elf {
        return Ok(Some(packed.to_vec()));
    }
    // The kernel's build appends the unpacked size, or the format ends with it (gzip).
    let Some((body, tail)) = packed.split_last_chunk::<4>() else {
        return Err(KernelFault::Damaged("its payload is too short"));
    };
    let size = u32::from_le_bytes(*tail);
    if u64::from(size) > max {
        return Err(KernelFault::TooLarge {
            needed: u64::from(size).div_ceil(1 << 20),
            available: max >> 20,
        });
    }
    let size = size as usize;

    let unpacked = match format {
        Format::Lz4 => lz4(body, size),
        Format::Zstd => ruzstd::decoding::StreamingDecoder::new(body)
            .map_err(|error| error.to_string())
            .and_then(|decoder| read_all(decoder, size)),
        // Here the size is a part of the stream.
        Format::Gzip => read_all(flate2::read::GzDecoder::new(packed), size),
        Format::Xz => read_all(
            lzma_rust2::XzReader::new_mem_limit(body, false, XZ_MEMORY_KIB),
            size,
        ),
        Format::Elf => return Ok(Some(packed.to_vec())),
    };
    match unpacked {
        Ok(unpacked) => Ok(Some(unpacked)),
        Err(reason) => Err(KernelFault::Payload {
            format: format.name(),
            reason,
        }),
    }
}

/// Reads `size` bytes and then the end, at which the formats check their sums.
fn read_all(mut reader: impl Read, size: usize) -> Result<Vec<u8>, String> {
    let mut unpacked = vec![0; size];
    reader
        .read_exact(&mut unpacked)
        .map_err(|error| error.to_string())?;
    match reader.read(&mut [0]) {
        Ok(0) => Ok(unpacked),
        Ok(_) => Err("it is longer than it says".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// The "legacy" frame: a magic number, then blocks, each with its packed size before it.
fn lz4(packed: &[u8], size: usize) -> Result<Vec<u8>, String> {
    let mut unpacked = vec![0; size];
    let mut rest = packed.get(4..).unwrap_or_default();
    let mut done = 0;
    while done < size {
        let (length, blocks) = rest
            .split_first_chunk::<4>()
            .ok_or("it ends before its last block")?;
        let length = u32::from_le_bytes(*length) as usize;
        let (block, after) = blocks
            .split_at_checked(length)
            .ok_or("a block runs past its end")?;
        let room = unpacked.get_mut(done..).unwrap_or_default();
        let window = room.len().min(LZ4_BLOCK);
        let room = room.get_mut(..window).unwrap_or_default();
        let written = lz4_flex::block::decompress_into(block, room).map_err(|error| error.to_string())?;
        if written == 0 {
            return Err("a block is empty".into());
        }
        done += written;
        rest = after;
    }
    Ok(unpacked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn kernel() -> Vec<u8> {
        (0..9_000_000u32)
            .map(|i| (i / 7) as u8 ^ (i >> 12) as u8)
            .collect()
    }

    fn with_size(mut packed: Vec<u8>, size: usize) -> Vec<u8> {
        packed.extend_from_slice(&(size as u32).to_le_bytes());
        packed
    }

    fn pack_lz4(kernel: &[u8]) -> Vec<u8> {
        let mut packed = b"\x02\x21\x4c\x18".to_vec();
        for block in kernel.chunks(LZ4_BLOCK) {
            let block = lz4_flex::block::compress(block);
            packed.extend_from_slice(&(block.len() as u32).to_le_bytes());
            packed.extend_from_slice(&block);
        }
        with_size(packed, kernel.len())
    }

    fn pack_zstd(kernel: &[u8]) -> Vec<u8> {
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        with_size(ruzstd::encoding::compress_to_vec(kernel, level), kernel.len())
    }

    fn pack_gzip(kernel: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(kernel).unwrap();
        encoder.finish().unwrap()
    }

    fn pack_xz(kernel: &[u8]) -> Vec<u8> {
        let mut options = lzma_rust2::XzOptions::with_preset(0);
        // Linux's build runs xz with the x86 filter.
        options.prepend_pre_filter(lzma_rust2::FilterType::BcjX86, 0);
        let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
        encoder.write_all(kernel).unwrap();
        with_size(encoder.finish().unwrap(), kernel.len())
    }

    #[test]
    fn every_format_unpacks_to_what_was_packed() {
        let kernel = kernel();
        for (name, packed) in [
            ("lz4", pack_lz4(&kernel)),
            ("zstd", pack_zstd(&kernel)),
            ("gzip", pack_gzip(&kernel)),
            ("xz", pack_xz(&kernel[..2_000_000])),
        ] {
            let unpacked = unpack(&packed, 1 << 30).unwrap().unwrap();
            assert!(unpacked == kernel[..unpacked.len()], "{name}");
            assert!(unpacked.len() >= 2_000_000, "{name}");
        }
    }

    #[test]
    fn a_size_beyond_memory_is_refused_before_anything_is_unpacked() {
        let packed = with_size(b"\x28\xb5\x2f\xfd".to_vec(), 0xffff_ffff);
        assert!(matches!(
            unpack(&packed, 1 << 20),
            Err(KernelFault::TooLarge {
                needed: 4096,
                available: 1
            })
        ));
    }

    #[test]
    fn an_unknown_format_is_not_touched() {
        assert!(unpack(b"BZh91AY", 1 << 20).unwrap().is_none());
        assert!(unpack(b"", 1 << 20).unwrap().is_none());
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let kernel = &kernel()[..300_000];
        for packed in [
            pack_lz4(kernel),
            pack_zstd(kernel),
            pack_gzip(kernel),
            pack_xz(kernel),
        ] {
            for cut in [8, 12, packed.len() / 2, packed.len() - 5] {
                let cut = with_size(packed[..cut].to_vec(), kernel.len());
                assert!(
                    unpack(&cut, 1 << 30).is_err(),
                    "{:?} cut to {}",
                    Format::of(&packed),
                    cut.len()
                );
            }
            for position in (4..packed.len() - 4).step_by(packed.len() / 40 + 1) {
                let mut flipped = packed.clone();
                flipped[position] ^= 0x55;
                let _ = unpack(&flipped, 1 << 30);
            }
        }
    }
}
