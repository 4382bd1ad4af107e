//! Disks: names, order, and the root device's arguments.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use secovia_devices::virtio::block::{BlockConfig, Cache, Engine};
use secovia_devices::virtio::vhost_user::VhostUserConfig;
use secovia_vmm_api::{CacheType, DriveSpec, HugePages, IoEngine, VmSpec};

use super::error::{ConfigError, FileFault};
use super::limits::limit;
use crate::memory::Owner;

/// Disks in the guest's order, and what the root device adds to the command line.
pub(super) struct Drives<D> {
    pub(super) disks: Vec<D>,
    pub(super) root_args: Option<String>,
}

/// A disk, and who serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskConfig {
    /// This process, from a file.
    File(BlockConfig),
    /// Another process.
    Backend(VhostUserConfig),
}

/// Checks that no more than one disk of whatever kind is the root device.
pub(super) fn one_root(spec: &VmSpec) -> Result<(), ConfigError> {
    let drives = spec.drives.iter().filter(|drive| drive.is_root_device);
    let pmem = spec.pmem.iter().filter(|pmem| pmem.root_device);
    let mut roots = drives
        .map(|drive| &drive.drive_id)
        .chain(pmem.map(|pmem| &pmem.id));
    match (roots.next(), roots.next()) {
        (Some(first), Some(second)) => Err(ConfigError::TwoRoots {
            first: first.clone(),
            second: second.clone(),
        }),
        _ => Ok(()),
    }
}

/// Who has the guest's memory: backends of disks, too, if there are any.
pub(super) fn owner(spec: &VmSpec) -> Result<Owner, ConfigError> {
    match spec.drives.iter().find(|drive| drive.socket.is_some()) {
        None => Ok(Owner::Us),
        Some(drive) if spec.machine_config.huge_pages == HugePages::TwoMebibytes => {
            Err(ConfigError::SocketOfHugePages {
                id: drive.drive_id.clone(),
            })
        }
        Some(_) => Ok(Owner::Shared),
    }
}

/// Checks the drives. The root device becomes the first, `/dev/vda`; the others keep their order.
pub(super) fn check(mut specs: Vec<DriveSpec>) -> Result<Drives<DiskConfig>, ConfigError> {
    let mut ids = HashSet::new();
    for (index, spec) in specs.iter().enumerate() {
        if spec.drive_id.is_empty() {
            return Err(ConfigError::EmptyDriveId { index });
        }
        if !ids.insert(spec.drive_id.as_str()) {
            return Err(ConfigError::DoubledDriveId {
                id: spec.drive_id.clone(),
            });
        }
        if spec.partuuid.is_some() && !spec.is_root_device {
            return Err(ConfigError::UnusedPartuuid {
                id: spec.drive_id.clone(),
            });
        }
        source(spec)?;
    }
    let root = specs.iter().find(|spec| spec.is_root_device);
    let root_args = root.map(root_args).transpose()?;

    specs.sort_by_key(|spec| !spec.is_root_device);
    let disk = |spec: DriveSpec| match spec.socket.clone() {
        None => DiskConfig::File(disk(spec)),
        Some(socket) => DiskConfig::Backend(VhostUserConfig {
            cache: cache(spec.cache_type),
            id: spec.drive_id,
            socket,
        }),
    };
    let disks = specs.into_iter().map(disk).collect();
    Ok(Drives { disks, root_args })
}

/// Checks that there is either a file or a backend, and nothing with a backend that is the backend's own.
fn source(spec: &DriveSpec) -> Result<(), ConfigError> {
    let id = || spec.drive_id.clone();
    let (path, socket) = match (&spec.path_on_host, &spec.socket) {
        (Some(path), None) => (path, None),
        (None, Some(socket)) => (socket, Some(socket)),
        (Some(_), Some(_)) => return Err(ConfigError::FileAndSocket { id: id() }),
        (None, None) => return Err(ConfigError::NoFile { id: id() }),
    };
    let Some(socket) = socket else {
        return exists(|| format!("drives.{}.path_on_host", spec.drive_id), path);
    };
    let foreign = [
        ("is_read_only", spec.is_read_only),
        ("rate_limiter", spec.rate_limiter.is_some()),
        ("io_engine", spec.io_engine != IoEngine::Sync),
    ];
    if let Some((field, _)) = foreign.into_iter().find(|(_, given)| *given) {
        return Err(ConfigError::BackendsOwn { id: id(), field });
    }
    match fs::metadata(socket) {
        Ok(metadata) if metadata.file_type().is_socket() => Ok(()),
        Ok(_) => Err(FileFault::NotASocket),
        Err(error) => Err(FileFault::Open(error)),
    }
    .map_err(|fault| ConfigError::File {
        field: format!("drives.{}.socket", spec.drive_id),
        path: socket.clone(),
        fault,
    })
}

fn cache(cache: CacheType) -> Cache {
    match cache {
        CacheType::Unsafe => Cache::Unsafe,
        CacheType::Writeback => Cache::Writeback,
    }
}

/// A drive that is a file as its device takes it.
pub(super) fn disk(spec: DriveSpec) -> BlockConfig {
    BlockConfig {
        path: spec.path_on_host.unwrap_or_default(),
        read_only: spec.is_read_only,
        cache: cache(spec.cache_type),
        engine: match spec.io_engine {
            IoEngine::Sync => Engine::Sync,
            IoEngine::Async => Engine::Async,
        },
        id: spec.drive_id,
        limit: limit(spec.rate_limiter),
    }
}

/// Says in the configuration's own words what the device would say later: the file is missing, or is none.
pub(super) fn exists(field: impl FnOnce() -> String, path: &Path) -> Result<(), ConfigError> {
    let fault = match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() || metadata.file_type().is_block_device() => return Ok(()),
        Ok(_) => FileFault::NotADisk,
        Err(error) => FileFault::Open(error),
    };
    Err(ConfigError::File {
        field: field(),
        path: path.into(),
        fault,
    })
}

fn root_args(spec: &DriveSpec) -> Result<String, ConfigError> {
    let mode = if spec.is_read_only { "ro" } else { "rw" };
    match &spec.partuuid {
        None => Ok(format!("root=/dev/vda {mode}")),
        Some(partuuid)
            if !partuuid.is_empty() && partuuid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') =>
        {
            Ok(format!("root=PARTUUID={partuuid} {mode}"))
        }
        Some(partuuid) => Err(ConfigError::BadPartuuid {
            id: spec.drive_id.clone(),
            partuuid: partuuid.clone(),
        }),
    }
}
