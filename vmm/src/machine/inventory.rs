//! The virtio devices of a machine: which there are, in which order, and where. A new kind of device joins here.

use std::mem;
use std::net::Ipv4Addr;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use secovia_devices::limiter::LimiterConfig;
use secovia_devices::published::Published;
use secovia_devices::virtio::balloon::{Balloon, BalloonConfig, BalloonHandle};
use secovia_devices::virtio::block::{Block, BlockConfig, BlockHandle};
use secovia_devices::virtio::device::VirtioDevice;
use secovia_devices::virtio::mem::{Mem, MemConfig, MemHandle};
use secovia_devices::virtio::net::{Net, NetConfig, NetHandle};
use secovia_devices::virtio::pmem::{Pmem, PmemCounters};
use secovia_devices::virtio::rng::{Rng, RngHandle};
use secovia_devices::virtio::vhost_user::{VhostUserBlock, VhostUserConfig, VhostUserHandle};
use secovia_devices::virtio::vsock::{Vsock, VsockCounters};

use super::error::MachineError;
use crate::acpi::VirtioSlot;
use crate::config::{DiskConfig, VmConfig, VsockConfig};
use crate::confine::Right;
use crate::layout;
use crate::memory::{GiveBack, Owner, Windows};
use crate::mmds::{Endpoint, SharedMmds};

/// The MTU of an interface that has none of its own.
const USUAL_MTU: u16 = 1500;

/// A device, open, and what the machine keeps of it.
pub(super) struct Opened {
    pub(super) device: Box<dyn VirtioDevice>,
    pub(super) control: Control,
}

/// The machine's end of a device: what can be changed while it works, and what it counts.
#[derive(Debug)]
pub(super) enum Control {
    /// A disk, with its name.
    Disk(String, BlockHandle),
    /// A disk that another process serves, with its name.
    Backend(String, VhostUserHandle),
    /// A disk that is memory, with its name.
    Memory(String, Published<PmemCounters>),
    /// A network interface, with its name.
    Network(String, NetHandle),
    /// Memory that can be added.
    Hotplug(MemHandle),
    /// The balloon.
    Balloon(BalloonHandle),
    /// The socket device.
    Vsock(Published<VsockCounters>),
    /// The entropy device.
    Entropy(RngHandle),
}

/// One virtio device, as configured.
#[derive(Debug)]
pub(super) enum Item {
    /// A disk.
    Disk(BlockConfig),
    /// A disk that another process serves.
    Backend(VhostUserConfig),
    /// A disk that is memory to the guest.
    Memory(BlockConfig),
    /// A network interface, and the address of the metadata service on it.
    Network(NetConfig, Option<Ipv4Addr>),
    /// Memory that can be added.
    Hotplug(MemConfig),
    /// The balloon.
    Balloon(BalloonConfig),
    /// The socket device.
    Vsock(VsockConfig),
    /// The entropy device, with its limit.
    Entropy(LimiterConfig),
}

/// All devices of a configuration, which gives them up; each kind in the order of their names in the guest.
pub(super) fn list(config: &mut VmConfig) -> Vec<Item> {
    let disks = mem::take(&mut config.disks).into_iter().map(|disk| match disk {
        DiskConfig::File(disk) => Item::Disk(disk),
        DiskConfig::Backend(disk) => Item::Backend(disk),
    });
    let memory = mem::take(&mut config.pmem).into_iter().map(Item::Memory);
    let mmds = &config.mmds;
    let network = |network: NetConfig| {
        let mmds = mmds.as_ref().filter(|mmds| mmds.interfaces.contains(&network.id));
        Item::Network(network, mmds.map(|mmds| mmds.address))
    };
    let networks = mem::take(&mut config.networks).into_iter().map(network);
    disks
        .chain(memory)
        .chain(networks)
        .chain(config.hotplug.map(Item::Hotplug))
        .chain(config.balloon.take().map(Item::Balloon))
        .chain(config.vsock.take().map(Item::Vsock))
        .chain(config.entropy.take().map(Item::Entropy))
        .collect()
}

/// The place of the device at `index` of the list.
pub(super) fn slot(index: usize) -> VirtioSlot {
    VirtioSlot {
        address: layout::VIRTIO + index as u64 * layout::VIRTIO_SIZE,
        pin: layout::VIRTIO_PIN + (index % usize::from(layout::VIRTIO_PINS)) as u8,
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
            Self::Network(..) => Some(Right::Device(NetConfig::DRIVER.into())),
            // Nothing is opened later, no connection made.
            Self::Backend(_) | Self::Memory(_) | Self::Hotplug(_) | Self::Balloon(_) | Self::Entropy(_) => {
                None
            }
        }
    }

    /// Opens what the device stands on in the host; `mmds` is the metadata for those that offer it, and among the `windows`
    /// are the files that the guest has in its address space; `owner` is its memory's.
    pub(super) fn open(
        &self,
        mmds: &SharedMmds,
        windows: &mut Windows,
        owner: Owner,
    ) -> Result<Opened, MachineError> {
        match self {
            Self::Disk(config) => match Block::open(config) {
                Ok(block) => {
                    let control = Control::Disk(config.id.clone(), block.handle());
                    Ok(control.of(block))
                }
                Err(error) => Err(device(format!("drives.{}.path_on_host", config.id), &error)),
            },
            Self::Backend(config) => match VhostUserBlock::open(config) {
                Ok(block) => Ok(Control::Backend(config.id.clone(), block.handle()).of(block)),
                Err(error) => Err(device(format!("drives.{}.socket", config.id), &error)),
            },
            Self::Memory(config) => {
                let fault =
                    |error: &dyn std::error::Error| device(format!("pmem.{}.path_on_host", config.id), error);
                let pmem = Pmem::open(config).map_err(|error| fault(&error))?;
                let start = windows
                    .map(pmem.file(), pmem.size(), pmem.length(), config.read_only)
                    .map_err(|error| fault(&error))?;
                let control = Control::Memory(config.id.clone(), pmem.counters());
                Ok(control.of(pmem.placed_at(start)))
            }
            Self::Vsock(config) => match Vsock::new(config.cid, &config.path) {
                Ok(vsock) => {
                    allow_descriptors();
                    Ok(Control::Vsock(vsock.counters()).of(vsock))
                }
                Err(error) => Err(device("vsock.uds_path".into(), &error)),
            },
            Self::Network(config, metadata) => match Net::open(config) {
                Ok(mut net) => {
                    if let Some(address) = metadata {
                        let mtu = config.mtu.unwrap_or(USUAL_MTU);
                        let endpoint = Endpoint::new(*address, mtu, mmds.clone()).map_err(
                            MachineError::host("take a random number for the metadata service"),
                        )?;
                        net = net.with_neighbour(Box::new(endpoint));
                    }
                    let control = Control::Network(config.id.clone(), net.handle());
                    Ok(control.of(net))
                }
                Err(error) => Err(device(
                    format!("network-interfaces.{}.host_dev_name", config.id),
                    &error,
                )),
            },
            Self::Hotplug(config) => match Mem::new(*config, Box::new(GiveBack(owner))) {
                Ok(mem) => Ok(Control::Hotplug(mem.handle()).of(mem)),
                Err(error) => Err(MachineError::host("make an event for memory that can be added")(
                    error,
                )),
            },
            Self::Balloon(config) => match Balloon::new(config, Box::new(GiveBack(owner))) {
                Ok(balloon) => Ok(Control::Balloon(balloon.handle()).of(balloon)),
                Err(error) => Err(MachineError::host("make a timer and an event for the balloon")(
                    error,
                )),
            },
            Self::Entropy(limit) => match Rng::new(limit) {
                Ok(rng) => Ok(Control::Entropy(rng.handle()).of(rng)),
                Err(error) => Err(MachineError::host("make a timer for the entropy device")(error)),
            },
        }
    }
}

impl Control {
    fn of(self, device: impl VirtioDevice + 'static) -> Opened {
        Opened {
            device: Box::new(device),
            control: self,
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
