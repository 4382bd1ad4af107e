//! Mounts that are in hand: made of a file or folder on the host, attached in the jail.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self, AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};
use rustix::{mount, process};

use super::error::Problem;
use super::paths::Owner;
use crate::plan::Node;
use crate::sys::{self, MountAttributes};

/// Room for the devices' folder: no file has contents there.
const DEVICES_SIZE: &str = "16k";
const KERNEL: &str = "Linux 5.14 or newer is needed";

/// A mount of this file or folder alone, with nothing that is mounted below it, attached nowhere.
///
/// Only possible in the mount namespace that the file was opened in.
pub(super) fn alone(file: &OwnedFd, attributes: MountAttributes) -> Result<OwnedFd, Problem> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = mount::open_tree(file, "", flags).map_err(Problem::os(KERNEL))?;
    sys::restrict_mount(tree.as_fd(), attributes).map_err(Problem::os(KERNEL))?;
    Ok(tree)
}

/// A file system with nothing but device nodes, attached nowhere. Made for this alone, since the host's own nodes belong
/// to root, and the file system of the jail's root may forbid devices.
pub(super) fn devices(nodes: &[Node], (uid, gid): Owner) -> Result<OwnedFd, Problem> {
    // Its root, a folder for each node at most, and one to spare.
    let inodes = (2 * nodes.len() + 2).to_string();
    let make = || -> rustix::io::Result<OwnedFd> {
        let system = mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        mount::fsconfig_set_string(&system, "size", DEVICES_SIZE)?;
        mount::fsconfig_set_string(&system, "nr_inodes", &*inodes)?;
        mount::fsconfig_set_string(&system, "mode", "0755")?;
        mount::fsconfig_create(&system)?;
        let folder = mount::fsmount(&system, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        for node in nodes {
            let path = node.device.path();
            if let Some((parent, _)) = path.split_once('/') {
                fs::mkdirat(&folder, parent, Mode::RWXU)?;
                // Past the umask.
                fs::chmodat(&folder, parent, Mode::from_raw_mode(0o755), AtFlags::empty())?;
            }
            let number = fs::makedev(node.major, node.minor);
            fs::mknodat(
                &folder,
                path,
                FileType::CharacterDevice,
                Mode::RUSR | Mode::WUSR,
                number,
            )?;
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            fs::chownat(&folder, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(folder)
    };
    let folder = make().map_err(Problem::os(
        "the kernel needs tmpfs, and the jailer the right to make device nodes",
    ))?;
    sys::restrict_mount(folder.as_fd(), MountAttributes::DEVICES).map_err(Problem::os(KERNEL))?;
    Ok(folder)
}

/// Takes all mounts of this namespace out of propagation.
pub(super) fn make_private() -> Result<(), Problem> {
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount::mount_change("/", flags).map_err(Problem::os("/ has to be a mount point"))
}

/// Attaches the jail's root over the host's, where no path is needed to say so.
pub(super) fn attach_root(root: &OwnedFd) -> Result<(), Problem> {
    mount::move_mount(root, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(Problem::os(KERNEL))
}

/// Attaches a mount on its place in the jail's root.
pub(super) fn attach(mounted: &OwnedFd, root: &OwnedFd, name: &str) -> Result<(), Problem> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = fs::openat(root, name, flags, Mode::empty())
        .map_err(Problem::os("its place was removed; try again"))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    mount::move_mount(mounted, "", &place, "", flags).map_err(Problem::os(KERNEL))
}

/// Makes the attached root the root and the working directory of this thread. The host's root is mounted over it until
/// [`detach_host`].
pub(super) fn enter(root: &OwnedFd) -> Result<(), Problem> {
    let remedy = "the host's root must not be its initial RAM disk";
    process::fchdir(root).map_err(Problem::os(remedy))?;
    // The old root is put on the new one's own place, from where it can be taken away (pivot_root(2), NOTES).
    process::pivot_root(".", ".").map_err(Problem::os(remedy))
}

/// Lets go of the host's root with all that is mounted there, for all who are in this namespace.
pub(super) fn detach_host() -> Result<(), Problem> {
    mount::unmount(".", UnmountFlags::DETACH).map_err(Problem::os("report this"))
}
