//! Disks that are memory to the guest: names, order, and the root device's arguments.

use std::collections::HashSet;

use secovia_devices::limiter::LimiterConfig;
use secovia_devices::virtio::block::{BlockConfig, Cache, Engine};
use secovia_vmm_api::PmemSpec;

use super::drives::{Drives, exists};
use super::error::ConfigError;

/// Checks them. The root device becomes the first, `/dev/pmem0`; the others keep their order.
pub(super) fn check(mut specs: Vec<PmemSpec>) -> Result<Drives<BlockConfig>, ConfigError> {
    let mut ids = HashSet::new();
    for (index, spec) in specs.iter().enumerate() {
        if spec.id.is_empty() {
            return Err(ConfigError::EmptyPmemId { index });
        }
        if !ids.insert(spec.id.as_str()) {
            return Err(ConfigError::DoubledPmemId { id: spec.id.clone() });
        }
        exists(|| format!("pmem.{}.path_on_host", spec.id), &spec.path_on_host)?;
    }
    specs.sort_by_key(|spec| !spec.root_device);
    let root = specs.first().filter(|spec| spec.root_device);
    let root_args = root.map(|spec| format!("root=/dev/pmem0 {}", if spec.read_only { "ro" } else { "rw" }));
    let disks = specs.into_iter().map(disk).collect();
    Ok(Drives { disks, root_args })
}

fn disk(spec: PmemSpec) -> BlockConfig {
    BlockConfig {
        path: spec.path_on_host,
        read_only: spec.read_only,
        cache: Cache::Writeback,
        engine: Engine::Sync,
        id: spec.id,
        limit: LimiterConfig::default(),
    }
}
