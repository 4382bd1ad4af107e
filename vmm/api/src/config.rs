//! The machine's configuration as it stands in a file.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cpu::CpuConfig;

/// One machine, whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VmSpec {
    /// What boots; no machine starts without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_source: Option<BootSourceSpec>,
    /// Disks, in the order in which the guest names them (vda, vdb); but the root device comes first.
    #[serde(default)]
    pub drives: Vec<DriveSpec>,
    /// Network interfaces, in the order in which the guest names them (eth0, eth1).
    #[serde(default)]
    pub network_interfaces: Vec<NetworkInterfaceSpec>,
    /// vCPUs and memory.
    #[serde(default)]
    pub machine_config: MachineSpec,
    /// The balloon, where the machine has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balloon: Option<BalloonSpec>,
    /// The socket device, where the machine has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock: Option<VsockSpec>,
    /// The entropy device, where the machine has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropy: Option<EntropySpec>,
    /// Where the serial console's output goes; to standard output where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<SerialSpec>,
    /// The log, where it is not as the command line says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logger: Option<LoggerSpec>,
    /// Where metrics go, if anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<MetricsSpec>,
    /// How the guest's processors differ from the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_config: Option<CpuConfig>,
    /// The metadata service, where the guest has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mmds_config: Option<MmdsConfigSpec>,
    /// Disks that are memory to the guest, in the order in which the guest names them (pmem0, pmem1); but the root device
    /// comes first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pmem: Vec<PmemSpec>,
    /// Memory that is added while the machine runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_hotplug: Option<MemoryHotplugSpec>,
}

/// How the guest reaches the metadata service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MmdsConfigSpec {
    /// Whether it takes a token to read. V1, where it is not given.
    #[serde(default)]
    pub version: MmdsVersion,
    /// On which network interfaces it is there, by their `iface_id`.
    pub network_interfaces: Vec<String>,
    /// At which address: a link-local one. 169.254.169.254 where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub ipv4_address: Option<Ipv4Addr>,
    /// Answers are text, as EC2's service gives them, whatever was asked for.
    #[serde(default)]
    pub imds_compat: bool,
}

/// By which rules the guest reads metadata.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum MmdsVersion {
    /// Whoever asks is answered.
    #[default]
    V1,
    /// Whoever asks shows a token, which he has asked for before.
    V2,
}

/// Kernel, initial RAM disk and command line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BootSourceSpec {
    /// An ELF `vmlinux` or a `bzImage`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub kernel_image_path: PathBuf,
    /// A cpio archive, compressed or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub initrd_path: Option<PathBuf>,
    /// The kernel's command line; `console=ttyS0 panic=1` where it is not given. The root device's arguments follow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_args: Option<String>,
}

/// One disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DriveSpec {
    /// Its name, unique in the machine; also its serial number in the guest (at most 20 bytes of it).
    pub drive_id: String,
    /// A regular file or block device; this or `socket`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub path_on_host: Option<PathBuf>,
    /// The guest's root file system lies here: `root=/dev/vda` (or the partition of `partuuid`) and `ro` or `rw` join
    /// the command line.
    pub is_root_device: bool,
    /// The guest cannot write it.
    #[serde(default)]
    pub is_read_only: bool,
    /// The root partition's UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partuuid: Option<String>,
    /// Whether the guest's flush reaches the disk.
    #[serde(default)]
    pub cache_type: CacheType,
    /// How much it may be used; no limit where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<RateLimiterSpec>,
    /// How the host reads and writes it.
    #[serde(default)]
    pub io_engine: IoEngine,
    /// The Unix socket of a vhost-user-block backend, which serves the disk in the place of a file: it has all of the guest's
    /// memory, and `is_read_only`, `rate_limiter` and `io_engine` are its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub socket: Option<PathBuf>,
}

/// A disk that is memory to the guest (virtio-pmem): it reads the host's page cache in place, so that what many machines
/// share is in memory once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PmemSpec {
    /// Its name, unique among these.
    pub id: String,
    /// A regular file or block device. The guest sees its size rounded up to 2 MiB; what it writes past the end is lost.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub path_on_host: PathBuf,
    /// The guest's root file system lies here: `root=/dev/pmem0` and `ro` or `rw` join the command line.
    #[serde(default)]
    pub root_device: bool,
    /// The guest cannot write it.
    #[serde(default)]
    pub read_only: bool,
}

/// Memory that can be added while the machine runs: none of it is the guest's at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MemoryHotplugSpec {
    /// How much there is at most, in MiB; a multiple of `slot_size_mib`. A guest that keeps to no rule can take all of it.
    pub total_size_mib: u64,
    /// What is added and taken back as one, in MiB: a power of two, at least 2.
    #[serde(default = "MemoryHotplugSpec::block")]
    pub block_size_mib: u64,
    /// How much Firecracker shows to KVM as one, in MiB: a multiple of `block_size_mib`, at least 128. Here all of it is one.
    #[serde(default = "MemoryHotplugSpec::slot")]
    pub slot_size_mib: u64,
}

impl MemoryHotplugSpec {
    fn block() -> u64 {
        2
    }

    fn slot() -> u64 {
        128
    }
}

/// How a disk's requests reach the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum IoEngine {
    /// One after the other, by a system call each.
    #[default]
    Sync,
    /// Up to 64 at once, by an io_uring; needs Linux 5.11 or newer that allows it (sysctl kernel.io_uring_disabled).
    Async,
}

/// What a guest's flush does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum CacheType {
    /// Flush is not offered: the host's page cache decides.
    #[default]
    Unsafe,
    /// Flush means fdatasync.
    Writeback,
}

/// One network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NetworkInterfaceSpec {
    /// Its name, unique in the machine.
    pub iface_id: String,
    /// The host's tap interface, which must be there and belong to the VMM's user.
    pub host_dev_name: String,
    /// The guest's Ethernet address, as in `06:00:ac:10:00:02`; where it is not given, the guest makes one up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_mac: Option<String>,
    /// The MTU that the guest is told, at least 68; where it is not given, the guest takes its own default (1500).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// How much the guest may receive; no limit where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rx_rate_limiter: Option<RateLimiterSpec>,
    /// How much the guest may send; no limit where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx_rate_limiter: Option<RateLimiterSpec>,
}

/// Limits of what a device moves. Each may be left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RateLimiterSpec {
    /// Tokens are bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<TokenBucketSpec>,
    /// Tokens are requests of a disk or of the entropy device, or packets of a network interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ops: Option<TokenBucketSpec>,
}

/// A bucket of tokens: what may be used at once, and how fast it comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TokenBucketSpec {
    /// Tokens that the bucket holds; it starts full. 0: no limit.
    pub size: u64,
    /// Tokens on top of that, which are used first and never come again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_time_burst: Option<u64>,
    /// Milliseconds in which an empty bucket fills up. 0: no limit.
    pub refill_time: u64,
}

/// vCPUs and memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MachineSpec {
    /// 1 to 32.
    pub vcpu_count: u8,
    /// Guest memory in MiB, at least 64.
    pub mem_size_mib: u64,
    /// Two vCPUs are threads of one core (1, or an even number of vCPUs).
    #[serde(default)]
    pub smt: bool,
    /// Which pages the guest wrote is kept for a snapshot of the difference; not there yet.
    #[serde(default)]
    pub track_dirty_pages: bool,
    /// Pages of which the guest's memory is made.
    #[serde(default)]
    pub huge_pages: HugePages,
    /// A named CPU template; there is none yet but `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_template: Option<String>,
}

/// Pages of which guest memory is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum HugePages {
    /// No huge pages are asked for.
    None,
    /// Huge ones where the host has them to spare.
    #[default]
    Transparent,
    /// 2 MiB each, of the host's pool (`/proc/sys/vm/nr_hugepages`), all of them taken before the guest starts.
    #[serde(rename = "2M")]
    TwoMebibytes,
}

impl Default for MachineSpec {
    fn default() -> Self {
        Self {
            vcpu_count: 1,
            mem_size_mib: 128,
            smt: false,
            track_dirty_pages: false,
            huge_pages: HugePages::default(),
            cpu_template: None,
        }
    }
}

/// The balloon: memory that the guest does without.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BalloonSpec {
    /// How much the guest gives back to the host, in MiB; at most what it has.
    pub amount_mib: u32,
    /// The guest may take memory back when it runs out of it.
    pub deflate_on_oom: bool,
    /// How often the guest is asked how its memory stands, in seconds; 0: never.
    #[serde(default)]
    pub stats_polling_interval_s: u16,
    /// The guest tells of memory that it does not use, and that goes back to the host.
    #[serde(default)]
    pub free_page_reporting: bool,
    /// The host can ask for all such memory at once (`/balloon/hinting/start`).
    #[serde(default)]
    pub free_page_hinting: bool,
}

/// The socket device and its end on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct VsockSpec {
    /// A name that Firecracker once asked for; it means nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock_id: Option<String>,
    /// The guest's context identifier, at least 3.
    pub guest_cid: u32,
    /// The Unix socket that takes `CONNECT port` lines; a guest's connection to host port N goes to `uds_path_N`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub uds_path: PathBuf,
}

/// The entropy device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct EntropySpec {
    /// How much of the host's randomness the guest may take; no limit where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<RateLimiterSpec>,
}

/// The serial console.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SerialSpec {
    /// A file or FIFO that is there, or a file that comes to be; what the guest writes is added to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub serial_out_path: Option<PathBuf>,
    /// How many bytes the guest may write; what is more is lost. No limit where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<TokenBucketSpec>,
}

/// The log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LoggerSpec {
    /// A file that is added to, in the place of standard error; can be said once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub log_path: Option<PathBuf>,
    /// What is logged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<LogLevel>,
    /// Each line has its level; it has, unless this says false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub show_level: Option<bool>,
    /// Each line says where in the program it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub show_log_origin: Option<bool>,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum LogLevel {
    /// Nothing.
    #[serde(alias = "off", alias = "OFF")]
    Off,
    /// What failed.
    #[serde(alias = "error", alias = "ERROR")]
    Error,
    /// And what may be wrong.
    #[serde(
        alias = "warning",
        alias = "WARNING",
        alias = "Warn",
        alias = "warn",
        alias = "WARN"
    )]
    Warning,
    /// And what happens.
    #[serde(alias = "info", alias = "INFO")]
    Info,
    /// And what may help to find a fault.
    #[serde(alias = "debug", alias = "DEBUG")]
    Debug,
    /// And everything else.
    #[serde(alias = "trace", alias = "TRACE")]
    Trace,
}

/// Metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MetricsSpec {
    /// A file or FIFO to which a line of JSON is added every minute, on request, and at the end.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub metrics_path: PathBuf,
}
