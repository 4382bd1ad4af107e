//! Control groups: `secovia.slice/ID` in the version 2 hierarchy, where the host has one with the controllers.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::place::entries;
use crate::records::VmId;

/// Where the hierarchy is mounted.
const MOUNT: &str = "/sys/fs/cgroup";

/// The group that all VMs are in; what is outside of it is the owner's.
const SLICE: &str = "secovia.slice";

const CONTROLLERS: [&str; 2] = ["cpu", "memory"];

/// What the VMM needs beyond guest memory: itself, the kernel's page tables for the guest, the page cache of its disks.
const OVERHEAD_BYTES: u64 = 64 << 20;

/// The host's control groups for VMs, or none.
#[derive(Debug)]
pub struct Cgroups {
    slice: Option<PathBuf>,
}

/// What a VM may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// vCPUs: they weigh when the CPUs are scarce.
    pub cpus: u8,
    /// Guest memory.
    pub memory_mib: u64,
}

impl Cgroups {
    /// Looks what the host has.
    pub fn detect() -> Self {
        Self::at(Path::new(MOUNT))
    }

    /// The same, with the hierarchy mounted at `mount`.
    pub(super) fn at(mount: &Path) -> Self {
        match prepare(mount) {
            Ok(slice) => Self { slice: Some(slice) },
            Err(reason) => {
                log::debug!("VMs run without control groups: {reason}");
                Self { slice: None }
            }
        }
    }

    /// Makes the group of a VM. Returns the file that a process joins by, or none where there are no groups.
    pub(super) fn create(&self, id: VmId, limits: Limits) -> Option<File> {
        let group = self.group(id)?;
        let make = || -> io::Result<File> {
            match fs::create_dir(&group) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            let memory = (limits.memory_mib << 20).saturating_add(OVERHEAD_BYTES);
            fs::write(group.join("memory.max"), memory.to_string())?;
            let weight = (u64::from(limits.cpus) * 100).clamp(1, 10_000);
            fs::write(group.join("cpu.weight"), weight.to_string())?;
            OpenOptions::new().write(true).open(group.join("cgroup.procs"))
        };
        match make() {
            Ok(procs) => Some(procs),
            Err(error) => {
                log::warn!(
                    "control group {}: {error}; the VM runs without it",
                    group.display()
                );
                self.remove(id);
                None
            }
        }
    }

    /// Removes the group of a VM whose processes are gone or about to be.
    pub fn remove(&self, id: VmId) {
        let Some(group) = self.group(id) else {
            return;
        };
        // The kernel takes a moment to let go of a group whose last process was reaped.
        for _ in 0..50 {
            match fs::remove_dir(&group) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    thread::sleep(Duration::from_millis(2));
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    log::warn!("remove control group {}: {error}", group.display());
                    return;
                }
                _ => return,
            }
        }
        log::warn!("control group {} stays: it has processes", group.display());
    }

    /// The VMs that have a group.
    pub fn list(&self) -> Vec<VmId> {
        self.slice
            .as_deref()
            .and_then(|slice| entries(slice).ok())
            .unwrap_or_default()
    }

    fn group(&self, id: VmId) -> Option<PathBuf> {
        Some(self.slice.as_ref()?.join(id.to_string()))
    }
}

/// Makes the slice and hands the controllers down to it.
fn prepare(mount: &Path) -> Result<PathBuf, String> {
    let controllers = mount.join("cgroup.controllers");
    let has =
        fs::read_to_string(&controllers).map_err(|error| format!("{}: {error}", controllers.display()))?;
    for controller in CONTROLLERS {
        if !has.split_whitespace().any(|word| word == controller) {
            return Err(format!("{} lacks `{controller}`", controllers.display()));
        }
    }
    let enable = |group: &Path| {
        let control = group.join("cgroup.subtree_control");
        let words: Vec<String> = CONTROLLERS.iter().map(|name| format!("+{name}")).collect();
        fs::write(&control, words.join(" ")).map_err(|error| format!("{}: {error}", control.display()))
    };
    enable(mount)?;
    let slice = mount.join(SLICE);
    match fs::create_dir(&slice) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(format!("{}: {error}", slice.display()));
        }
        _ => {}
    }
    enable(&slice)?;
    Ok(slice)
}
