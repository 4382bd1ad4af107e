//! Why an image cannot be fetched.

use std::io;
use std::path::PathBuf;

/// Why an image cannot be fetched. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The reference makes no sense.
    #[error("`{reference}`: {problem}; write REGISTRY/REPOSITORY:TAG, like registry.lan:5000/app:1")]
    Reference {
        /// What was given.
        reference: String,
        /// What is wrong.
        problem: String,
    },
    /// The file of credentials is of no use.
    #[error("credentials {path}: {problem}")]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The registry wants to know who one is.
    #[error(
        "`{0}` wants credentials, or other ones, for this image; name a file with --credentials-file, or look whether \
         the image's name is right"
    )]
    Unauthorized(String),
    /// The registry has no such image.
    #[error("`{0}` has no such image; look at repository and tag")]
    NotFound(String),
    /// The registry answers otherwise than it should.
    #[error("registry `{registry}`: {problem}")]
    Registry {
        /// Which one.
        registry: String,
        /// What it did.
        problem: String,
    },
    /// The connection fails again and again.
    #[error(
        "registry `{registry}`: {problem}; look at the network and the name, and pull again: what is here is kept{}",
        if *.is_plain { "" } else { "; one without TLS has to be named in `images.insecure_registries` in agent.toml" }
    )]
    Connection {
        /// Which one.
        registry: String,
        /// What fails.
        problem: String,
        /// Whether it was spoken to without TLS.
        is_plain: bool,
    },
    /// A document or a layer is not what its digest says.
    #[error(
        "registry `{registry}` gave {found} for {expected}; do not use this image before its owner has looked at it"
    )]
    Digest {
        /// Which one.
        registry: String,
        /// What was asked for.
        expected: String,
        /// What came.
        found: String,
    },
    /// The image is too large.
    #[error(
        "the image has {found} bytes packed, more than the {limit} that `images.image_max` in agent.toml allows"
    )]
    Size {
        /// Its bytes.
        found: u64,
        /// What it may have.
        limit: u64,
    },
    /// A file cannot be written.
    #[error("write {path}: {source}; look at the disk, its free space and its permissions")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}
