//! `secovia.slice` beside the owner's control groups: what all VMs together weigh and may hold, and what the owner's
//! groups keep.

#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::capacity::ladder::CpuShare;
use crate::capacity::policy::Lending;
use crate::capacity::resources::Amounts;

/// The weight of control groups of version 2, of which each of the owner's groups has 100; none for the idle class.
fn weight(share: CpuShare) -> Option<&'static str> {
    match share {
        CpuShare::Spare => None,
        CpuShare::Least => Some("1"),
        CpuShare::Fair => Some("100"),
        CpuShare::First => Some("10000"),
    }
}

/// The group of all VMs.
#[derive(Debug)]
pub struct Slice {
    path: PathBuf,
    /// The disk that VMs lie on, as `MAJOR:MINOR`, where its bandwidth can be bounded.
    disk: Option<String>,
    /// What was protected last of the memory of each of the owner's groups.
    low: u64,
}

impl Slice {
    /// The group at `path`, whose VMs lie on `disk`.
    pub fn new(path: &Path, disk: Option<String>) -> Self {
        Self {
            path: path.to_path_buf(),
            disk: disk.filter(|_| path.join("io.max").exists()),
            low: 0,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the VMs' I/O can be squeezed.
    pub fn squeezes_io(&self) -> bool {
        self.disk.is_some()
    }

    /// The owner's groups: all beside this one.
    pub fn owners(&self) -> Vec<PathBuf> {
        let beside = self.path.parent().and_then(|mount| fs::read_dir(mount).ok());
        let mut groups: Vec<PathBuf> = beside
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                (path.is_dir() && path != self.path).then_some(path)
            })
            .collect();
        groups.sort();
        groups
    }

    /// Puts the policy into the kernel's hands: VMs never hold the reservation's memory, and what the owner's groups hold
    /// of it is not reclaimed for them. Nothing of it depends on this agent from then on.
    pub fn protect(&mut self, lending: Option<&Lending>, capacity: Amounts) {
        let most = lending.map(|lending| capacity.minus(lending.reserve).min(lending.cap).memory);
        self.set(
            "memory.max",
            &most.map_or_else(|| "max".to_string(), |bytes| bytes.to_string()),
        );
        let low = lending.map_or(0, |lending| lending.reserve.memory);
        // A mount has a group of systemd's that nobody is in.
        let is_peopled = |group: &PathBuf| group.extension().is_none_or(|kind| kind != "mount");
        for group in self.owners().into_iter().filter(is_peopled) {
            protect_memory(&group.join("memory.low"), self.low, low);
        }
        self.low = low;
    }

    /// Gives the VMs this share of the CPUs.
    pub fn share_cpu(&self, share: CpuShare) {
        match weight(share) {
            None => self.set("cpu.idle", "1"),
            // The kernel takes no weight for a group that is idle, and forgets the one it had.
            Some(weight) => {
                self.set("cpu.idle", "0");
                self.set("cpu.weight", weight);
            }
        }
    }

    /// Gives the VMs little I/O (in bytes a second), or as much as they can get again.
    pub fn squeeze_io(&self, on: bool, io_bytes: u64) {
        if let Some(disk) = &self.disk {
            let limit = if on {
                io_bytes.to_string()
            } else {
                "max".to_string()
            };
            self.set("io.max", &format!("{disk} rbps={limit} wbps={limit}"));
        }
    }

    fn set(&self, name: &str, value: &str) {
        let path = self.path.join(name);
        if let Err(error) = fs::write(&path, value) {
            log::warn!("write {value:?} to {}: {error}", path.display());
        }
    }
}

/// Protects `low` where `before` was protected, or less. What others have protected beyond stays.
fn protect_memory(path: &Path, before: u64, low: u64) {
    let protect = || -> io::Result<()> {
        let text = fs::read_to_string(path)?;
        let now = match text.trim() {
            "max" => u64::MAX,
            number => number.parse().unwrap_or(0),
        };
        if now < low || now == before {
            fs::write(path, low.to_string())
        } else {
            Ok(())
        }
    };
    match protect() {
        // A group without the controller cannot be protected: it holds no memory of its own.
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            log::warn!("protect the owner's memory by {}: {error}", path.display());
        }
        _ => {}
    }
}
