//! The machine as it was asked for, and what follows from one request more. A plain value with plain functions.

use std::path::PathBuf;
use std::time::Duration;

use secovia_devices::limiter::LimiterConfig;
use secovia_devices::virtio::block::Block;
use secovia_vmm_api::{
    ActionType, BalloonSpec, CpuConfig, DrivePatch, DriveSpec, InstanceInfo, InstanceState, IoEngine,
    LoggerSpec, MachinePatch, MemoryHotplugSpec, MemoryHotplugStatus, NetworkInterfacePatch, RateLimiterSpec,
    VersionInfo, VmSpec, VmState,
};
use serde::Serialize;
use serde_json::Value;

use super::reply::{Refusal, Reply, ToOpen};
use super::request::{Kind, NewDisk, Request, Season};
use crate::config::{self, Part, VmConfig};

/// The machine as it was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Its name.
    pub id: String,
    /// What it does.
    pub state: InstanceState,
    /// All that was said about it.
    pub spec: VmSpec,
    /// The host's memory in bytes.
    pub host_memory: u64,
    /// Whether devices are on a PCI bus, and may come and go.
    pub pci: bool,
}

/// What has to be done for a request.
#[derive(Debug)]
pub enum Effect {
    /// Nothing.
    None,
    /// Start the machine that the specification describes.
    Start(Box<VmSpec>),
    /// Hold it still.
    Pause,
    /// Let it go on.
    Resume,
    /// Press the power button.
    PressButton,
    /// Write a line of metrics.
    FlushMetrics,
    /// Tell them, in Prometheus' text form.
    TellMetrics,
    /// Change the log.
    Log(LoggerSpec),
    /// Write metrics to this file.
    Metrics(PathBuf),
    /// Change a drive.
    Drive {
        /// Its name.
        id: String,
        /// Its limits.
        limit: Option<LimiterConfig>,
        /// Its disk.
        disk: Option<NewDisk>,
    },
    /// Have a drive's backend asked how large it is.
    RefreshDrive(String),
    /// Give the machine another drive.
    PlugDrive {
        /// Its name.
        id: String,
        /// The drive.
        block: Box<Block>,
    },
    /// Take a device away.
    Unplug {
        /// What it is.
        kind: Kind,
        /// Its name.
        id: String,
    },
    /// Change an interface's limits.
    Network {
        /// Its name.
        id: String,
        /// What the guest may receive.
        rx: Option<LimiterConfig>,
        /// What the guest may send.
        tx: Option<LimiterConfig>,
    },
    /// Have the guest have so many bytes of the memory that can be added.
    Memory(u64),
    /// Report how much of this memory it has.
    MemoryStatus(MemoryHotplugSpec),
    /// Set the balloon's target, in MiB.
    BalloonTarget(u32),
    /// Ask for statistics so often.
    BalloonInterval(Duration),
    /// Report what the guest says of its memory.
    BalloonStatistics,
    /// Ask the guest for all memory that it does not use; whether it is enough that it has named all.
    StartHinting(bool),
    /// No longer.
    StopHinting,
    /// Report how far that is.
    HintingStatus,
    /// Do something with the metadata. The clerk does it himself: that takes no machine.
    Metadata(Metadata),
}

/// What can be done with the metadata.
#[derive(Debug)]
pub enum Metadata {
    /// Tell all of it.
    Tell,
    /// Replace it.
    Put(Value),
    /// Change it.
    Patch(Value),
}

/// What follows from a request.
#[derive(Debug)]
pub struct Plan {
    /// What has to be done.
    pub effect: Effect,
    /// The machine once it is done.
    pub next: Option<Model>,
    /// The answer then, where the effect brings none of its own.
    pub reply: Reply,
}

impl Plan {
    fn tell(value: &impl Serialize) -> Result<Self, Refusal> {
        let text = serde_json::to_string(value).map_err(|error| Refusal::Failed(error.to_string()))?;
        Ok(Self {
            effect: Effect::None,
            next: None,
            reply: Reply::Json(text),
        })
    }

    fn act(effect: Effect) -> Self {
        Self {
            effect,
            next: None,
            reply: Reply::Done,
        }
    }

    fn then(self, next: Model) -> Self {
        Self {
            next: Some(next),
            ..self
        }
    }
}

impl Model {
    /// A machine of which nothing is known yet, or all that a file said.
    pub fn new(id: String, spec: VmSpec, host_memory: u64, pci: bool) -> Self {
        Self {
            id,
            state: InstanceState::NotStarted,
            spec,
            host_memory,
            pci,
        }
    }

    /// What follows from `request`; nothing is changed.
    pub fn plan(&self, request: Request) -> Result<Plan, Refusal> {
        let request = match (request, self.state) {
            (Request::PutDrive(drive), InstanceState::Running | InstanceState::Paused) if self.pci => {
                return self.new_drive(drive);
            }
            (Request::Unplug(kind, id), _) if !self.pci => return Err(Refusal::no_pci(kind, &id)),
            (request, _) => request,
        };
        match (request.season(), self.state) {
            (Season::Always, _)
            | (Season::BeforeStart, InstanceState::NotStarted)
            | (Season::AfterStart, InstanceState::Running | InstanceState::Paused) => {}
            (Season::BeforeStart | Season::AfterStart, state) => return Err(Refusal::season(state)),
        }
        match request {
            Request::GetInfo => Plan::tell(&InstanceInfo {
                app_name: "Secovia".into(),
                id: self.id.clone(),
                state: self.state,
                vmm_version: env!("CARGO_PKG_VERSION").into(),
            }),
            Request::GetVersion => Plan::tell(&VersionInfo {
                firecracker_version: env!("CARGO_PKG_VERSION").into(),
            }),
            Request::GetConfig => Plan::tell(&self.spec),
            Request::GetMachine => Plan::tell(&self.spec.machine_config),
            Request::GetMemory => self.memory_status(),
            Request::GetBalloon => Plan::tell(self.balloon()?),
            Request::GetBalloonStatistics => {
                self.statistics()?;
                Ok(Plan::act(Effect::BalloonStatistics))
            }
            Request::GetHinting => {
                self.hinting()?;
                Ok(Plan::act(Effect::HintingStatus))
            }
            Request::Action(ActionType::InstanceStart) => {
                Ok(Plan::act(Effect::Start(self.spec.clone().into()))
                    .then(self.with_state(InstanceState::Running)))
            }
            Request::Action(ActionType::SendCtrlAltDel) => Ok(Plan::act(Effect::PressButton)),
            Request::Action(ActionType::FlushMetrics) => Ok(Plan::act(Effect::FlushMetrics)),
            Request::PutBootSource(source) => {
                self.part(Part::BootSource, |spec| spec.boot_source = Some(source))
            }
            Request::PutMachine(machine) => self.part(Part::Machine, |spec| spec.machine_config = machine),
            Request::PatchMachine(patch) => self.patch_machine(patch),
            Request::PutDrive(drive) => self.part(Part::Drives, |spec| {
                put(&mut spec.drives, drive, |drive| &drive.drive_id);
            }),
            Request::PutPmem(pmem) => self.part(Part::Pmem, |spec| {
                put(&mut spec.pmem, pmem, |pmem| &pmem.id);
            }),
            Request::PutNetwork(network) => self.part(Part::Networks, |spec| {
                put(&mut spec.network_interfaces, network, |network| &network.iface_id);
            }),
            Request::PutVsock(vsock) => self.part(Part::Vsock, |spec| spec.vsock = Some(vsock)),
            Request::PutEntropy(entropy) => self.part(Part::Entropy, |spec| spec.entropy = Some(entropy)),
            Request::PutSerial(serial) => self.part(Part::Serial, |spec| spec.serial = Some(serial)),
            Request::PutBalloon(balloon) => self.part(Part::Balloon, |spec| spec.balloon = Some(balloon)),
            Request::PutMemory(memory) => self.part(Part::Hotplug, |spec| spec.memory_hotplug = Some(memory)),
            Request::PatchMemory(patch) => {
                let bytes = config::requested(self.memory()?, patch.requested_size_mib)?;
                Ok(Plan::act(Effect::Memory(bytes)))
            }
            Request::PutCpu(template) => self.part(Part::Cpu, |spec| {
                spec.cpu_config = Some(CpuConfig::Template(template));
            }),
            Request::GetMetrics => Ok(Plan {
                effect: Effect::TellMetrics,
                next: None,
                reply: Reply::Text(String::new()),
            }),
            Request::PutMmdsConfig(config) => self.part(Part::Mmds, |spec| spec.mmds_config = Some(config)),
            Request::GetMmds => Ok(Plan::act(Effect::Metadata(Metadata::Tell))),
            Request::PutMmds(data) => Ok(Plan::act(Effect::Metadata(Metadata::Put(data)))),
            Request::PatchMmds(patch) => Ok(Plan::act(Effect::Metadata(Metadata::Patch(patch)))),
            Request::PutLogger(logger) => {
                let next = self.with(|spec| spec.logger = Some(logger.clone()));
                Ok(Plan::act(Effect::Log(logger)).then(next))
            }
            Request::PutMetrics(metrics) => {
                let path = metrics.metrics_path.clone();
                let next = self.with(|spec| spec.metrics = Some(metrics));
                Ok(Plan::act(Effect::Metrics(path)).then(next))
            }
            Request::PatchDrive(patch, disk) => self.patch_drive(patch, disk),
            Request::PlugDrive(drive, block) => {
                let id = drive.drive_id.clone();
                let next = self.with(|spec| spec.drives.push(drive));
                Ok(Plan::act(Effect::PlugDrive { id, block }).then(next))
            }
            Request::Unplug(kind, id) => self.unplug(kind, id),
            Request::PatchNetwork(patch) => self.patch_network(&patch),
            Request::PatchBalloon(patch) => {
                self.balloon()?;
                let next = self.with(|spec| {
                    spec.balloon
                        .iter_mut()
                        .for_each(|balloon| balloon.amount_mib = patch.amount_mib);
                });
                Part::Balloon.check(&next.spec, self.host_memory)?;
                Ok(Plan::act(Effect::BalloonTarget(patch.amount_mib)).then(next))
            }
            Request::PatchBalloonStatistics(patch) => {
                let seconds = patch.stats_polling_interval_s;
                let balloon = self.balloon()?;
                if (balloon.stats_polling_interval_s == 0) != (seconds == 0) {
                    return Err(Refusal::Statistics);
                }
                let next = self.with(|spec| {
                    spec.balloon
                        .iter_mut()
                        .for_each(|balloon| balloon.stats_polling_interval_s = seconds);
                });
                let effect = match seconds {
                    0 => Effect::None,
                    seconds => Effect::BalloonInterval(Duration::from_secs(seconds.into())),
                };
                Ok(Plan::act(effect).then(next))
            }
            Request::StartHinting(start) => {
                self.hinting()?;
                Ok(Plan::act(Effect::StartHinting(start.acknowledge_on_stop)))
            }
            Request::StopHinting => {
                self.hinting()?;
                Ok(Plan::act(Effect::StopHinting))
            }
            Request::PatchVm(VmState::Paused) => {
                Ok(Plan::act(Effect::Pause).then(self.with_state(InstanceState::Paused)))
            }
            Request::PatchVm(VmState::Resumed) => {
                Ok(Plan::act(Effect::Resume).then(self.with_state(InstanceState::Running)))
            }
        }
    }

    fn with(&self, change: impl FnOnce(&mut VmSpec)) -> Self {
        let mut next = self.clone();
        change(&mut next.spec);
        next
    }

    fn with_state(&self, state: InstanceState) -> Self {
        Self {
            state,
            ..self.clone()
        }
    }

    /// A change of one part, which has to hold by itself.
    fn part(&self, part: Part, change: impl FnOnce(&mut VmSpec)) -> Result<Plan, Refusal> {
        let next = self.with(change);
        part.check(&next.spec, self.host_memory)?;
        Ok(Plan::act(Effect::None).then(next))
    }

    fn patch_machine(&self, patch: MachinePatch) -> Result<Plan, Refusal> {
        if patch == MachinePatch::default() {
            return Err(Refusal::Nothing {
                path: "machine-config",
            });
        }
        self.part(Part::Machine, |spec| {
            let machine = &mut spec.machine_config;
            machine.vcpu_count = patch.vcpu_count.unwrap_or(machine.vcpu_count);
            machine.mem_size_mib = patch.mem_size_mib.unwrap_or(machine.mem_size_mib);
            machine.smt = patch.smt.unwrap_or(machine.smt);
            machine.track_dirty_pages = patch.track_dirty_pages.unwrap_or(machine.track_dirty_pages);
            machine.huge_pages = patch.huge_pages.unwrap_or(machine.huge_pages);
            machine.cpu_template = patch.cpu_template.or(machine.cpu_template.take());
        })
    }

    /// A drive that comes while the machine runs: the API's thread opens it first.
    fn new_drive(&self, drive: DriveSpec) -> Result<Plan, Refusal> {
        let refused = |field: &str, reason| {
            Err(Refusal::Plug {
                field: format!("drives.{}{field}", drive.drive_id),
                reason,
            })
        };
        if self
            .spec
            .drives
            .iter()
            .any(|other| other.drive_id == drive.drive_id)
        {
            return refused("", "this machine has one; DELETE it, or give another name");
        }
        if drive.is_root_device {
            return refused(
                ".is_root_device",
                "the root device is there from the start; give false",
            );
        }
        if drive.socket.is_some() {
            return refused(
                ".socket",
                "memory that a backend can have is made before the start; give path_on_host",
            );
        }
        if drive.io_engine == IoEngine::Async {
            return refused(".io_engine", "rings are made before the start; give Sync");
        }
        // By itself: the other drives' files may have gone since they were opened.
        let alone = VmSpec {
            drives: vec![drive.clone()],
            ..VmSpec::default()
        };
        Part::Drives.check(&alone, self.host_memory)?;
        Ok(Plan {
            effect: Effect::None,
            next: None,
            reply: Reply::Open(Box::new(ToOpen::New {
                config: VmConfig::disk(drive.clone()),
                spec: drive,
            })),
        })
    }

    fn unplug(&self, kind: Kind, id: String) -> Result<Plan, Refusal> {
        let next = self.with(|spec| match kind {
            Kind::Drive => spec.drives.retain(|drive| drive.drive_id != id),
            Kind::Network => spec.network_interfaces.retain(|network| network.iface_id != id),
        });
        if next.spec == self.spec {
            return Err(Refusal::NoDevice {
                field: format!("{}.{id}", kind.resource()),
            });
        }
        Ok(Plan::act(Effect::Unplug { kind, id }).then(next))
    }

    fn patch_drive(&self, patch: DrivePatch, disk: Option<NewDisk>) -> Result<Plan, Refusal> {
        let DrivePatch {
            drive_id: id,
            path_on_host: path,
            rate_limiter: limit,
        } = patch.clone();
        let Some(drive) = self.spec.drives.iter().find(|drive| drive.drive_id == id) else {
            return Err(Refusal::NoDevice {
                field: format!("drives.{id}"),
            });
        };
        match (&drive.socket, path.is_none() && limit.is_none()) {
            (Some(_), true) => return Ok(Plan::act(Effect::RefreshDrive(id))),
            (Some(_), false) => return Err(Refusal::BackendsOwn { id }),
            (None, true) => return Err(Refusal::Nothing { path: "drives" }),
            (None, false) => {}
        }
        let mut new = drive.clone();
        new.path_on_host = path.clone().or(new.path_on_host);
        new.rate_limiter = merge(new.rate_limiter, limit);
        if path.is_some() && disk.is_none() {
            let same = new.path_on_host == drive.path_on_host;
            return Ok(Plan {
                effect: Effect::None,
                next: None,
                reply: Reply::Open(Box::new(ToOpen::Other {
                    config: VmConfig::disk(new),
                    patch,
                    same,
                })),
            });
        }
        let next = self.with(|spec| put(&mut spec.drives, new, |drive| &drive.drive_id));
        let limit = limit.map(config::change);
        Ok(Plan::act(Effect::Drive { id, limit, disk }).then(next))
    }

    fn patch_network(&self, patch: &NetworkInterfacePatch) -> Result<Plan, Refusal> {
        let id = patch.iface_id.clone();
        let (rx, tx) = (patch.rx_rate_limiter, patch.tx_rate_limiter);
        if rx.is_none() && tx.is_none() {
            return Err(Refusal::Nothing {
                path: "network-interfaces",
            });
        }
        let networks = &self.spec.network_interfaces;
        let Some(network) = networks.iter().find(|network| network.iface_id == id) else {
            return Err(Refusal::NoDevice {
                field: format!("network-interfaces.{id}"),
            });
        };
        let mut new = network.clone();
        new.rx_rate_limiter = merge(new.rx_rate_limiter, rx);
        new.tx_rate_limiter = merge(new.tx_rate_limiter, tx);
        let next = self.with(|spec| put(&mut spec.network_interfaces, new, |network| &network.iface_id));
        let (rx, tx) = (rx.map(config::change), tx.map(config::change));
        Ok(Plan::act(Effect::Network { id, rx, tx }).then(next))
    }

    fn memory(&self) -> Result<&MemoryHotplugSpec, Refusal> {
        self.spec
            .memory_hotplug
            .as_ref()
            .ok_or_else(|| Refusal::NoDevice {
                field: "memory-hotplug".into(),
            })
    }

    fn memory_status(&self) -> Result<Plan, Refusal> {
        let spec = *self.memory()?;
        match self.state {
            InstanceState::NotStarted => Plan::tell(&MemoryHotplugStatus {
                total_size_mib: spec.total_size_mib,
                block_size_mib: spec.block_size_mib,
                slot_size_mib: spec.slot_size_mib,
                plugged_size_mib: 0,
                requested_size_mib: 0,
            }),
            InstanceState::Running | InstanceState::Paused => Ok(Plan::act(Effect::MemoryStatus(spec))),
        }
    }

    fn balloon(&self) -> Result<&BalloonSpec, Refusal> {
        self.spec.balloon.as_ref().ok_or_else(|| Refusal::NoDevice {
            field: "balloon".into(),
        })
    }

    fn hinting(&self) -> Result<(), Refusal> {
        match self.balloon()?.free_page_hinting {
            true => Ok(()),
            false => Err(Refusal::NoHinting),
        }
    }

    fn statistics(&self) -> Result<(), Refusal> {
        match self.balloon()?.stats_polling_interval_s {
            0 => Err(Refusal::NoStatistics),
            _ => Ok(()),
        }
    }
}

/// Puts `item` in the place of the one of its name, or behind the others.
fn put<T>(list: &mut Vec<T>, item: T, name: impl Fn(&T) -> &str) {
    match list.iter_mut().find(|other| name(other) == name(&item)) {
        Some(place) => *place = item,
        None => list.push(item),
    }
}

/// Limits after a change: a bucket that is not named stays, one that holds nothing is none.
fn merge(old: Option<RateLimiterSpec>, change: Option<RateLimiterSpec>) -> Option<RateLimiterSpec> {
    let (old, change) = (old.unwrap_or_default(), change.unwrap_or_default());
    let real = |bucket: &secovia_vmm_api::TokenBucketSpec| bucket.size > 0 && bucket.refill_time > 0;
    let merged = RateLimiterSpec {
        bandwidth: change.bandwidth.or(old.bandwidth).filter(real),
        ops: change.ops.or(old.ops).filter(real),
    };
    (merged != RateLimiterSpec::default()).then_some(merged)
}
