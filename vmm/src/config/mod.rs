//! From the configuration as it is written to one that holds. Nothing below this module sees a [`VmSpec`].

mod cpu;
mod drives;
mod error;
mod file;
mod hotplug;
mod limits;
mod mmds;
mod networks;
mod parts;
mod pmem;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use secovia_devices::limiter::{BucketConfig, LimiterConfig};
use secovia_devices::virtio::balloon::BalloonConfig;
use secovia_devices::virtio::block::BlockConfig;
use secovia_devices::virtio::mem::MemConfig;
use secovia_devices::virtio::net::NetConfig;
use secovia_vmm_api::{DriveSpec, HugePages, VmSpec};

use crate::boot::BootConfig;
use crate::cpuid::{Template, Topology};
use crate::memory::{Owner, Pages};

pub use drives::DiskConfig;
pub use error::ConfigError;
pub use file::read;
pub use hotplug::requested;
pub use limits::{change, limit};
pub use mmds::MmdsConfig;
pub use parts::{DEFAULT_BOOT_ARGS, MAX_VCPUS, MIN_MEMORY_MIB, Part, VsockConfig};

/// Where the serial console's output goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsoleConfig {
    /// A file or FIFO, if it does not go to standard output.
    pub path: Option<PathBuf>,
    /// How many bytes of it, if not all.
    pub limit: Option<BucketConfig>,
}

/// A machine that can be built.
#[derive(Debug)]
pub struct VmConfig {
    /// How many vCPUs, and how they are arranged.
    pub topology: Topology,
    /// How they differ from the host's.
    pub template: Template,
    /// Guest memory in bytes.
    pub memory: u64,
    /// Of which pages it is made.
    pub pages: Pages,
    /// Who else has it.
    pub owner: Owner,
    /// Memory that can be added.
    pub hotplug: Option<MemConfig>,
    /// What boots.
    pub boot: BootConfig,
    /// Disks, the root device first.
    pub disks: Vec<DiskConfig>,
    /// Disks that are memory to the guest, the root device first.
    pub pmem: Vec<BlockConfig>,
    /// Network interfaces.
    pub networks: Vec<NetConfig>,
    /// The metadata service on some of them.
    pub mmds: Option<MmdsConfig>,
    /// The balloon.
    pub balloon: Option<BalloonConfig>,
    /// The socket device.
    pub vsock: Option<VsockConfig>,
    /// The entropy device, and its limit.
    pub entropy: Option<LimiterConfig>,
    /// The serial console's output.
    pub console: ConsoleConfig,
}

impl VmConfig {
    /// Checks a specification against itself and against this host, whose memory is `host_memory` bytes.
    pub fn new(spec: VmSpec, host_memory: u64) -> Result<Self, ConfigError> {
        let (topology, memory) = parts::machine(&spec.machine_config, host_memory)?;
        parts::device_count(&spec)?;
        let pages = match spec.machine_config.huge_pages {
            HugePages::None => Pages::Any,
            HugePages::Transparent => Pages::Huge,
            HugePages::TwoMebibytes => Pages::Pool,
        };
        let owner = drives::owner(&spec)?;
        drives::one_root(&spec)?;
        let pmem = pmem::check(spec.pmem)?;
        let drives = drives::check(spec.drives)?;
        let boot_source = spec.boot_source.ok_or(ConfigError::NoBootSource)?;
        let boot = parts::boot(boot_source, drives.root_args.or(pmem.root_args).as_deref())?;
        let balloon = spec
            .balloon
            .map(|balloon| parts::balloon(balloon, spec.machine_config.huge_pages, memory))
            .transpose()?;
        let hotplug = spec
            .memory_hotplug
            .map(|hotplug| hotplug::check(hotplug, spec.machine_config.huge_pages, memory, host_memory))
            .transpose()?;
        let networks = &spec.network_interfaces;
        let mmds = spec
            .mmds_config
            .map(|spec| mmds::check(spec, networks))
            .transpose()?;
        let vsock = spec.vsock.map(parts::vsock).transpose()?;
        let template = spec.cpu_config.as_ref().map(cpu::check).transpose()?;
        Ok(Self {
            topology,
            template: template.unwrap_or_default(),
            memory,
            pages,
            owner,
            hotplug,
            boot,
            disks: drives.disks,
            pmem: pmem.disks,
            mmds,
            networks: networks::check(spec.network_interfaces)?,
            balloon,
            vsock,
            entropy: spec.entropy.map(|spec| limits::limit(spec.rate_limiter)),
            console: spec
                .serial
                .map_or_else(ConsoleConfig::default, |spec| ConsoleConfig {
                    path: spec.serial_out_path,
                    limit: spec.rate_limiter.map(limits::bucket),
                }),
        })
    }

    /// A drive that is a file as its device takes it, for one that is opened while the machine runs.
    pub fn disk(spec: DriveSpec) -> BlockConfig {
        drives::disk(spec)
    }
}
