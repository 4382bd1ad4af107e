//! What the steps have in hand: descriptors that earlier ones opened for later ones.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::Problem;
use super::undo::UndoLog;

/// See the module.
#[derive(Default)]
pub(super) struct Held {
    /// What is to be unmade.
    pub(super) undo: UndoLog,
    /// Whether the host's steps are done.
    pub(super) complete: bool,
    /// The folder that was made last.
    pub(super) folder: Option<(PathBuf, Arc<OwnedFd>)>,
    /// The machine's folder, and the lock on it.
    pub(super) machine: Option<Arc<OwnedFd>>,
    /// The jail's root on the host.
    pub(super) root: Option<Arc<OwnedFd>>,
    /// Its mount.
    pub(super) root_mount: Option<OwnedFd>,
    /// The mounts of files, by name.
    pub(super) files: BTreeMap<String, OwnedFd>,
    /// The mount of the devices.
    pub(super) devices: Option<OwnedFd>,
    /// The machine's cgroups, by folder.
    pub(super) cgroups: BTreeMap<PathBuf, OwnedFd>,
    /// The network namespace to join.
    pub(super) network: Option<OwnedFd>,
    /// `/dev/null`.
    pub(super) null: Option<OwnedFd>,
}

/// What an earlier step has put there.
pub(super) fn need<T>(slot: Option<&T>) -> Result<&T, Problem> {
    slot.ok_or_else(|| Problem::new("an earlier step is missing", "report this"))
}
