//! Control groups: `secovia.slice/ID` in the version 2 hierarchy, where the host has one with the controllers.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::num::NonZero;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::sys::stat::{major, minor};

use super::place::entries;
use super::usage::Usage;
use crate::records::VmId;

/// Where the hierarchy is mounted.
const MOUNT: &str = "/sys/fs/cgroup";

/// The group that all VMs are in; what is outside of it is the owner's.
const SLICE: &str = "secovia.slice";

/// The controllers without which a group does not hold a VM in its bounds.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// The one that is used where it is there.
const IO: &str = "io";

/// What the VMM needs beyond guest memory: itself, the kernel's page tables for the guest, the page cache of its disks.
pub(crate) const OVERHEAD_BYTES: u64 = 64 << 20;

/// Threads and processes beside the vCPUs' threads: the jailer for a moment, the VMM's event loop, its devices' workers.
const TASKS: u64 = 32;

/// The host's control groups for VMs, or none.
#[derive(Debug)]
pub struct Cgroups {
    slice: Option<PathBuf>,
    /// Bandwidth of disks can be bounded.
    io: bool,
}

/// What a VM may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// vCPUs.
    pub cpus: u8,
    /// What the VM weighs when the CPUs are scarce, in thousandths of a CPU.
    pub cpu_millis: u32,
    /// Guest memory.
    pub memory_mib: u64,
    /// Disk bandwidth.
    pub io: IoLimits,
}

/// Bandwidth in bytes a second; none is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IoLimits {
    /// Read from the disk.
    pub read: Option<NonZero<u64>>,
    /// Written to it.
    pub write: Option<NonZero<u64>>,
}

/// Why a VM cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("control group file {path}: {source}; see `secovia doctor`")]
pub struct CgroupError {
    path: PathBuf,
    source: io::Error,
}

impl Cgroups {
    /// Looks what the host has.
    pub fn detect() -> Self {
        Self::at(Path::new(MOUNT))
    }

    /// The same, with the hierarchy mounted at `mount`.
    pub(super) fn at(mount: &Path) -> Self {
        match prepare(mount) {
            Ok((slice, io)) => Self {
                slice: Some(slice),
                io,
            },
            Err(reason) => {
                log::debug!("VMs run without control groups: {reason}");
                Self {
                    slice: None,
                    io: false,
                }
            }
        }
    }

    /// Makes the group of a VM whose disk lies on the file system of `disk`. Returns the file that a process joins by,
    /// or none where the host has no groups. A VM that could not be bound does not run.
    pub(super) fn create(&self, id: VmId, limits: Limits, disk: &Path) -> Result<Option<File>, CgroupError> {
        let Some(group) = self.group(id) else {
            return Ok(None);
        };
        let made = self.make(&group, limits, disk);
        if made.is_err() {
            self.remove(id);
        }
        made.map(Some)
    }

    fn make(&self, group: &Path, limits: Limits, disk: &Path) -> Result<File, CgroupError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| CgroupError { path, source }
        };
        match fs::create_dir(group) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(group)(error)),
            _ => {}
        }
        for (name, value) in settings(limits) {
            let path = group.join(name);
            fs::write(&path, value).map_err(failed(&path))?;
        }
        if limits.io != IoLimits::default() {
            match whole_disk(disk).filter(|_| self.io) {
                Some(device) => {
                    let path = group.join("io.max");
                    fs::write(&path, io_max(&device, limits.io)).map_err(failed(&path))?;
                }
                None => log::warn!(
                    "the disk bandwidth of {} is not bounded: {}",
                    group.display(),
                    if self.io {
                        "its file system lies on no single disk"
                    } else {
                        "the host's control groups lack `io`"
                    }
                ),
            }
        }
        let procs = group.join("cgroup.procs");
        OpenOptions::new()
            .write(true)
            .open(&procs)
            .map_err(failed(&procs))
    }

    /// Removes the group of a VM whose processes are gone or about to be.
    pub fn remove(&self, id: VmId) {
        let Some(group) = self.group(id) else {
            return;
        };
        // Whatever else is in there goes too. Kernels before 5.14 do not have the file; there it is the VMM alone.
        let _ = fs::write(group.join("cgroup.kill"), "1");
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

    /// What the group of a VM has used and holds; none where it has no group.
    pub fn usage(&self, id: VmId) -> Option<Usage> {
        let group = self.group(id)?;
        let read = |name: &str| fs::read_to_string(group.join(name)).ok();
        let (read_bytes, written_bytes) = io_bytes(&read("io.stat").unwrap_or_default());
        Some(Usage {
            cpu_us: value_of(&read("cpu.stat")?, "usage_usec")?,
            memory_bytes: read("memory.current")?.trim().parse().ok()?,
            read_bytes,
            written_bytes,
        })
    }

    /// Stops all processes of a VM where they are, or lets them go on. None where the host has no groups.
    pub fn freeze(&self, id: VmId, on: bool) -> Option<io::Result<()>> {
        let group = self.group(id)?;
        Some(fs::write(group.join("cgroup.freeze"), if on { "1" } else { "0" }))
    }

    /// The group of all VMs' groups, where the host has one.
    pub fn slice(&self) -> Option<&Path> {
        self.slice.as_deref()
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

/// What is written into which file of a group.
fn settings(limits: Limits) -> [(&'static str, String); 4] {
    let memory = (limits.memory_mib << 20).saturating_add(OVERHEAD_BYTES);
    let weight = (limits.cpu_millis / 10).clamp(1, 10_000);
    [
        ("memory.max", memory.to_string()),
        // Where the memory does not do, all of the VM ends, not some part of it.
        ("memory.oom.group", "1".into()),
        ("pids.max", (u64::from(limits.cpus) + TASKS).to_string()),
        ("cpu.weight", weight.to_string()),
    ]
}

/// A line of io.max (Linux, admin-guide/cgroup-v2).
fn io_max(device: &str, limits: IoLimits) -> String {
    let value = |limit: Option<NonZero<u64>>| limit.map_or("max".to_string(), |limit| limit.to_string());
    format!(
        "{device} rbps={} wbps={}",
        value(limits.read),
        value(limits.write)
    )
}

/// The value of a line `KEY VALUE`.
fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
        .and_then(|value| value.trim().parse().ok())
}

/// Bytes read and written, of all disks in io.stat.
fn io_bytes(stat: &str) -> (u64, u64) {
    let sum = |key: &str| {
        stat.split_whitespace()
            .filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok())
            .fold(0, u64::saturating_add)
    };
    (sum("rbytes="), sum("wbytes="))
}

/// The disk, as `MAJOR:MINOR`, that the file system of `path` lies on. Bandwidth is bounded for whole disks only, not for
/// their partitions.
pub(crate) fn whole_disk(path: &Path) -> Option<String> {
    let device = fs::metadata(path).ok()?.dev();
    let number = format!("{}:{}", major(device), minor(device));
    // A file system of several disks, or of none, has a number that no disk has.
    let node = fs::canonicalize(format!("/sys/dev/block/{number}")).ok()?;
    if !node.join("partition").exists() {
        return Some(number);
    }
    let disk = fs::read_to_string(node.parent()?.join("dev")).ok()?;
    Some(disk.trim().to_string())
}

/// Makes the slice and hands the controllers down to it; also tells whether `io` is among them.
fn prepare(mount: &Path) -> Result<(PathBuf, bool), String> {
    let controllers = mount.join("cgroup.controllers");
    let has =
        fs::read_to_string(&controllers).map_err(|error| format!("{}: {error}", controllers.display()))?;
    let has: Vec<&str> = has.split_whitespace().collect();
    if let Some(lacking) = CONTROLLERS.into_iter().find(|name| !has.contains(name)) {
        return Err(format!("{} lacks `{lacking}`", controllers.display()));
    }
    let io = has.contains(&IO);
    let words: Vec<String> = CONTROLLERS
        .into_iter()
        .chain(io.then_some(IO))
        .map(|name| format!("+{name}"))
        .collect();
    let enable = |group: &Path| {
        let control = group.join("cgroup.subtree_control");
        // What is handed down already need not be written, and may not be: systemd's unit lets us write the slice alone.
        let has = fs::read_to_string(&control).unwrap_or_default();
        let has: Vec<String> = has.split_whitespace().map(|name| format!("+{name}")).collect();
        if words.iter().all(|word| has.contains(word)) {
            return Ok(());
        }
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
    Ok((slice, io))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidth_is_written_as_the_kernel_reads_it() {
        let limits = IoLimits {
            read: NonZero::new(1_000),
            write: None,
        };
        assert_eq!(io_max("8:0", limits), "8:0 rbps=1000 wbps=max");
    }

    #[test]
    fn what_was_used_is_read() {
        let stat =
            "8:0 rbytes=10 wbytes=1 rios=1 wios=1 dbytes=0 dios=0\n253:1 rbytes=5 wbytes=2 rios=1 wios=1\n";
        assert_eq!(io_bytes(stat), (15, 3));
        assert_eq!(io_bytes(""), (0, 0));
        let cpu = "usage_usec 12\nuser_usec 7\n";
        assert_eq!(
            (value_of(cpu, "user_usec"), value_of(cpu, "usage")),
            (Some(7), None)
        );
    }

    #[test]
    fn a_file_system_of_no_disk_has_none() {
        assert_eq!(whole_disk(Path::new("/proc")), None);
        let partition = fs::read_dir("/sys/dev/block").unwrap().any(|_| true);
        if let Some(disk) = whole_disk(Path::new("/")) {
            let path = format!("/sys/dev/block/{disk}");
            assert!(
                partition && !Path::new(&path).join("partition").exists(),
                "{path}"
            );
        }
    }
}
