//! Parts of a specification by themselves, for whoever puts one together piece by piece.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secovia_devices::virtio::balloon::BalloonConfig;
use secovia_vmm_api::{BalloonSpec, BootSourceSpec, HugePages, MachineSpec, VmSpec, VsockSpec};

use super::error::{ConfigError, FileFault};
use super::{cpu, drives, hotplug, mmds, networks, pmem};
use crate::boot::BootConfig;
use crate::cpuid::Topology;
use crate::layout;

/// The most vCPUs that a machine can have.
pub const MAX_VCPUS: u8 = 32;
/// The least memory in which a kernel of today boots, in MiB.
pub const MIN_MEMORY_MIB: u64 = 64;
/// The command line where none is given: a console, and no machine that hangs after a panic.
pub const DEFAULT_BOOT_ARGS: &str = "console=ttyS0 panic=1";
/// The longest path of a Unix socket, with its terminating zero.
const SOCKET_PATH_MAX: usize = 108;

/// A socket device that can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VsockConfig {
    /// The guest's address.
    pub cid: u64,
    /// Where its Unix socket comes to be.
    pub path: PathBuf,
}

/// A part of a specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What boots.
    BootSource,
    /// vCPUs and memory, and what depends on them.
    Machine,
    /// Disks.
    Drives,
    /// Disks that are memory to the guest.
    Pmem,
    /// Network interfaces.
    Networks,
    /// Memory that can be added.
    Hotplug,
    /// The balloon.
    Balloon,
    /// The socket device.
    Vsock,
    /// The entropy device.
    Entropy,
    /// The serial console.
    Serial,
    /// The metadata service.
    Mmds,
    /// How the processors differ from the host's.
    Cpu,
}

impl Part {
    /// Checks this part of `spec` as [`VmConfig::new`](super::VmConfig::new) does, whether or not the other parts are there yet.
    pub fn check(self, spec: &VmSpec, host_memory: u64) -> Result<(), ConfigError> {
        device_count(spec)?;
        match self {
            Self::BootSource => match spec.boot_source.clone() {
                Some(source) => boot(source, None).map(drop),
                None => Err(ConfigError::NoBootSource),
            },
            Self::Machine | Self::Hotplug | Self::Balloon => {
                drives::owner(spec)?;
                let (_, memory) = machine(&spec.machine_config, host_memory)?;
                let huge_pages = spec.machine_config.huge_pages;
                if let Some(spec) = spec.memory_hotplug {
                    hotplug::check(spec, huge_pages, memory, host_memory)?;
                }
                spec.balloon
                    .map_or(Ok(()), |spec| balloon(spec, huge_pages, memory).map(drop))
            }
            Self::Drives => {
                drives::owner(spec)?;
                drives::one_root(spec)?;
                drives::check(spec.drives.clone()).map(drop)
            }
            Self::Pmem => {
                drives::one_root(spec)?;
                pmem::check(spec.pmem.clone()).map(drop)
            }
            Self::Cpu => spec
                .cpu_config
                .as_ref()
                .map_or(Ok(()), |config| cpu::check(config).map(drop)),
            Self::Mmds => match spec.mmds_config.clone() {
                Some(config) => mmds::check(config, &spec.network_interfaces).map(drop),
                None => Ok(()),
            },
            Self::Networks => networks::check(spec.network_interfaces.clone()).map(drop),
            Self::Vsock => spec.vsock.clone().map_or(Ok(()), |spec| vsock(spec).map(drop)),
            Self::Entropy | Self::Serial => Ok(()),
        }
    }
}

/// All devices must fit.
pub(super) fn device_count(spec: &VmSpec) -> Result<(), ConfigError> {
    let count = spec.drives.len()
        + spec.pmem.len()
        + spec.network_interfaces.len()
        + usize::from(spec.memory_hotplug.is_some())
        + usize::from(spec.balloon.is_some())
        + usize::from(spec.vsock.is_some())
        + usize::from(spec.entropy.is_some());
    if count > layout::VIRTIO_MAX {
        return Err(ConfigError::TooManyDevices {
            count,
            max: layout::VIRTIO_MAX,
        });
    }
    Ok(())
}

pub(super) fn machine(spec: &MachineSpec, host_memory: u64) -> Result<(Topology, u64), ConfigError> {
    let not_yet = |field, remedy| {
        Err(ConfigError::NotYet {
            field: format!("machine-config.{field}"),
            remedy,
        })
    };
    if spec.track_dirty_pages {
        return not_yet("track_dirty_pages", "give false, or leave it out");
    }
    if spec.cpu_template.as_deref().is_some_and(|name| name != "None") {
        return not_yet("cpu_template", "give \"None\", or leave it out");
    }
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
    if spec.huge_pages == HugePages::TwoMebibytes && !mib.is_multiple_of(2) {
        return Err(ConfigError::OddMemory { mib });
    }
    Ok((Topology::new(vcpus, spec.smt), mib << 20))
}

pub(super) fn boot(spec: BootSourceSpec, root_args: Option<&str>) -> Result<BootConfig, ConfigError> {
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
    // A FIFO would otherwise wait for its other end. Files do not care.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    let file = file.map_err(|error| fault(FileFault::Open(error)))?;
    let metadata = file.metadata().map_err(|error| fault(FileFault::Open(error)))?;
    if metadata.is_file() {
        Ok(file)
    } else {
        Err(fault(FileFault::NotAFile))
    }
}

pub(super) fn balloon(
    spec: BalloonSpec,
    huge_pages: HugePages,
    memory: u64,
) -> Result<BalloonConfig, ConfigError> {
    if huge_pages == HugePages::TwoMebibytes {
        return Err(ConfigError::BalloonOfHugePages);
    }
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
        hinting: spec.free_page_hinting,
        reporting: spec.free_page_reporting,
    })
}

pub(super) fn vsock(spec: VsockSpec) -> Result<VsockConfig, ConfigError> {
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
