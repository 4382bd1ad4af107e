//! Images: read-only root file systems, kept under their names, checked byte for byte when they come in.

pub mod erofs;
mod manifest;
pub mod oci;
mod quota;
mod stage;
mod store;
#[cfg(test)]
mod tests;
pub mod tree;

pub use manifest::read_manifest;
pub use quota::{Held, NoRoom, give_way};
pub use stage::{Arriving, Staged};
pub use store::{Image, ImageStore};

use std::io;
use std::path::PathBuf;

/// Why an image cannot be taken in or used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No image has this name.
    #[error(
        "image `{0}` is not in the store; `secovia image ls` shows what is, `secovia image import` adds one"
    )]
    NotFound(String),
    /// The manifest cannot be read or says what cannot be.
    #[error("image manifest {path}: {problem}; {remedy}")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// An image of other people's making is not taken.
    #[error("image archive {path}: {source}")]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong, and what to do.
        source: Box<oci::OciError>,
    },
    /// What is asked for cannot be.
    #[error("image import {path}: {problem}")]
    Import {
        /// What was to be imported.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The root file system is not what the manifest says.
    #[error("image file {path}: {problem}; {remedy}")]
    Rootfs {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The store's own files cannot be written.
    #[error("{operation} {path}: {source}; check the disk, its free space and its permissions")]
    Store {
        /// What was to be done.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// What to do about an image directory that is wrong before it is in the store.
const BUILD_AGAIN: &str = "build the image again, or correct the file";

/// What to do about one that is wrong in the store.
const IMPORT_AGAIN: &str = "remove the image with `secovia image rm` and import it again";
