//! The machine's configuration as it stands in a file.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One machine, whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VmSpec {
    /// What boots.
    pub boot_source: BootSourceSpec,
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
}

/// Kernel, initial RAM disk and command line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootSourceSpec {
    /// An ELF `vmlinux` or a `bzImage`.
    pub kernel_image_path: PathBuf,
    /// A cpio archive, compressed or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd_path: Option<PathBuf>,
    /// The kernel's command line; `console=ttyS0 panic=1` where it is not given. The root device's arguments follow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_args: Option<String>,
}

/// One disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriveSpec {
    /// Its name, unique in the machine; also its serial number in the guest (at most 20 bytes of it).
    pub drive_id: String,
    /// A regular file or block device.
    pub path_on_host: PathBuf,
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
}

/// What a guest's flush does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CacheType {
    /// Flush is not offered: the host's page cache decides.
    #[default]
    Unsafe,
    /// Flush means fdatasync.
    Writeback,
}

/// One network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[serde(deny_unknown_fields)]
pub struct MachineSpec {
    /// 1 to 32.
    pub vcpu_count: u8,
    /// Guest memory in MiB, at least 64.
    pub mem_size_mib: u64,
    /// Two vCPUs are threads of one core (1, or an even number of vCPUs).
    #[serde(default)]
    pub smt: bool,
}

impl Default for MachineSpec {
    fn default() -> Self {
        Self {
            vcpu_count: 1,
            mem_size_mib: 128,
            smt: false,
        }
    }
}

/// The balloon: memory that the guest does without.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// The socket device and its end on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsockSpec {
    /// The guest's context identifier, at least 3.
    pub guest_cid: u32,
    /// The Unix socket that takes `CONNECT port` lines; a guest's connection to host port N goes to `uds_path_N`.
    pub uds_path: PathBuf,
}

/// The entropy device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntropySpec {
    /// How much of the host's randomness the guest may take; no limit where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<RateLimiterSpec>,
}
