//! Why an image of other people's making is not taken.

use std::io;

use super::path::PathError;
use crate::images::tree::TreeError;

/// Layers that an image may have. (Docker makes at most 127.)
pub const LAYERS_MAX: usize = 128;

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
    pub(super) fn document(name: &str, problem: impl Into<String>) -> Self {
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
    pub(super) fn of(self, path: &[u8]) -> Self {
        let path = String::from_utf8_lossy(path).chars().take(100).collect();
        Self::Member {
            path,
            source: Box::new(self),
        }
    }
}
