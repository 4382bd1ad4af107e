//! From the configuration as it is written to one that holds. Nothing below this module sees a [`VmSpec`].

mod drives;
mod error;
mod file;
mod limits;
mod networks;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secovia_devices::limiter::LimiterConfig;
use secovia_devices::virtio::balloon::BalloonConfig;
use secovia_devices::virtio::block::BlockConfig;
use secovia_devices::virtio::net::NetConfig;
use secovia_vmm_api::{BalloonSpec, BootSourceSpec, MachineSpec, VmSpec, VsockSpec};

use crate::boot::BootConfig;
use crate::cpuid::Topology;
use crate::layout;

pub use error::ConfigError;
pub use file::read;

/// The most vCPUs that a machine can have.
pub const MAX_VCPUS: u8 = 32;
/// The least memory in which a kernel of today boots, in MiB.
pub const MIN_MEMORY_MIB: u64 = 64;
/// The command line where none is given: a console, and no machine that hangs after a panic.
pub const DEFAULT_BOOT_ARGS: &str = "console=ttyS0 panic=1";
/// The longest path of a Unix socket, with its terminating zero.
const SOCKET_PATH_MAX: usize = 108;

/// A machine that can be built.
#[derive(Debug)]
pub struct VmConfig {
    /// How many vCPUs, and how they are arranged.
    pub topology: Topology,
    /// Guest memory in bytes.
    pub memory: u64,
    /// What boots.
    pub boot: BootConfig,
    /// Disks, the root device first.
    pub disks: Vec<BlockConfig>,
    /// Network interfaces.
    pub networks: Vec<NetConfig>,
    /// The balloon.
    pub balloon: Option<BalloonConfig>,
    /// The socket device.
    pub vsock: Option<VsockConfig>,
    /// The entropy device, and its limit.
    pub entropy: Option<LimiterConfig>,
}

/// A socket device that can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VsockConfig {
    /// The guest's address.
    pub cid: u64,
    /// Where its Unix socket comes to be.
    pub path: PathBuf,
}

impl VmConfig {
    /// Checks a specification against itself and against this host, whose memory is `host_memory` bytes.
    pub fn new(spec: VmSpec, host_memory: u64) -> Result<Self, ConfigError> {
        let (topology, memory) = machine(&spec.machine_config, host_memory)?;
        let devices = spec.drives.len()
            + spec.network_interfaces.len()
            + usize::from(spec.balloon.is_some())
            + usize::from(spec.vsock.is_some())
            + usize::from(spec.entropy.is_some());
        if devices > layout::VIRTIO_MAX {
            return Err(ConfigError::TooManyDevices {
                count: devices,
                max: layout::VIRTIO_MAX,
            });
        }
        let drives = drives::check(spec.drives)?;
        let boot = boot(spec.boot_source, drives.root_args.as_deref())?;
        let balloon = spec.balloon.map(|spec| balloon(spec, memory)).transpose()?;
        let vsock = spec.vsock.map(vsock).transpose()?;
        Ok(Self {
            topology,
            memory,
            boot,
            disks: drives.disks,
            networks: networks::check(spec.network_interfaces)?,
            balloon,
            vsock,
            entropy: spec.entropy.map(|spec| limits::limit(spec.rate_limiter)),
        })
    }
}

fn machine(spec: &MachineSpec, host_memory: u64) -> Result<(Topology, u64), ConfigError> {
    let vcpus = spec.vcpu_count;
    if !(1..=MAX_VCPUS).contains(&vcpus) {
        return Err(ConfigError::VcpuCount {
            count: vcpus,
            max: MAX_VCPUS,
        });
    }
    if spec.smt && vcpus > 1 && !vcpus.is_multiple_of(2) {
        return Err(ConfigError::OddThreads { count: vcpus });
    }
    let mib = spec.mem_size_mib;
    let host_mib = host_memory >> 20;
    if mib < MIN_MEMORY_MIB {
        return Err(ConfigError::TooLittleMemory {
            mib,
            min: MIN_MEMORY_MIB,
        });
    }
    if mib > host_mib {
        return Err(ConfigError::TooMuchMemory { mib, host_mib });
    }
    Ok((Topology::new(vcpus, spec.smt), mib << 20))
}

fn boot(spec: BootSourceSpec, root_args: Option<&str>) -> Result<BootConfig, ConfigError> {
    let kernel = open("boot-source.kernel_image_path", &spec.kernel_image_path)?;
    let initrd = match spec.initrd_path {
        Some(path) => Some((open("boot-source.initrd_path", &path)?, path)),
        None => None,
    };
    let mut command_line = spec.boot_args.unwrap_or_else(|| DEFAULT_BOOT_ARGS.into());
    if let Some(root) = root_args {
        command_line.push(' ');
        command_line.push_str(root);
    }
    if command_line.contains(['\0', '\n']) {
        return Err(ConfigError::BootArgsCharacter);
    }
    if command_line.len() >= layout::COMMAND_LINE_MAX {
        return Err(ConfigError::BootArgsLength {
            length: command_line.len(),
            max: layout::COMMAND_LINE_MAX - 1,
        });
    }
    Ok(BootConfig {
        kernel,
        kernel_path: spec.kernel_image_path,
        initrd,
        command_line,
    })
}

/// Opens a file that is to be read whole.
fn open(field: &'static str, path: &Path) -> Result<File, ConfigError> {
    let fault = |fault| ConfigError::File {
        field: field.into(),
        path: path.into(),
        fault,
    };
    let file = File::open(path).map_err(|error| fault(error::FileFault::Open(error)))?;
    let metadata = file
        .metadata()
        .map_err(|error| fault(error::FileFault::Open(error)))?;
    if metadata.is_file() {
        Ok(file)
    } else {
        Err(fault(error::FileFault::NotAFile))
    }
}

fn balloon(spec: BalloonSpec, memory: u64) -> Result<BalloonConfig, ConfigError> {
    let mib = spec.amount_mib;
    let memory_mib = memory >> 20;
    if u64::from(mib) > memory_mib {
        return Err(ConfigError::LargeBalloon { mib, memory_mib });
    }
    let interval = spec.stats_polling_interval_s;
    Ok(BalloonConfig {
        // 256 pages of 4 KiB. More than 2^32 of them no host has.
        pages: mib.saturating_mul(256),
        deflate_on_oom: spec.deflate_on_oom,
        statistics_interval: (interval > 0).then(|| Duration::from_secs(interval.into())),
        reporting: spec.free_page_reporting,
    })
}

fn vsock(spec: VsockSpec) -> Result<VsockConfig, ConfigError> {
    let cid = spec.guest_cid;
    if !(3..u32::MAX).contains(&cid) {
        return Err(ConfigError::ReservedCid { cid });
    }
    let path = spec.uds_path;
    let length = path.as_os_str().as_bytes().len();
    if length == 0 || length >= SOCKET_PATH_MAX {
        return Err(ConfigError::SocketPathLength {
            path,
            max: SOCKET_PATH_MAX - 1,
        });
    }
    if path.symlink_metadata().is_ok() {
        return Err(ConfigError::SocketExists { path });
    }
    Ok(VsockConfig {
        cid: cid.into(),
        path,
    })
}
