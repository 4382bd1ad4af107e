//! What the machine has, and what its owner uses of it: all that is used less what our VMs use.
//!
//! With control groups of version 2, `secovia.slice` tells exactly what is ours. Without them it is added up from the
//! VMM processes; what a VM used between the last look and its end then counts as the owner's, which errs to the owner's
//! side.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use nix::unistd::{SysconfVar, sysconf};

use crate::capacity::resources::Amounts;
use crate::process::{DISK, Usage, entries};
use crate::records::VmId;

/// Why the owner's use cannot be measured.
#[derive(Debug, thiserror::Error)]
#[error("measure {what}: {source}")]
pub struct MeasureError {
    /// What was looked at.
    what: String,
    /// What went wrong.
    source: io::Error,
}

/// Where to look.
#[derive(Debug)]
pub struct Meter {
    proc: PathBuf,
    /// The control group of all VMs, in the version 2 hierarchy.
    slice: Option<PathBuf>,
    /// Below it VMs have their disks.
    states: PathBuf,
    last: Option<Counters>,
}

/// CPU time since the host started.
#[derive(Debug, Clone, Default)]
struct Counters {
    at_ms: u64,
    all_us: u64,
    slice_us: u64,
    vms_us: BTreeMap<u32, u64>,
}

/// What the owner used between two looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// CPU on the average, memory and disk at the second look.
    pub owner: Amounts,
    /// Milliseconds between the looks.
    pub elapsed_ms: u64,
}

impl Meter {
    /// Looks at this host. `slice` is the control group of all VMs, where there is one; `states` is where they have their
    /// lasting files.
    pub fn new(slice: Option<PathBuf>, states: &Path) -> Self {
        Self {
            proc: PathBuf::from("/proc"),
            slice,
            states: states.to_path_buf(),
            last: None,
        }
    }

    /// What the machine has.
    pub fn capacity(&self) -> Result<Amounts, MeasureError> {
        let cpus = sysconf(SysconfVar::_NPROCESSORS_ONLN)
            .ok()
            .flatten()
            .and_then(|cpus| u64::try_from(cpus).ok())
            .unwrap_or(1);
        let memory = self.meminfo("MemTotal:")?;
        let (disk, _) = self.disk()?;
        Ok(Amounts {
            cpu: cpus * 1_000,
            memory,
            disk,
        })
    }

    /// Memory that can be had without swapping.
    pub fn available(&self) -> Result<u64, MeasureError> {
        self.meminfo("MemAvailable:")
    }

    /// What the VMs hold that cannot be dropped; nothing where no control group tells.
    pub fn held(&self) -> Option<u64> {
        slice_memory(self.slice.as_ref()?).ok()
    }

    /// What the owner used since the last look; nothing at the first. `vmms` are the processes of the VMs.
    pub fn sample(&mut self, now_ms: u64, vmms: &[u32]) -> Result<Option<Sample>, MeasureError> {
        let used: BTreeMap<u32, Usage> = match self.slice {
            Some(_) => BTreeMap::new(),
            // One that is gone meanwhile uses nothing.
            None => vmms
                .iter()
                .filter_map(|pid| Some((*pid, Usage::of(*pid).ok()?)))
                .collect(),
        };
        let counters = Counters {
            at_ms: now_ms,
            all_us: self.cpu_of_all()?,
            slice_us: self.slice_cpu()?,
            vms_us: used.iter().map(|(pid, usage)| (*pid, usage.cpu_us)).collect(),
        };
        let memory_of_vms = match &self.slice {
            Some(slice) => slice_memory(slice)?,
            None => used.values().map(|usage| usage.memory_bytes).sum(),
        };
        let memory = self
            .meminfo("MemTotal:")?
            .saturating_sub(self.available()?)
            .saturating_sub(memory_of_vms);
        let (_, disk_used) = self.disk()?;
        let disk = disk_used.saturating_sub(self.vm_disks());
        let last = self.last.replace(counters.clone());
        Ok(last.filter(|last| last.at_ms < now_ms).map(|last| Sample {
            owner: Amounts {
                cpu: owner_cpu(&last, &counters),
                memory,
                disk,
            },
            elapsed_ms: now_ms - last.at_ms,
        }))
    }

    fn read(&self, path: &Path) -> Result<String, MeasureError> {
        fs::read_to_string(path).map_err(|source| MeasureError {
            what: path.display().to_string(),
            source,
        })
    }

    fn meminfo(&self, name: &str) -> Result<u64, MeasureError> {
        let path = self.proc.join("meminfo");
        let text = self.read(&path)?;
        let kib = field(&text, name).ok_or_else(|| no_field(&path, name))?;
        Ok(kib.saturating_mul(1024))
    }

    /// CPU time of everything, guests included, in microseconds.
    fn cpu_of_all(&self) -> Result<u64, MeasureError> {
        let path = self.proc.join("stat");
        let text = self.read(&path)?;
        let ticks_per_second = sysconf(SysconfVar::CLK_TCK)
            .ok()
            .flatten()
            .and_then(|ticks| u64::try_from(ticks).ok())
            .filter(|ticks| *ticks > 0)
            .unwrap_or(100);
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("cpu "))
            .ok_or_else(|| no_field(&path, "cpu"))?;
        let fields: Vec<u64> = line
            .split_whitespace()
            .map_while(|word| word.parse().ok())
            .collect();
        // user, nice, system, (idle, iowait), irq, softirq of proc_stat(5); guests' time is within user's.
        let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|at| fields.get(*at)).sum();
        Ok(busy.saturating_mul(1_000_000 / ticks_per_second))
    }

    fn slice_cpu(&self) -> Result<u64, MeasureError> {
        let Some(slice) = &self.slice else {
            return Ok(0);
        };
        let path = slice.join("cpu.stat");
        let text = self.read(&path)?;
        field(&text, "usage_usec").ok_or_else(|| no_field(&path, "usage_usec"))
    }

    /// Size of the file system that VMs lie on, and how much of it is in use.
    fn disk(&self) -> Result<(u64, u64), MeasureError> {
        let status = statvfs(&self.states).map_err(|errno| MeasureError {
            what: format!("the file system of {}", self.states.display()),
            source: errno.into(),
        })?;
        let total = status.blocks().saturating_mul(status.fragment_size());
        let free = status.blocks_available().saturating_mul(status.fragment_size());
        Ok((total, total.saturating_sub(free)))
    }

    /// What the VMs' disks occupy. One that is just being removed occupies nothing.
    fn vm_disks(&self) -> u64 {
        let disk = |id: VmId| fs::metadata(self.states.join(id.to_string()).join(DISK)).ok();
        let vms = entries(&self.states).unwrap_or_default();
        vms.into_iter()
            .filter_map(disk)
            .map(|metadata| metadata.blocks().saturating_mul(512))
            .sum()
    }
}

/// The owner's CPU time between two looks, in thousandths of a CPU.
fn owner_cpu(last: &Counters, now: &Counters) -> u64 {
    let vms: u64 = now
        .vms_us
        .iter()
        .map(|(pid, us)| us.saturating_sub(last.vms_us.get(pid).copied().unwrap_or(0)))
        .sum();
    let ours = now.slice_us.saturating_sub(last.slice_us).saturating_add(vms);
    let owner_us = now.all_us.saturating_sub(last.all_us).saturating_sub(ours);
    // Microseconds in a millisecond are thousandths of a CPU.
    owner_us / (now.at_ms - last.at_ms).max(1)
}

/// Memory of a control group that cannot be dropped: all but the page cache.
fn slice_memory(slice: &Path) -> Result<u64, MeasureError> {
    let read = |name: &str| {
        let path = slice.join(name);
        fs::read_to_string(&path).map_err(|source| MeasureError {
            what: path.display().to_string(),
            source,
        })
    };
    let current: u64 = read("memory.current")?.trim().parse().unwrap_or(0);
    let stat = read("memory.stat")?;
    let cache: u64 = ["active_file", "inactive_file", "slab_reclaimable"]
        .iter()
        .filter_map(|name| field(&stat, name))
        .sum();
    Ok(current.saturating_sub(cache))
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == name).then(|| words.next()?.parse().ok())?
    })
}

fn no_field(path: &Path, name: &str) -> MeasureError {
    MeasureError {
        what: path.display().to_string(),
        source: io::Error::new(io::ErrorKind::InvalidData, format!("it has no `{name}`")),
    }
}
