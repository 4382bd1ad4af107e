//! What the API takes beside the configuration's own parts, and what it answers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{HugePages, RateLimiterSpec};

/// `PUT /actions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ActionSpec {
    /// What is to be done.
    pub action_type: ActionType,
}

/// What can be done with a machine at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ActionType {
    /// The machine starts.
    InstanceStart,
    /// The power button is pressed, which is what Ctrl+Alt+Del asks a Linux guest for, too.
    SendCtrlAltDel,
    /// A line of metrics is written.
    FlushMetrics,
}

/// `PATCH /machine-config`: what is not given stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the fields are those of MachineSpec")]
pub struct MachinePatch {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpu_count: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem_size_mib: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smt: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub track_dirty_pages: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub huge_pages: Option<HugePages>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_template: Option<String>,
}

/// `PATCH /drives/{id}`, while the machine runs. Of a drive with a `socket` nothing but its name: its backend is asked anew how
/// large it is, and the guest is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DrivePatch {
    /// The drive's name, again.
    pub drive_id: String,
    /// Another file in the place of the one that it has. The same path has its size looked at anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub path_on_host: Option<PathBuf>,
    /// Other limits: a bucket that is not given stays as it is, one of size 0 is no limit any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<RateLimiterSpec>,
}

/// `PATCH /network-interfaces/{id}`, while the machine runs. Limits as in [`DrivePatch`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NetworkInterfacePatch {
    /// The interface's name, again.
    pub iface_id: String,
    /// What the guest may receive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rx_rate_limiter: Option<RateLimiterSpec>,
    /// What the guest may send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx_rate_limiter: Option<RateLimiterSpec>,
}

/// `PATCH /hotplug/memory`, while the machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MemoryHotplugPatch {
    /// How much of it the guest should have, in MiB: a multiple of `block_size_mib`. It follows as far as it can.
    pub requested_size_mib: u64,
}

/// `GET /hotplug/memory`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MemoryHotplugStatus {
    /// As configured, in MiB.
    pub total_size_mib: u64,
    /// As configured, in MiB.
    pub block_size_mib: u64,
    /// As configured, in MiB.
    pub slot_size_mib: u64,
    /// How much of it the guest has, in MiB.
    pub plugged_size_mib: u64,
    /// How much of it the guest should have, in MiB.
    pub requested_size_mib: u64,
}

/// `PATCH /balloon`, while the machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BalloonPatch {
    /// How much the guest gives back to the host, in MiB.
    pub amount_mib: u32,
}

/// `PATCH /balloon/statistics`, while the machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BalloonStatisticsPatch {
    /// How often the guest is asked, in seconds. Statistics that were off at the start stay off, and the other way round.
    pub stats_polling_interval_s: u16,
}

/// `PATCH /balloon/hinting/start`, while the machine runs; it may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BalloonHintingStart {
    /// The guest may use its pages again as soon as it has named all; else by `/balloon/hinting/stop`.
    #[serde(default = "BalloonHintingStart::acknowledge")]
    pub acknowledge_on_stop: bool,
}

impl BalloonHintingStart {
    fn acknowledge() -> bool {
        true
    }
}

impl Default for BalloonHintingStart {
    fn default() -> Self {
        Self {
            acknowledge_on_stop: Self::acknowledge(),
        }
    }
}

/// `GET /balloon/hinting/status`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BalloonHintingStatus {
    /// What the guest was told last: 0 nothing yet, 1 that it may use its pages again, else the number of a round in which
    /// it names those that it does not use.
    pub host_cmd: u32,
    /// What the guest said last: 0 that it has named all, else the number of the round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_cmd: Option<u32>,
}

/// `GET /balloon/statistics`. What the guest did not say is left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BalloonStatisticsReport {
    /// Pages of 4 KiB that the guest should do without.
    pub target_pages: u32,
    /// Pages of 4 KiB that it says it does without.
    pub actual_pages: u32,
    /// The same in MiB.
    pub target_mib: u32,
    /// The same in MiB.
    pub actual_mib: u32,
    /// Bytes swapped in since the guest's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_in: Option<u64>,
    /// Bytes swapped out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_out: Option<u64>,
    /// Page faults that read a disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub major_faults: Option<u64>,
    /// Page faults that did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minor_faults: Option<u64>,
    /// Bytes that nothing uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_memory: Option<u64>,
    /// All memory, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_memory: Option<u64>,
    /// Bytes that programs can have without swapping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_memory: Option<u64>,
    /// Bytes that hold files and could be given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_caches: Option<u64>,
    /// Huge pages that were allocated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hugetlb_allocations: Option<u64>,
    /// Huge pages that could not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hugetlb_failures: Option<u64>,
}

/// `PATCH /vm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct VmPatch {
    /// What the machine should do.
    pub state: VmState,
}

/// What a started machine can be told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum VmState {
    /// Hold still: no instruction of the guest's is executed, no device serves it.
    Paused,
    /// Go on.
    Resumed,
}

/// `GET /`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct InstanceInfo {
    /// The program.
    pub app_name: String,
    /// The machine's name (`--id`).
    pub id: String,
    /// What it does.
    pub state: InstanceState,
    /// The program's version.
    pub vmm_version: String,
}

/// What a machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum InstanceState {
    /// It has not been started.
    #[serde(rename = "Not started")]
    NotStarted,
    /// It runs.
    Running,
    /// It was told to hold still.
    Paused,
}

/// `GET /version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct VersionInfo {
    /// The program's version. Clients of Firecracker's read this field.
    pub firecracker_version: String,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// In one line: what is wrong, with what, and what to do.
    pub fault_message: String,
}
