//! The virtio devices of a machine: which there are, in which order, and where. A new kind of device joins here.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use secovia_devices::virtio::block::{Block, BlockConfig};
use secovia_devices::virtio::device::VirtioDevice;
use secovia_devices::virtio::rng::Rng;
use secovia_devices::virtio::vsock::Vsock;

use super::error::MachineError;
use crate::acpi::VirtioSlot;
use crate::config::VsockConfig;
use crate::confine::Right;
use crate::layout;

/// One virtio device, as configured.
#[derive(Debug)]
pub(super) enum Item {
    /// A disk.
    Disk(BlockConfig),
    /// The socket device.
    Vsock(VsockConfig),
    /// The entropy device.
    Entropy,
}

/// All devices, disks first, so that their order is that of their names in the guest.
pub(super) fn list(disks: Vec<BlockConfig>, vsock: Option<VsockConfig>, entropy: bool) -> Vec<Item> {
    let disks = disks.into_iter().map(Item::Disk);
    let others = vsock
        .map(Item::Vsock)
        .into_iter()
        .chain(entropy.then_some(Item::Entropy));
    disks.chain(others).collect()
}

/// The place of the device at `index` of the list.
pub(super) fn slot(index: usize) -> VirtioSlot {
    VirtioSlot {
        address: layout::VIRTIO + index as u64 * layout::VIRTIO_SIZE,
        pin: layout::VIRTIO_PIN + index as u8,
    }
}

impl Item {
    /// The files that [`Self::open`] opens and the device uses later.
    pub(super) fn rights(&self) -> Option<Right> {
        match self {
            Self::Disk(config) if config.read_only => Some(Right::Read(config.path.clone())),
            Self::Disk(config) => Some(Right::Write(config.path.clone())),
            // Also those of the host's services, which lie beside it.
            Self::Vsock(config) => config.path.parent().map(|folder| Right::Sockets(folder.into())),
            Self::Entropy => None,
        }
    }

    /// Opens what the device stands on in the host.
    pub(super) fn open(&self) -> Result<Box<dyn VirtioDevice>, MachineError> {
        match self {
            Self::Disk(config) => match Block::open(config) {
                Ok(block) => Ok(Box::new(block)),
                Err(error) => Err(device(format!("drives.{}.path_on_host", config.id), &error)),
            },
            Self::Vsock(config) => match Vsock::new(config.cid, &config.path) {
                Ok(vsock) => {
                    allow_descriptors();
                    Ok(Box::new(vsock))
                }
                Err(error) => Err(device("vsock.uds_path".into(), &error)),
            },
            Self::Entropy => Ok(Box::new(Rng::new())),
        }
    }
}

/// Takes all the descriptors that the process may have: each stream of the socket device is one, and the usual soft limit
/// of 1024 is less than its streams.
fn allow_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        log::debug!("raise the limit of open files: {error}");
    }
}

/// A device's error with all its causes in one line.
fn device(field: String, error: &dyn std::error::Error) -> MachineError {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !reason.contains(&text) {
            reason.push_str(": ");
            reason.push_str(&text);
        }
        cause = error.source();
    }
    MachineError::Device { field, reason }
}
