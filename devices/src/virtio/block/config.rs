//! What a disk is, and why it cannot be one.

use std::io;
use std::path::PathBuf;

use crate::limiter::LimiterConfig;

/// Whether the guest's flush reaches the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cache {
    /// Flush is not offered: the host writes back when it likes, and a host that crashes loses what it had not
    /// written. For disks that can be made anew.
    #[default]
    Unsafe,
    /// Flush is `fdatasync`.
    Writeback,
}

/// How the disk is read and written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Engine {
    /// One request after the other, on the thread that the notification came on.
    #[default]
    Sync,
    /// Many at once, by an io_uring.
    Async,
}

/// A disk's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockConfig {
    /// A regular file or a block device.
    pub path: PathBuf,
    /// The guest cannot write it.
    pub read_only: bool,
    /// What a flush does.
    pub cache: Cache,
    /// How it is read and written.
    pub engine: Engine,
    /// The serial number in the guest; its first 20 bytes count.
    pub id: String,
    /// Limits of what the guest reads and writes, both together.
    pub limit: LimiterConfig,
}

/// Why a disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// It does not open.
    #[error("disk {path}: {source}", path = path.display())]
    Open {
        /// The disk.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is a directory, a socket, a terminal.
    #[error("disk {path}: neither a regular file nor a block device", path = path.display())]
    Kind {
        /// The disk.
        path: PathBuf,
    },
    /// There is not one sector in it.
    #[error("disk {path}: {size} bytes long, at least one sector of 512 bytes is needed", path = path.display())]
    Size {
        /// The disk.
        path: PathBuf,
        /// Its length.
        size: u64,
    },
    /// Another machine has it.
    #[error(
        "disk {path}: in use by another process that {holds}; stop that machine or use a copy",
        path = path.display(), holds = if *read_only { "writes it" } else { "reads or writes it" }
    )]
    InUse {
        /// The disk.
        path: PathBuf,
        /// Whether only reading was asked for.
        read_only: bool,
    },
    /// There is no timer for its limits.
    #[error("disk {path}: make a timer for its limits: {source}", path = path.display())]
    Timer {
        /// The disk.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no io_uring for it.
    #[error(
        "disk {path}: io_engine Async: make an io_uring: {source}; it needs Linux 5.11 or newer and sysctl \
         kernel.io_uring_disabled=0, or give Sync",
        path = path.display()
    )]
    Ring {
        /// The disk.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its file system does not lock.
    #[error("disk {path}: lock: {source}", path = path.display())]
    Lock {
        /// The disk.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
