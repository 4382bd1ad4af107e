//! The agent's configuration: `agent.toml`, read once, checked whole.

mod images;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::num::NonZero;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use toml::Spanned;

use crate::capacity::policy::{
    CapSpec, LabelsSpec, MeasureSpec, Policy, PolicyError, PolicySpec, ReclaimSpec, ReserveSpec, ScheduleSpec,
};
use crate::lifecycle::Backoff;
use crate::network::{NetworkPolicy, NetworkSpec};
use crate::process::IoLimits;
use crate::uids::UidRange;

pub use images::ImagesConfig;
use images::ImagesSpec;

/// The file that is read where the command line names none.
pub const DEFAULT_PATH: &str = "/etc/secovia/agent.toml";

/// A Unix socket's path is at most 107 bytes; below `runtime_dir` come `/jail/`, the VMM's file name, an identifier,
/// `/root/vsock.sock` and what the VMM appends for a guest's connection (`_` and a port).
const SOCKET_PATH_MAX: usize = 107 - "/jail//0123456789abcdef/root/vsock.sock_4294967295".len();

/// The least log that is worth keeping.
const LOG_MIN: u64 = 4096;

/// `agent.toml` as it is written; every key may be left out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ConfigSpec {
    state_dir: PathBuf,
    runtime_dir: PathBuf,
    vmm: PathBuf,
    jailer: PathBuf,
    kernel: PathBuf,
    initrd: PathBuf,
    vm_uids: UidsSpec,
    core_scheduling: bool,
    disk_read_bytes_per_s: u64,
    disk_write_bytes_per_s: u64,
    socket_group: String,
    log_level: String,
    log_max_bytes: u64,
    boot_timeout_s: u64,
    audit_max_bytes: u64,
    restart: RestartSpec,
    images: ImagesSpec,
    network: Option<NetworkSpec>,
    reserve: Option<Spanned<ReserveSpec>>,
    cap: Option<Spanned<CapSpec>>,
    schedule: Option<Spanned<ScheduleSpec>>,
    measure: MeasureSpec,
    reclaim: ReclaimSpec,
    labels: LabelsSpec,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UidsSpec {
    first: u32,
    count: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RestartSpec {
    first_delay_ms: u64,
    max_delay_ms: u64,
    stable_after_ms: u64,
}

impl Default for ConfigSpec {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/secovia".into(),
            runtime_dir: "/run/secovia".into(),
            vmm: "/usr/bin/secovia-vmm".into(),
            jailer: "/usr/bin/secovia-jailer".into(),
            kernel: "/usr/lib/secovia/vmlinux".into(),
            initrd: "/usr/lib/secovia/initrd.cpio".into(),
            vm_uids: UidsSpec {
                first: 900_000,
                count: 1_000,
            },
            core_scheduling: false,
            disk_read_bytes_per_s: 0,
            disk_write_bytes_per_s: 0,
            socket_group: secovia_agent_api::SOCKET_GROUP.into(),
            log_level: "info".into(),
            log_max_bytes: 16 * 1024 * 1024,
            boot_timeout_s: 120,
            audit_max_bytes: 16 * 1024 * 1024,
            restart: RestartSpec::default(),
            images: ImagesSpec::default(),
            network: None,
            reserve: None,
            cap: None,
            schedule: None,
            measure: MeasureSpec::default(),
            reclaim: ReclaimSpec::default(),
            labels: LabelsSpec::default(),
        }
    }
}

impl Default for RestartSpec {
    fn default() -> Self {
        Self {
            first_delay_ms: 1_000,
            max_delay_ms: 300_000,
            stable_after_ms: 120_000,
        }
    }
}

/// A configuration that can be worked with.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What outlives a reboot: records, images, logs, disks.
    pub state_dir: PathBuf,
    /// What does not: the API's socket, and for each VM its sockets and process identifier.
    pub runtime_dir: PathBuf,
    /// The program that is one microVM.
    pub vmm: PathBuf,
    /// The program that locks it in.
    pub jailer: PathBuf,
    /// The guest's kernel.
    pub kernel: PathBuf,
    /// The guest's initial RAM disk.
    pub initrd: PathBuf,
    /// Whom the VMs run as.
    pub vm_uids: UidRange,
    /// No two VMs share a core at the same time.
    pub core_scheduling: bool,
    /// What each VM may read from and write to the disk of `state_dir`.
    pub disk_io: IoLimits,
    /// Whose members may use the API, beside root.
    pub socket_group: String,
    /// How much the agent says of its own doings.
    pub log_level: log::LevelFilter,
    /// Size of a VM's log before it is turned over; one older file is kept.
    pub log_max_bytes: u64,
    /// How long a guest may take until it answers.
    pub boot_timeout_ms: u64,
    /// How restarts are spaced.
    pub backoff: Backoff,
    /// Size of the audit log before it is turned over; eight older files are kept.
    pub audit_max_bytes: u64,
    /// What the store of images may hold.
    pub images: ImagesConfig,
    /// The network of its VMs, where they may have one.
    pub network: Option<NetworkPolicy>,
    /// What is lent, and how it is taken back. The only part that is reloaded.
    pub policy: Policy,
}

/// Why a configuration cannot be used. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "read configuration {path}: {source}; create it (the package ships a commented one) or name another with --config"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no valid TOML, or has keys or types that are not known.
    #[error(
        "configuration {path}, line {line}: {message}; correct the line, the shipped agent.toml lists every key"
    )]
    Parse {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A key has a value that cannot be.
    #[error("configuration {path}: `{key}` {problem}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong with its value, and what would be right.
        problem: String,
    },
    /// The owner's policy cannot be.
    #[error("configuration {path}, line {line}: {source}")]
    Policy {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        source: PolicyError,
    },
}

/// The line, counted from 1, of the byte at `offset`.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|b| *b == b'\n').count()
}

impl Config {
    /// Reads and checks `path`.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_path_buf(),
            source,
        })?;
        Self::parse(path, &text)
    }

    /// Checks `text`, which stands in `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let spec: ConfigSpec = toml::from_str(text).map_err(|error| ConfigError::Parse {
            path: path.to_path_buf(),
            line: error.span().map_or(1, |span| line_of(text, span.start)),
            message: error.message().replace('\n', " "),
        })?;
        let policy = Policy::check(&spec.policy()).map_err(|source| ConfigError::Policy {
            path: path.to_path_buf(),
            line: line_of(text, source.span.start),
            source,
        })?;
        spec.check(policy).map_err(|(key, problem)| ConfigError::Value {
            path: path.to_path_buf(),
            key,
            problem,
        })
    }

    /// Whether what a reload does not reach is the same in both.
    pub fn is_same_but_for_policy(&self, other: &Self) -> bool {
        let policy = other.policy.clone();
        Self {
            policy,
            ..self.clone()
        } == *other
    }

    /// Looks whether the files that the configuration names can be used: the first that cannot.
    pub fn check_files(&self, path: &Path) -> Result<(), ConfigError> {
        match self.unusable_files().into_iter().next() {
            None => Ok(()),
            Some((key, problem)) => Err(ConfigError::Value {
                path: path.to_path_buf(),
                key,
                problem,
            }),
        }
    }

    /// What is wrong with the files that the configuration names, a sentence each.
    pub fn problems(&self) -> Vec<String> {
        let files = self.unusable_files().into_iter();
        files
            .map(|(key, problem)| format!("`{key}` in agent.toml {problem}"))
            .collect()
    }

    fn unusable_files(&self) -> Vec<(&'static str, String)> {
        [
            ("vmm", &self.vmm, Need::Execute),
            ("jailer", &self.jailer, Need::Execute),
            ("kernel", &self.kernel, Need::Read),
            ("initrd", &self.initrd, Need::Read),
        ]
        .into_iter()
        .filter_map(|(key, file, need)| Some((key, unusable(file, need)?)))
        .collect()
    }
}

/// What is done with a file. VMs run as users of their own: what is for everybody is for them.
#[derive(Debug, Clone, Copy)]
enum Need {
    Execute,
    Read,
}

/// Why a file cannot be used.
fn unusable(file: &Path, need: Need) -> Option<String> {
    let shown = file.display();
    let metadata = match fs::symlink_metadata(file) {
        // A program is locked in by its own name; data has another one in there anyway.
        Ok(metadata) if metadata.is_symlink() && matches!(need, Need::Execute) => {
            return Some(format!("names {shown}, a symbolic link; name the program itself"));
        }
        Ok(metadata) if metadata.is_symlink() => fs::metadata(file),
        other => other,
    };
    let mode = match &metadata {
        Err(error) => return Some(format!("names {shown}: {error}; install it or correct the path")),
        Ok(metadata) if !metadata.is_file() => {
            return Some(format!("names {shown}, which is not a regular file"));
        }
        Ok(metadata) => metadata.permissions().mode(),
    };
    match need {
        Need::Execute if mode & 0o001 == 0 => Some(format!(
            "names {shown}, which is not executable for all; chmod 755 it"
        )),
        Need::Read if mode & 0o004 == 0 => {
            Some(format!("names {shown}, which not all may read; chmod 644 it"))
        }
        Need::Execute | Need::Read => None,
    }
}

impl ConfigSpec {
    fn policy(&self) -> PolicySpec {
        PolicySpec {
            reserve: self.reserve.clone(),
            cap: self.cap.clone(),
            schedule: self.schedule.clone(),
            measure: self.measure.clone(),
            reclaim: self.reclaim.clone(),
            labels: self.labels.clone(),
        }
    }

    fn check(self, policy: Policy) -> Result<Config, (&'static str, String)> {
        for (key, path) in [
            ("state_dir", &self.state_dir),
            ("runtime_dir", &self.runtime_dir),
            ("vmm", &self.vmm),
            ("jailer", &self.jailer),
            ("kernel", &self.kernel),
            ("initrd", &self.initrd),
        ] {
            if !path.is_absolute() {
                return Err((key, format!("is `{}`; give an absolute path", path.display())));
            }
        }
        let Some(program) = self.vmm.file_name() else {
            return Err(("vmm", format!("is `{}`; name a program", self.vmm.display())));
        };
        let room = SOCKET_PATH_MAX.saturating_sub(program.len());
        if self.runtime_dir.as_os_str().len() > room {
            let problem = format!(
                "is {} bytes long; at most {room} leave room for a socket's path",
                self.runtime_dir.as_os_str().len()
            );
            return Err(("runtime_dir", problem));
        }
        let UidsSpec { first, count } = self.vm_uids;
        let vm_uids = UidRange::new(first, count).map_err(|error| ("vm_uids", error.to_string()))?;
        if self.state_dir == self.runtime_dir {
            return Err((
                "runtime_dir",
                "is the same as `state_dir`; use two directories".into(),
            ));
        }
        let Ok(log_level) = self.log_level.parse() else {
            let problem = format!(
                "is `{}`; use off, error, warn, info, debug or trace",
                self.log_level
            );
            return Err(("log_level", problem));
        };
        for (key, bytes) in [
            ("log_max_bytes", self.log_max_bytes),
            ("audit_max_bytes", self.audit_max_bytes),
        ] {
            if bytes < LOG_MIN {
                return Err((key, format!("is {bytes}; at least {LOG_MIN} are needed")));
            }
        }
        if !(1..=86_400).contains(&self.boot_timeout_s) {
            return Err((
                "boot_timeout_s",
                format!("is {}; use 1 to 86400", self.boot_timeout_s),
            ));
        }
        let restart = self.restart;
        if restart.first_delay_ms == 0 || restart.first_delay_ms > restart.max_delay_ms {
            let problem = format!(
                "is {}; use 1 to `restart.max_delay_ms` ({})",
                restart.first_delay_ms, restart.max_delay_ms
            );
            return Err(("restart.first_delay_ms", problem));
        }
        let network = self.network.map(NetworkSpec::check).transpose()?;
        Ok(Config {
            state_dir: self.state_dir,
            runtime_dir: self.runtime_dir,
            vmm: self.vmm,
            jailer: self.jailer,
            kernel: self.kernel,
            initrd: self.initrd,
            vm_uids,
            core_scheduling: self.core_scheduling,
            disk_io: IoLimits {
                read: NonZero::new(self.disk_read_bytes_per_s),
                write: NonZero::new(self.disk_write_bytes_per_s),
            },
            socket_group: self.socket_group,
            log_level,
            log_max_bytes: self.log_max_bytes,
            boot_timeout_ms: self.boot_timeout_s * 1_000,
            backoff: Backoff {
                first_ms: restart.first_delay_ms,
                max_ms: restart.max_delay_ms,
                stable_ms: restart.stable_after_ms,
            },
            audit_max_bytes: self.audit_max_bytes,
            images: self.images.check()?,
            network,
            policy,
        })
    }
}
