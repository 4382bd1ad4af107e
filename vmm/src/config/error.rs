//! What is wrong with a configuration: the field, what it is, and the remedy, in one line.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// A configuration that leads to no machine.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum ConfigError {
    #[error("--config-file: {path}: {source}; give a readable JSON file")]
    Read { path: PathBuf, source: io::Error },
    #[error("--config-file: {path}: more than {max} bytes; give a machine's configuration")]
    Size { path: PathBuf, max: u64 },
    #[error("--config-file: {path}: {source}; correct the file")]
    Json {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("boot-source: missing; name a kernel with kernel_image_path")]
    NoBootSource,
    #[error("{field}: not there yet; {remedy}")]
    NotYet { field: String, remedy: &'static str },
    #[error("machine-config.vcpu_count: {count}; give 1 to {max}")]
    VcpuCount { count: u8, max: u8 },
    #[error("machine-config.smt: {count} vCPUs do not pair up; give an even vcpu_count, or smt false")]
    OddThreads { count: u8 },
    #[error("machine-config.mem_size_mib: {mib} MiB; give at least {min}")]
    TooLittleMemory { mib: u64, min: u64 },
    #[error("machine-config.mem_size_mib: {mib} MiB, this host has {host_mib}; give less")]
    TooMuchMemory { mib: u64, host_mib: u64 },
    #[error("{field}: {path}: {fault}")]
    File {
        field: String,
        path: PathBuf,
        fault: FileFault,
    },
    #[error("boot-source.boot_args: has a line break or zero byte in it; give one line")]
    BootArgsCharacter,
    #[error(
        "boot-source.boot_args: {length} bytes with the root device's arguments, Linux takes {max}; shorten it"
    )]
    BootArgsLength { length: usize, max: usize },
    #[error("drives: entry {index} has an empty drive_id; name it")]
    EmptyDriveId { index: usize },
    #[error("drives: drive_id {id:?} is there twice; give each drive its own")]
    DoubledDriveId { id: String },
    #[error("drives, pmem: {first:?} and {second:?} are both said to be the root device; leave it to one")]
    TwoRoots { first: String, second: String },
    #[error("drives.{id}.partuuid: only of use with is_root_device true; remove it")]
    UnusedPartuuid { id: String },
    #[error("drives.{id}.partuuid: {partuuid:?} is no UUID; give hexadecimal digits and dashes")]
    BadPartuuid { id: String, partuuid: String },
    #[error("drives.{id}: path_on_host and socket are both given; leave out one of the two")]
    FileAndSocket { id: String },
    #[error("drives.{id}.path_on_host: missing; give a file, or the socket of a vhost-user backend")]
    NoFile { id: String },
    #[error("drives.{id}.{field}: with a socket that is the backend's own; leave it out, and set it there")]
    BackendsOwn { id: String, field: &'static str },
    #[error(
        "drives.{id}.socket: pages of the host's pool (machine-config.huge_pages 2M) are not shared with a backend; give None or Transparent"
    )]
    SocketOfHugePages { id: String },
    #[error("pmem: entry {index} has an empty id; name it")]
    EmptyPmemId { index: usize },
    #[error("pmem: id {id:?} is there twice; give each its own")]
    DoubledPmemId { id: String },
    #[error("network-interfaces: entry {index} has an empty iface_id; name it")]
    EmptyIfaceId { index: usize },
    #[error("network-interfaces: iface_id {id:?} is there twice; give each interface its own")]
    DoubledIfaceId { id: String },
    #[error(
        "network-interfaces.{id}.host_dev_name: {tap:?} is no interface's name; give 1 to 15 characters without / : %"
    )]
    TapName { id: String, tap: String },
    #[error(
        "network-interfaces.{id}.host_dev_name: {tap:?} is another interface's too; give each its own tap"
    )]
    DoubledTap { id: String, tap: String },
    #[error(
        "network-interfaces.{id}.guest_mac: {mac:?} is no address of one interface; give one like 06:00:ac:10:00:02"
    )]
    BadMac { id: String, mac: String },
    #[error("network-interfaces.{id}.guest_mac: {mac:?} is another interface's too; give each its own")]
    DoubledMac { id: String, mac: String },
    #[error("network-interfaces.{id}.mtu: {mtu}; give at least {min}")]
    SmallMtu { id: String, mtu: u16, min: u16 },
    #[error("cpu-config: {path}: {reason}; give a CPU template as JSON")]
    CpuFile { path: PathBuf, reason: String },
    #[error("cpu-config.{field}: {text:?}; give {remedy}")]
    CpuText {
        field: String,
        text: String,
        remedy: &'static str,
    },
    #[error("mmds-config.network_interfaces: empty; name the interfaces by which the guest reads metadata")]
    NoMmdsInterface,
    #[error("mmds-config.network_interfaces: this machine has no interface {id:?}; configure it first")]
    UnknownMmdsInterface { id: String },
    #[error("mmds-config.ipv4_address: {address}; give one from 169.254.1.0 to 169.254.254.255")]
    MmdsAddress { address: Ipv4Addr },
    #[error(
        "machine-config.mem_size_mib: {mib} MiB is no whole number of huge pages of 2M; give an even number"
    )]
    OddMemory { mib: u64 },
    #[error(
        "balloon: pages of the host's pool (machine-config.huge_pages 2M) do not go back one by one; leave out one of the two"
    )]
    BalloonOfHugePages,
    #[error("memory-hotplug.{field}: {mib} MiB; {remedy}")]
    Hotplug {
        field: &'static str,
        mib: u64,
        remedy: &'static str,
    },
    #[error(
        "memory-hotplug: pages of the host's pool (machine-config.huge_pages 2M) do not come and go; leave out one of the two"
    )]
    HotplugOfHugePages,
    #[error("balloon.amount_mib: {mib} MiB, the machine has {memory_mib}; give less")]
    LargeBalloon { mib: u32, memory_mib: u64 },
    #[error(
        "drives, pmem, network-interfaces, memory-hotplug, balloon, vsock, entropy: {count} devices; at most {max} fit"
    )]
    TooManyDevices { count: usize, max: usize },
    #[error("vsock.guest_cid: {cid} is reserved; give 3 to 4294967294")]
    ReservedCid { cid: u32 },
    #[error("vsock.uds_path: {path} is empty or longer than {max} bytes; choose a shorter path")]
    SocketPathLength { path: PathBuf, max: usize },
    #[error("vsock.uds_path: {path} exists already; remove it or choose another path")]
    SocketExists { path: PathBuf },
}

/// What is wrong with a file that the configuration names.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    /// It does not open.
    #[error("{0}; create it or correct the path")]
    Open(io::Error),
    /// It is a directory or a device.
    #[error("not a regular file; give one")]
    NotAFile,
    /// It is a file.
    #[error("not a socket; give that of a vhost-user-block backend")]
    NotASocket,
    /// It is a directory or a terminal.
    #[error("neither a regular file nor a block device; give one of the two")]
    NotADisk,
}
