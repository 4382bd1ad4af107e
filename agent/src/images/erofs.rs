//! Writes a tree of files as an EROFS image, uncompressed: the format that the guest mounts, as the kernel's
//! `fs/erofs/erofs_fs.h` has it. No file of the tree is ever one of the host's, so that no name, link, owner or mode in
//! an image concerns the host.
//!
//! First the superblock and all inodes, each with the last part of its content behind it where that fits into the same
//! block; then, from a block's start on, the rest of each content. Where everything comes to lie follows from the tree
//! alone: the same tree has the same image.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::tree::{Kind, Meta, Node, NodeId, ROOT, Tree};

const BLOCK: u64 = 4096;
const BLOCK_BITS: u8 = 12;
const SUPERBLOCK_AT: u64 = 1024;
const SUPERBLOCK_LEN: u64 = 128;
const MAGIC: u32 = 0xe0f5_e1e2;
/// Times are those of the last change of the content.
const COMPAT_MTIME: u32 = 2;

/// An inode of the longer form.
const INODE_LEN: u64 = 64;
/// Inodes are numbered by their place, in steps of so many bytes.
const INODE_STEP: u64 = 32;
const FORMAT_EXTENDED: u16 = 1;
/// All content in blocks.
const LAYOUT_PLAIN: u16 = 0;
/// The last part behind the inode.
const LAYOUT_INLINE: u16 = 2 << 1;

const XATTR_HEADER_LEN: u64 = 12;
const XATTR_ENTRY_LEN: u64 = 4;
/// The number of the prefix `security.`.
const XATTR_SECURITY: u8 = 6;
const XATTR_CAPABILITY: &[u8] = b"capability";

const DIRENT_LEN: usize = 12;

/// Where everything of a tree comes to lie.
#[derive(Debug)]
pub struct Layout {
    /// Of each node that can be reached from the root.
    places: Vec<Option<Place>>,
    /// Those nodes, a directory before what is in it.
    order: Vec<NodeId>,
    size: u64,
}

/// Where a file comes to lie. All are bytes.
#[derive(Debug, Clone, Copy)]
struct Place {
    parent: NodeId,
    links: u32,
    inode_at: u64,
    /// Of the content.
    size: u64,
    /// So much of it lies from `blocks_at` on, the rest from `rest_at` on.
    in_blocks: u64,
    blocks_at: u64,
    rest_at: u64,
}

impl Place {
    fn number(&self) -> u64 {
        self.inode_at / INODE_STEP
    }
}

impl Layout {
    /// Finds every file its place.
    pub fn of(tree: &Tree) -> Self {
        let mut layout = Self {
            places: vec![None; tree.count()],
            order: Vec::new(),
            size: 0,
        };
        let mut end = SUPERBLOCK_AT + SUPERBLOCK_LEN;
        layout.visit(tree, ROOT, ROOT);
        for &id in &layout.order {
            if let Some(place) = &mut layout.places[id] {
                end = place_inode(tree.node(id), place, end);
            }
        }
        for &id in &layout.order {
            if let Some(place) = &mut layout.places[id]
                && place.in_blocks > 0
            {
                place.blocks_at = end.next_multiple_of(BLOCK);
                end = place.blocks_at + place.in_blocks;
            }
        }
        layout.size = end.next_multiple_of(BLOCK);
        layout
    }

    fn visit(&mut self, tree: &Tree, id: NodeId, parent: NodeId) {
        if let Some(place) = &mut self.places[id] {
            // One more name of the same file.
            place.links += 1;
            return;
        }
        let node = tree.node(id);
        self.places[id] = Some(Place {
            parent,
            links: 1,
            inode_at: 0,
            size: size(node),
            in_blocks: 0,
            blocks_at: 0,
            rest_at: 0,
        });
        self.order.push(id);
        if let Kind::Directory(entries) = &node.kind {
            let mut links = 2;
            for entry in entries.values() {
                links += u32::from(matches!(tree.node(entry.node).kind, Kind::Directory(_)));
                self.visit(tree, entry.node, id);
            }
            if let Some(place) = &mut self.places[id] {
                place.links = links;
            }
        }
    }

    /// Bytes of the image.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The nodes that have a place.
    pub fn nodes(&self) -> &[NodeId] {
        &self.order
    }

    /// Writes everything but the content of regular files into an empty file. `id` is the file system's identifier.
    pub fn write_nodes(&self, tree: &Tree, id: [u8; 16], out: &File) -> io::Result<()> {
        out.set_len(self.size)?;
        out.write_all_at(&self.superblock(id), SUPERBLOCK_AT)?;
        for (count, &id) in self.order.iter().enumerate() {
            let node = tree.node(id);
            let Some(place) = &self.places[id] else { continue };
            out.write_all_at(&inode(node, place, count as u32 + 1), place.inode_at)?;
            match &node.kind {
                Kind::Directory(_) => self.write_content(id, 0, &self.directory(tree, id, place), out)?,
                Kind::Symlink(target) => self.write_content(id, 0, target.as_bytes(), out)?,
                Kind::File(_) | Kind::Fifo => {}
            }
        }
        Ok(())
    }

    /// Writes a part of a node's content, which begins at its byte `offset`. What lies beyond the content's end is left
    /// out.
    pub fn write_content(&self, id: NodeId, offset: u64, bytes: &[u8], out: &File) -> io::Result<()> {
        let Some(place) = &self.places[id] else {
            return Ok(());
        };
        let bytes = &bytes[..(bytes.len() as u64).min(place.size.saturating_sub(offset)) as usize];
        let whole = (bytes.len() as u64).min(place.in_blocks.saturating_sub(offset)) as usize;
        let (blocks, rest) = bytes.split_at(whole);
        if !blocks.is_empty() {
            out.write_all_at(blocks, place.blocks_at + offset)?;
        }
        if !rest.is_empty() {
            let at = place.rest_at + offset + whole as u64 - place.in_blocks;
            out.write_all_at(rest, at)?;
        }
        Ok(())
    }

    fn superblock(&self, id: [u8; 16]) -> Vec<u8> {
        let root = self.places[ROOT].map_or(0, |place| place.number());
        let mut bytes = Vec::with_capacity(SUPERBLOCK_LEN as usize);
        bytes.extend(MAGIC.to_le_bytes());
        bytes.extend(0_u32.to_le_bytes()); // no checksum
        bytes.extend(COMPAT_MTIME.to_le_bytes());
        bytes.push(BLOCK_BITS);
        bytes.push(0); // no more slots
        bytes.extend((root as u16).to_le_bytes());
        bytes.extend((self.order.len() as u64).to_le_bytes());
        bytes.extend([0; 12]); // build time
        bytes.extend(((self.size / BLOCK) as u32).to_le_bytes());
        bytes.extend([0; 8]); // inodes and attributes are counted from the first block on
        bytes.extend(id);
        bytes.resize(SUPERBLOCK_LEN as usize, 0); // no volume name, no incompatible features
        bytes
    }

    fn directory(&self, tree: &Tree, id: NodeId, place: &Place) -> Vec<u8> {
        let node = tree.node(id);
        let Kind::Directory(entries) = &node.kind else {
            return Vec::new();
        };
        let mut bytes = Vec::new();
        for block in directory_blocks(node) {
            bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
            let mut name_at = DIRENT_LEN * block.len();
            for &name in &block {
                let node = match name {
                    "." => id,
                    ".." => place.parent,
                    _ => entries[name].node,
                };
                let number = self.places[node].map_or(0, |place| place.number());
                bytes.extend(number.to_le_bytes());
                bytes.extend((name_at as u16).to_le_bytes());
                bytes.extend([file_type(tree.node(node)), 0]);
                name_at += name.len();
            }
            for name in &block {
                bytes.extend(name.as_bytes());
            }
        }
        bytes
    }
}

/// Places an inode behind `end` and returns its own end. Its attributes and the last part of its content are in the
/// block that it begins in.
fn place_inode(node: &Node, place: &mut Place, end: u64) -> u64 {
    let head = INODE_LEN + xattrs_len(&node.meta);
    let rest = place.size % BLOCK;
    let (behind, in_blocks) = if head + rest <= BLOCK {
        (rest, place.size - rest)
    } else {
        (0, place.size)
    };
    let mut at = end.next_multiple_of(INODE_STEP);
    if at % BLOCK + head + behind > BLOCK {
        at = at.next_multiple_of(BLOCK);
    }
    place.inode_at = at;
    place.in_blocks = in_blocks;
    place.rest_at = at + head;
    at + head + behind
}

fn inode(node: &Node, place: &Place, count: u32) -> Vec<u8> {
    let meta = &node.meta;
    let layout = if place.in_blocks == place.size {
        LAYOUT_PLAIN
    } else {
        LAYOUT_INLINE
    };
    let xattrs = xattrs_len(meta);
    let xattr_count = if xattrs == 0 {
        0
    } else {
        1 + (xattrs - XATTR_HEADER_LEN) / 4
    };
    let mut bytes = Vec::with_capacity((INODE_LEN + xattrs) as usize);
    bytes.extend((FORMAT_EXTENDED | layout).to_le_bytes());
    bytes.extend((xattr_count as u16).to_le_bytes());
    bytes.extend((type_bits(node) | meta.mode).to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend(place.size.to_le_bytes());
    bytes.extend(((place.blocks_at / BLOCK) as u32).to_le_bytes());
    bytes.extend(count.to_le_bytes());
    bytes.extend(meta.uid.to_le_bytes());
    bytes.extend(meta.gid.to_le_bytes());
    bytes.extend(meta.mtime_s.to_le_bytes());
    bytes.extend(0_u32.to_le_bytes());
    bytes.extend(place.links.to_le_bytes());
    bytes.extend([0; 16]);
    if let Some(capability) = &meta.capability {
        bytes.extend([0; XATTR_HEADER_LEN as usize]);
        bytes.extend([XATTR_CAPABILITY.len() as u8, XATTR_SECURITY]);
        bytes.extend((capability.len() as u16).to_le_bytes());
        bytes.extend(XATTR_CAPABILITY);
        bytes.extend(capability);
        bytes.resize((INODE_LEN + xattrs) as usize, 0);
    }
    bytes
}

fn xattrs_len(meta: &Meta) -> u64 {
    let entry = |value: &[u8]| XATTR_ENTRY_LEN + (XATTR_CAPABILITY.len() + value.len()) as u64;
    let value = meta.capability.as_deref();
    value.map_or(0, |value| XATTR_HEADER_LEN + entry(value).next_multiple_of(4))
}

/// Bytes of a node's content.
fn size(node: &Node) -> u64 {
    match &node.kind {
        Kind::Directory(_) => {
            let blocks = directory_blocks(node);
            let last = blocks
                .last()
                .map_or(0, |block| block.iter().map(|name| DIRENT_LEN + name.len()).sum());
            (blocks.len() as u64 - 1) * BLOCK + last as u64
        }
        Kind::File(content) => content.size,
        Kind::Symlink(target) => target.len() as u64,
        Kind::Fifo => 0,
    }
}

/// The names of a directory in their order, as many to a block as there is room for. There is always one block.
fn directory_blocks(node: &Node) -> Vec<Vec<&str>> {
    let mut names = vec![".", ".."];
    if let Kind::Directory(entries) = &node.kind {
        names.extend(entries.keys().map(|name| &**name));
    }
    names.sort_unstable();
    let mut blocks = vec![Vec::new()];
    let mut used = 0;
    for name in names {
        let needed = DIRENT_LEN + name.len();
        if used + needed > BLOCK as usize {
            blocks.push(Vec::new());
            used = 0;
        }
        used += needed;
        if let Some(block) = blocks.last_mut() {
            block.push(name);
        }
    }
    blocks
}

fn type_bits(node: &Node) -> u16 {
    match node.kind {
        Kind::Directory(_) => 0o040_000,
        Kind::File(_) => 0o100_000,
        Kind::Symlink(_) => 0o120_000,
        Kind::Fifo => 0o010_000,
    }
}

/// A directory entry's word for a kind of file.
fn file_type(node: &Node) -> u8 {
    match node.kind {
        Kind::File(_) => 1,
        Kind::Directory(_) => 2,
        Kind::Fifo => 5,
        Kind::Symlink(_) => 7,
    }
}
