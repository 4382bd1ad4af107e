//! What can be asked for, and when.

use secovia_devices::virtio::block::{Block, Disk};
use secovia_vmm_api::{
    ActionType, BalloonHintingStart, BalloonPatch, BalloonSpec, BalloonStatisticsPatch, BootSourceSpec,
    CpuConfigSpec, DrivePatch, DriveSpec, EntropySpec, LoggerSpec, MachinePatch, MachineSpec,
    MemoryHotplugPatch, MemoryHotplugSpec, MetricsSpec, MmdsConfigSpec, NetworkInterfacePatch,
    NetworkInterfaceSpec, PmemSpec, SerialSpec, VmState, VsockSpec,
};
use serde_json::Value;

/// One request, understood but not weighed yet.
#[derive(Debug)]
#[allow(missing_docs, reason = "the names are those of methods and resources")]
pub enum Request {
    GetInfo,
    GetVersion,
    GetConfig,
    GetMachine,
    GetMemory,
    GetBalloon,
    GetBalloonStatistics,
    GetHinting,
    Action(ActionType),
    PutBootSource(BootSourceSpec),
    PutMachine(MachineSpec),
    PatchMachine(MachinePatch),
    PutDrive(DriveSpec),
    /// With the disk, once it is known that it is wanted: it is the API's thread that opens it.
    PatchDrive(DrivePatch, Option<NewDisk>),
    /// A drive that comes while the machine runs, opened by the API's thread.
    PlugDrive(DriveSpec, Box<Block>),
    /// A device that leaves while the machine runs.
    Unplug(Kind, String),
    PutPmem(PmemSpec),
    PutNetwork(NetworkInterfaceSpec),
    PatchNetwork(NetworkInterfacePatch),
    PutVsock(VsockSpec),
    PutEntropy(EntropySpec),
    PutSerial(SerialSpec),
    PutMemory(MemoryHotplugSpec),
    PatchMemory(MemoryHotplugPatch),
    PutBalloon(BalloonSpec),
    PatchBalloon(BalloonPatch),
    PatchBalloonStatistics(BalloonStatisticsPatch),
    StartHinting(BalloonHintingStart),
    StopHinting,
    PutLogger(LoggerSpec),
    PutMetrics(MetricsSpec),
    /// An extension: Firecracker has no such request.
    GetMetrics,
    PutCpu(CpuConfigSpec),
    PutMmdsConfig(MmdsConfigSpec),
    GetMmds,
    PutMmds(Value),
    PatchMmds(Value),
    PatchVm(VmState),
}

/// A kind of device that can leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of resources")]
pub enum Kind {
    Drive,
    Network,
}

impl Kind {
    /// The resource's name.
    pub fn resource(self) -> &'static str {
        match self {
            Self::Drive => "drives",
            Self::Network => "network-interfaces",
        }
    }
}

/// What a drive gets while the machine runs.
#[derive(Debug)]
pub enum NewDisk {
    /// Another disk.
    Other(Disk),
    /// The one that it has, which has so many sectors now.
    Same(u64),
}

/// When a request can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Season {
    /// At any time.
    Always,
    /// Until the machine starts.
    BeforeStart,
    /// Once it has started.
    AfterStart,
}

impl Request {
    /// When it can be served: Firecracker's rules.
    pub fn season(&self) -> Season {
        match self {
            Self::GetInfo
            | Self::GetVersion
            | Self::GetConfig
            | Self::GetMachine
            | Self::GetMemory
            | Self::GetBalloon
            | Self::GetMmds
            | Self::PutMmds(_)
            | Self::PatchMmds(_) => Season::Always,
            Self::Action(ActionType::InstanceStart)
            | Self::PutBootSource(_)
            | Self::PutMachine(_)
            | Self::PatchMachine(_)
            | Self::PutDrive(_)
            | Self::PutPmem(_)
            | Self::PutNetwork(_)
            | Self::PutVsock(_)
            | Self::PutEntropy(_)
            | Self::PutSerial(_)
            | Self::PutMemory(_)
            | Self::PutBalloon(_)
            | Self::PutLogger(_)
            | Self::PutMetrics(_)
            | Self::PutCpu(_)
            | Self::PutMmdsConfig(_) => Season::BeforeStart,
            Self::Action(ActionType::SendCtrlAltDel | ActionType::FlushMetrics)
            | Self::GetBalloonStatistics
            | Self::GetHinting
            | Self::GetMetrics
            | Self::PatchDrive(..)
            | Self::PlugDrive(..)
            | Self::Unplug(..)
            | Self::PatchNetwork(_)
            | Self::PatchMemory(_)
            | Self::PatchBalloon(_)
            | Self::PatchBalloonStatistics(_)
            | Self::StartHinting(_)
            | Self::StopHinting
            | Self::PatchVm(_) => Season::AfterStart,
        }
    }

    /// Method and resource as Firecracker's metrics name them: a group, and what is counted in it.
    pub fn metric(&self) -> (&'static str, &'static str) {
        const GET: &str = "get_api_requests";
        const PUT: &str = "put_api_requests";
        const PATCH: &str = "patch_api_requests";
        const DELETE: &str = "delete_api_requests";
        match self {
            Self::GetInfo => (GET, "instance_info"),
            Self::GetVersion => (GET, "vmm_version"),
            Self::GetConfig => (GET, "vm_config"),
            Self::GetMachine => (GET, "machine_cfg"),
            Self::GetMemory => (GET, "hotplug_memory"),
            Self::GetBalloon => (GET, "balloon"),
            Self::GetBalloonStatistics => (GET, "balloon_stats"),
            Self::GetHinting => (GET, "balloon_hinting"),
            Self::Action(_) => (PUT, "actions"),
            Self::PutBootSource(_) => (PUT, "boot_source"),
            Self::PutMachine(_) => (PUT, "machine_cfg"),
            Self::PatchMachine(_) => (PATCH, "machine_cfg"),
            Self::PutDrive(_) | Self::PlugDrive(..) => (PUT, "drive"),
            Self::Unplug(Kind::Drive, _) => (DELETE, "drive"),
            Self::Unplug(Kind::Network, _) => (DELETE, "network"),
            Self::PatchDrive(..) => (PATCH, "drive"),
            Self::PutPmem(_) => (PUT, "pmem"),
            Self::PutNetwork(_) => (PUT, "network"),
            Self::PatchNetwork(_) => (PATCH, "network"),
            Self::PutVsock(_) => (PUT, "vsock"),
            Self::PutEntropy(_) => (PUT, "entropy"),
            Self::PutSerial(_) => (PUT, "serial"),
            Self::PutMemory(_) => (PUT, "hotplug_memory"),
            Self::PatchMemory(_) => (PATCH, "hotplug_memory"),
            Self::PutBalloon(_) => (PUT, "balloon"),
            Self::PatchBalloon(_) => (PATCH, "balloon"),
            Self::PatchBalloonStatistics(_) => (PATCH, "balloon_stats"),
            Self::StartHinting(_) | Self::StopHinting => (PATCH, "balloon_hinting"),
            Self::PutLogger(_) => (PUT, "logger"),
            Self::PutMetrics(_) => (PUT, "metrics"),
            Self::GetMetrics => (GET, "metrics"),
            Self::PutCpu(_) => (PUT, "cpu_cfg"),
            Self::GetMmds => (GET, "mmds"),
            // One resource to Firecracker's metrics.
            Self::PutMmds(_) | Self::PutMmdsConfig(_) => (PUT, "mmds"),
            Self::PatchMmds(_) => (PATCH, "mmds"),
            Self::PatchVm(_) => (PATCH, "vm"),
        }
    }
}
