//! Images of other people's making: OCI's layout and docker's archives, turned into a root file system of ours.
//!
//! Each layer is read twice as a stream: once to learn which files the image has in the end, and once to copy what
//! they hold to its place. Nothing is unpacked onto the host: its kernel sees one file being written, the EROFS. What a
//! layer holds is hashed both times, for its owner may change the archive while it is read.
//!
//! What is taken: regular files, directories, symbolic and hard links, named pipes; owners, modes with set-user-id and
//! the like, times in whole seconds, and of the extended attributes `security.capability`. All that counts in the guest
//! alone. What is refused, by name and reason: see [`LayerError`] and [`PathError`].

mod build;
mod document;
mod error;
mod layer;
mod member;
mod path;
mod source;
#[cfg(test)]
mod tests;

pub use build::{Limits, build};
pub use document::{LayerFile, Plan, Workload, read_plan};
pub use error::{LAYERS_MAX, LayerError, OciError};
pub use layer::{Budget, Digests, hex, read_layer};
pub use path::PathError;
pub use source::Source;
