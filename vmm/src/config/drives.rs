//! Disks: names, order, and the root device's arguments.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use secovia_devices::virtio::block::{BlockConfig, Cache, Engine};
use secovia_vmm_api::{CacheType, DriveSpec, IoEngine, VmSpec};

use super::error::{ConfigError, FileFault};
use super::limits::limit;

/// Disks in the guest's order, and what the root device adds to the command line.
pub(super) struct Drives {
    pub(super) disks: Vec<BlockConfig>,
    pub(super) root_args: Option<String>,
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

/// Checks the drives. The root device becomes the first, `/dev/vda`; the others keep their order.
pub(super) fn check(mut specs: Vec<DriveSpec>) -> Result<Drives, ConfigError> {
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
        let not_yet = |field, remedy| ConfigError::NotYet {
            field: format!("drives.{}.{field}", spec.drive_id),
            remedy,
        };
        if spec.socket.is_some() {
            return Err(not_yet("socket", "give path_on_host"));
        }
        exists(
            || format!("drives.{}.path_on_host", spec.drive_id),
            &spec.path_on_host,
        )?;
    }
    let root = specs.iter().find(|spec| spec.is_root_device);
    let root_args = root.map(root_args).transpose()?;

    specs.sort_by_key(|spec| !spec.is_root_device);
    let disks = specs.into_iter().map(disk).collect();
    Ok(Drives { disks, root_args })
}

/// A drive as its device takes it.
pub(super) fn disk(spec: DriveSpec) -> BlockConfig {
    BlockConfig {
        path: spec.path_on_host,
        read_only: spec.is_read_only,
        cache: match spec.cache_type {
            CacheType::Unsafe => Cache::Unsafe,
            CacheType::Writeback => Cache::Writeback,
        },
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
