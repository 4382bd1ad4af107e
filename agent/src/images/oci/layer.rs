//! Reading a layer: unpacking and hashing it as a stream, within a budget, and putting what is in it into the tree.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use sha2::{Digest, Sha256};
use tar::{Archive, Entry, EntryType};

use super::error::LayerError;
use super::member::Extensions;
use super::path::{Mark, parse_path, parse_text};
use crate::images::tree::{Content, Kind, Meta, Tree};

const BUFFER: usize = 128 * 1024;

/// Bits of a mode that an image keeps: permissions, set-user-id, set-group-id and sticky.
const MODE_BITS: u32 = 0o7777;

/// What may still be unpacked of an image.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Bytes of all layers, unpacked, with their headers.
    pub bytes: u64,
    /// Members of all layers.
    pub members: u64,
}

/// What a layer turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub struct Digests {
    /// Of the bytes as they were.
    pub packed: String,
    /// Of the unpacked bytes.
    pub unpacked: String,
}

/// Reads layer `number`, counted from 0, to its end and puts its members into the tree.
pub fn read_layer(
    packed: impl Read,
    number: usize,
    tree: &mut Tree,
    budget: &mut Budget,
) -> Result<Digests, LayerError> {
    let mut stream = Unpacked::new(packed, budget.bytes)?;
    let read = read_members(&mut stream, number, tree, &mut budget.members);
    // What the tar reader made of it says less than that the budget is used up.
    if stream.left == 0 && stream.refused {
        return Err(LayerError::Bytes);
    }
    read?;
    let left;
    (stream, left) = stream.drain()?;
    budget.bytes = left;
    Ok(stream.digests())
}

/// Reads a layer again, for the contents in `wanted`, which are in the order of their places. `take` is called with the
/// number of each, where in it the bytes belong, and the bytes.
pub(super) fn read_contents<E: From<LayerError>>(
    packed: impl Read,
    budget: u64,
    wanted: &[Content],
    mut take: impl FnMut(usize, u64, &[u8]) -> Result<(), E>,
) -> Result<Digests, E> {
    let mut stream = Unpacked::new(packed, budget)?;
    let mut buffer = vec![0; BUFFER];
    let mut at = 0;
    for (index, content) in wanted.iter().enumerate() {
        let gap = content.offset.saturating_sub(at);
        let skipped = io::copy(&mut (&mut stream).take(gap), &mut io::sink()).map_err(LayerError::Read)?;
        at += skipped;
        let mut done = 0;
        while done < content.size {
            let room = buffer.len().min((content.size - done) as usize);
            let count = read_some(&mut stream, &mut buffer[..room]).map_err(LayerError::Read)?;
            if count == 0 {
                return Err(LayerError::Changed.into());
            }
            take(index, done, &buffer[..count])?;
            done += count as u64;
        }
        at += done;
    }
    let (stream, _) = stream.drain()?;
    Ok(stream.digests())
}

fn read_members(
    stream: &mut Unpacked<impl Read>,
    number: usize,
    tree: &mut Tree,
    members_left: &mut u64,
) -> Result<(), LayerError> {
    let bytes = stream.left;
    let mut archive = Archive::new(stream);
    let mut extensions = Extensions::default();
    // Raw: the crate would hold extensions of any size in memory.
    for member in archive.entries().map_err(LayerError::Tar)?.raw(true) {
        let mut member = member.map_err(LayerError::Tar)?;
        *members_left = members_left.checked_sub(1).ok_or(LayerError::Members)?;
        if member.size() > bytes {
            return Err(LayerError::Bytes);
        }
        if extensions.take(&mut member)? {
            continue;
        }
        let mut extensions = std::mem::take(&mut extensions);
        let path = extensions.path(member.header());
        put(&member, &path, &mut extensions, number, tree).map_err(|reason| reason.of(&path))?;
    }
    Ok(())
}

fn put(
    member: &Entry<'_, impl Read>,
    path: &[u8],
    extensions: &mut Extensions,
    number: usize,
    tree: &mut Tree,
) -> Result<(), LayerError> {
    let header = member.header();
    let names = parse_path(path)?;
    if let Some((name, dir)) = names.split_last() {
        match Mark::of(name, dir)? {
            Mark::File => {}
            Mark::Whiteout(gone) => return Ok(tree.whiteout(number, dir, gone)?),
            Mark::Opaque => return Ok(tree.opaque(number, dir)?),
            Mark::Note => return Ok(()),
        }
    }
    if header.entry_type().is_gnu_sparse() {
        return Err(LayerError::Kind("a sparse file"));
    }
    let size = extensions.size(header)?;
    let kind = match header.entry_type() {
        // An old tar has no other way to say that it is a directory.
        EntryType::Regular if path.ends_with(b"/") => Kind::Directory(Default::default()),
        EntryType::Regular | EntryType::Continuous => Kind::File(Content {
            layer: number,
            offset: member.raw_file_position(),
            size,
        }),
        EntryType::Directory => Kind::Directory(Default::default()),
        EntryType::Symlink => {
            let link = extensions.link(header);
            Kind::Symlink(parse_text(&link).map_err(LayerError::Link)?.into())
        }
        EntryType::Fifo => Kind::Fifo,
        EntryType::Link => {
            let link = extensions.link(header);
            let target = parse_path(&link).map_err(LayerError::Link)?;
            return Ok(tree.link(number, &names, &target)?);
        }
        EntryType::Char | EntryType::Block => return Err(LayerError::Kind("a device")),
        _ => return Err(LayerError::Kind("of a kind that a layer cannot have")),
    };
    if matches!(&kind, Kind::Symlink(target) if target.is_empty()) {
        return Err(LayerError::Kind("a link to nothing"));
    }
    let meta = Meta {
        mode: (header.mode().map_err(LayerError::Tar)? & MODE_BITS) as u16,
        uid: extensions.uid(header)?,
        gid: extensions.gid(header)?,
        mtime_s: extensions.mtime_s(header),
        capability: extensions.capability.take(),
    };
    Ok(tree.put(number, &names, meta, kind)?)
}

/// A layer's unpacked bytes, hashed as they pass, and its packed bytes too. It ends with an error where it is longer
/// than it may be.
struct Unpacked<R: Read> {
    unpacker: Unpacker<BufReader<Hashed<R>>>,
    hash: Sha256,
    left: u64,
    refused: bool,
}

enum Unpacker<R: BufRead> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<R>>),
    Zstd(Box<Frames<R>>),
}

impl<R: Read> Unpacked<R> {
    fn new(packed: R, left: u64) -> Result<Self, LayerError> {
        let hashed = Hashed {
            inner: packed,
            hash: Sha256::new(),
        };
        let mut packed = BufReader::with_capacity(BUFFER, hashed);
        // By what it is and not by what it is called: docker's archives name no type.
        let unpacker = match packed.fill_buf().map_err(LayerError::Read)? {
            [0x1f, 0x8b, ..] => Unpacker::Gzip(Box::new(MultiGzDecoder::new(packed))),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                Unpacker::Zstd(Box::new(Frames {
                    source: packed,
                    decoder: FrameDecoder::new(),
                    is_open: false,
                }))
            }
            _ => Unpacker::Plain(packed),
        };
        Ok(Self {
            unpacker,
            hash: Sha256::new(),
            left,
            refused: false,
        })
    }

    /// Reads what nobody wanted: it counts for the digests. Returns what is left of the budget too.
    fn drain(mut self) -> Result<(Self, u64), LayerError> {
        let drained = io::copy(&mut self, &mut io::sink());
        if self.refused {
            return Err(LayerError::Bytes);
        }
        drained.map_err(LayerError::Read)?;
        // What follows the packed stream belongs to the blob.
        let packed = match &mut self.unpacker {
            Unpacker::Plain(packed) => packed,
            Unpacker::Gzip(packed) => packed.get_mut(),
            Unpacker::Zstd(frames) => &mut frames.source,
        };
        io::copy(packed, &mut io::sink()).map_err(LayerError::Read)?;
        let left = self.left;
        Ok((self, left))
    }

    fn digests(self) -> Digests {
        let packed = match self.unpacker {
            Unpacker::Plain(packed) => packed,
            Unpacker::Gzip(packed) => packed.into_inner(),
            Unpacker::Zstd(frames) => frames.source,
        };
        Digests {
            packed: hex(packed.into_inner().hash),
            unpacked: hex(self.hash),
        }
    }
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.unpacker {
            Unpacker::Plain(packed) => packed.read(buffer),
            Unpacker::Gzip(packed) => packed.read(buffer),
            Unpacker::Zstd(packed) => packed.read(buffer),
        }?;
        if count as u64 > self.left {
            (self.left, self.refused) = (0, true);
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.left -= count as u64;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// A reader that hashes what passes.
struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// All frames of a zstd file, one after another; the crate reads one.
struct Frames<R> {
    source: R,
    decoder: FrameDecoder,
    /// Whether the decoder is in the middle of a frame.
    is_open: bool,
}

impl<R: BufRead> Frames<R> {
    /// Opens the next frame; says whether there is one.
    fn open(&mut self) -> io::Result<bool> {
        while !self.is_open {
            if self.source.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.init(&mut self.source) {
                Ok(()) => self.is_open = true,
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    io::copy(&mut (&mut self.source).take(length.into()), &mut io::sink())?;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(true)
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !buffer.is_empty() && self.open()? {
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder
                    .decode_blocks(&mut self.source, one)
                    .map_err(io::Error::other)?;
            }
            let count = self.decoder.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            self.is_open = false;
        }
        Ok(0)
    }
}

fn read_some(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// A digest as OCI writes it.
pub fn hex(hash: Sha256) -> String {
    let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}
