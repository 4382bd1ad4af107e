//! Images of other people's making: OCI's layout and docker's archives, turned into a root file system of ours.
//!
//! Each layer is read twice as a stream: once to learn which files the image has in the end, and once to copy what
//! they hold to its place. Nothing is unpacked onto the host: its kernel sees one file being written, the EROFS. What a
//! layer holds is hashed both times, for its owner may change the archive while it is read.
//!
//! What is taken: regular files, directories, symbolic and hard links, named pipes; owners, modes with set-user-id and
//! the like, times in whole seconds, and of the extended attributes `security.capability`. All that counts in the guest
//! alone. What is refused, by name and reason: see [`LayerError`] and [`PathError`].

mod document;
mod layer;
mod member;
mod path;
mod source;
#[cfg(test)]
pub(crate) mod tests;

use std::fs::File;
use std::io;

pub use document::{LAYERS_MAX, LayerFile, Plan, Workload, read_plan};
pub use layer::{Budget, Digests, hex, read_layer};
pub use path::PathError;
pub use source::Source;

use super::erofs::Layout;
use super::tree::{Content, Kind, NodeId, Tree, TreeError};

/// What an image may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all layers unpacked, and of the image made of them.
    pub bytes: u64,
    /// Members of all layers: files, and what is said of them.
    pub members: u32,
}

/// Why an image is not taken.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// The archive cannot be opened.
    #[error("{0}")]
    Open(io::Error),
    /// The archive is packed as a whole.
    #[error("is compressed as a whole; unpack it with `gunzip` first")]
    Compressed,
    /// It is no tar.
    #[error("is not a tar archive that can be read: {0}")]
    NoArchive(io::Error),
    /// Too many files in the archive.
    #[error("has more than {0} files")]
    Members(usize),
    /// It holds no image that is known.
    #[error("has neither `index.json` (OCI) nor `manifest.json` (docker) in it")]
    NoImage,
    /// It holds several.
    #[error("holds several images ({0}); save the one that is wanted")]
    Several(String),
    /// A file in it cannot be read.
    #[error("{name}: {source}")]
    Read {
        /// The file in it.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// A document is not what it should be.
    #[error("{name}: {problem}")]
    Document {
        /// The file in it.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// Something is not what its digest says.
    #[error("{what} has digest {found}, not {expected}")]
    Digest {
        /// What.
        what: String,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A digest by another rule.
    #[error("has a digest by {0}; only sha256 is read")]
    Algorithm(String),
    /// Too many layers.
    #[error("has {0} layers, more than {LAYERS_MAX}")]
    Layers(usize),
    /// A layer is wrong.
    #[error("layer {number}: {source}")]
    Layer {
        /// Counted from 1.
        number: usize,
        /// What is wrong.
        source: LayerError,
    },
    /// The image made of it is too large.
    #[error(
        "makes an image of {found} bytes, more than the {limit} that `images.image_max` in agent.toml allows"
    )]
    Size {
        /// Bytes that it would have.
        found: u64,
        /// Bytes that it may have.
        limit: u64,
    },
    /// The image cannot be written.
    #[error("write the image: {0}")]
    Write(#[source] io::Error),
}

impl OciError {
    fn document(name: &str, problem: impl Into<String>) -> Self {
        Self::Document {
            name: name.to_string(),
            problem: problem.into(),
        }
    }
}

/// Why a layer is not taken.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// It cannot be read or unpacked.
    #[error("cannot be unpacked: {0}")]
    Read(io::Error),
    /// It is no tar.
    #[error("is not a tar archive that can be read: {0}")]
    Tar(io::Error),
    /// It would take more room than an image may.
    #[error("unpacks to more than `images.image_max` in agent.toml allows")]
    Bytes,
    /// It has more members than an image may.
    #[error("has more members than an image may have")]
    Members,
    /// An extension is too large.
    #[error("has an extension of more than {0} bytes")]
    LargeExtension(u64),
    /// An extension is not what it should be.
    #[error("has an extension that makes no sense")]
    Extension,
    /// Header and extension disagree.
    #[error("has two sizes")]
    TwoSizes,
    /// An owner that no file can have.
    #[error("belongs to {0}, which is no user or group")]
    Owner(u64),
    /// A kind of file that no image may have.
    #[error("is {0}")]
    Kind(&'static str),
    /// The path is not taken.
    #[error("its path {0}")]
    Path(#[from] PathError),
    /// What it links to is not taken.
    #[error("what it links to {0}")]
    Link(PathError),
    /// There is no place for it.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// Another reason, of one member.
    #[error("{path:?} {source}")]
    Member {
        /// The member's path, as far as it can be shown.
        path: String,
        /// The reason.
        source: Box<LayerError>,
    },
    /// The second reading found something else than the first.
    #[error("was changed while it was read; import it again")]
    Changed,
}

impl LayerError {
    /// This, of the member with that path.
    fn of(self, path: &[u8]) -> Self {
        let path = String::from_utf8_lossy(path).chars().take(100).collect();
        Self::Member {
            path,
            source: Box::new(self),
        }
    }
}

/// Writes the image in `source` as an EROFS into an empty file. What it is made of is checked before its last byte is
/// written, not before the first.
pub fn build(source: &Source, limits: Limits, out: &File) -> Result<Plan, OciError> {
    let plan = read_plan(source)?;
    let mut tree = read_tree(source, &plan, limits)?;
    make_working_dir(&mut tree, &plan);
    let layout = Layout::of(&tree);
    if layout.size() > limits.bytes {
        return Err(OciError::Size {
            found: layout.size(),
            limit: limits.bytes,
        });
    }
    layout
        .write_nodes(&tree, identifier(&plan), out)
        .map_err(OciError::Write)?;
    write_contents(source, &plan, limits, &tree, &layout, out)?;
    Ok(plan)
}

fn read_tree(source: &Source, plan: &Plan, limits: Limits) -> Result<Tree, OciError> {
    let mut tree = Tree::new(limits.members as usize);
    let mut budget = Budget {
        bytes: limits.bytes,
        members: limits.members.into(),
    };
    for (number, layer) in plan.layers.iter().enumerate() {
        let digests = read_layer(source.open_file(&layer.name)?, number, &mut tree, &mut budget)
            .map_err(in_layer(number))?;
        check(layer, &digests)?;
    }
    Ok(tree)
}

/// Makes the directory that the workload starts in, as everybody does who runs such images. Where it cannot be made the
/// guest says so.
fn make_working_dir(tree: &mut Tree, plan: &Plan) {
    let path = plan.workload.working_dir.as_deref().unwrap_or_default();
    if let Ok(names) = path::parse_path(path.trim_start_matches('/').as_bytes()) {
        let _ = tree.make_directories(plan.layers.len(), &names);
    }
}

/// What stops the second reading.
enum Stop {
    Layer(LayerError),
    Write(io::Error),
}

impl From<LayerError> for Stop {
    fn from(error: LayerError) -> Self {
        Self::Layer(error)
    }
}

fn write_contents(
    source: &Source,
    plan: &Plan,
    limits: Limits,
    tree: &Tree,
    layout: &Layout,
    out: &File,
) -> Result<(), OciError> {
    let mut wanted: Vec<Vec<(Content, NodeId)>> = vec![Vec::new(); plan.layers.len()];
    for &id in layout.nodes() {
        if let Kind::File(content) = tree.node(id).kind
            && content.size > 0
        {
            wanted[content.layer].push((content, id));
        }
    }
    for (number, (layer, mut wanted)) in plan.layers.iter().zip(wanted).enumerate() {
        if wanted.is_empty() {
            continue;
        }
        wanted.sort_unstable_by_key(|(content, _)| content.offset);
        let contents: Vec<Content> = wanted.iter().map(|(content, _)| *content).collect();
        let packed = source.open_file(&layer.name)?;
        let digests = layer::read_contents(packed, limits.bytes, &contents, |index, at, bytes| {
            let (_, id) = wanted[index];
            layout.write_content(id, at, bytes, out).map_err(Stop::Write)
        })
        .map_err(|stop| match stop {
            Stop::Layer(error) => in_layer(number)(error),
            Stop::Write(error) => OciError::Write(error),
        })?;
        check(layer, &digests)?;
    }
    Ok(())
}

fn check(layer: &LayerFile, digests: &Digests) -> Result<(), OciError> {
    let packed = layer.packed.iter().map(|expected| (expected, &digests.packed));
    for (expected, found) in packed.chain([(&layer.unpacked, &digests.unpacked)]) {
        if expected != found {
            return Err(OciError::Digest {
                what: layer.name.clone(),
                expected: expected.clone(),
                found: found.clone(),
            });
        }
    }
    Ok(())
}

fn in_layer(number: usize) -> impl FnOnce(LayerError) -> OciError {
    move |source| OciError::Layer {
        number: number + 1,
        source,
    }
}

/// An identifier of the file system that follows from the image's digest, marked as one by the maker's own rule.
fn identifier(plan: &Plan) -> [u8; 16] {
    let digits = plan.digest.trim_start_matches("sha256:").as_bytes();
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.chunks(2)) {
        let text = std::str::from_utf8(pair).unwrap_or_default();
        *byte = u8::from_str_radix(text, 16).unwrap_or_default();
    }
    id[6] = 0x80 | (id[6] & 0x0f);
    id[8] = 0x80 | (id[8] & 0x3f);
    id
}
