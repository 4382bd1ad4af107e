//! What is asked for: each value read once, strictly, into a type that can hold nothing else.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use serde::Serialize;

#[cfg(test)]
mod tests;

/// The longest [`Id`], as Firecracker has it.
const ID_MAX: usize = 64;
/// The longest name of a file in a folder (`NAME_MAX` of Linux).
const NAME_MAX: usize = 255;
/// The folder of the device nodes in the jail.
pub const DEVICE_FOLDER: &str = "dev";

/// A value that means nothing here; says what would.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?}: {remedy}")]
pub struct ValueError {
    value: OsString,
    remedy: &'static str,
}

impl ValueError {
    fn new(value: impl AsRef<OsStr>, remedy: &'static str) -> Self {
        Self {
            value: value.as_ref().into(),
            remedy,
        }
    }
}

/// The machine's name: 1 to 64 letters, digits and dashes, so that it is one folder, one cgroup and one host name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Id(String);

impl Id {
    /// Reads one.
    pub fn parse(text: &OsStr) -> Result<Self, ValueError> {
        let bytes = text.as_bytes();
        match text.to_str() {
            Some(id)
                if (1..=ID_MAX).contains(&bytes.len())
                    && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-') =>
            {
                Ok(Self(id.into()))
            }
            _ => Err(ValueError::new(text, "give 1 to 64 letters, digits and dashes")),
        }
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of one entry of the jail's root: letters, digits, `.`, `_` and `-`, not beginning with `.` or `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Name(String);

impl Name {
    /// Reads one.
    pub fn parse(text: &OsStr) -> Result<Self, ValueError> {
        let good = |name: &str| {
            (1..=NAME_MAX).contains(&name.len())
                && !name.starts_with(['.', '-'])
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        match text.to_str() {
            Some(DEVICE_FOLDER) => Err(ValueError::new(
                text,
                "that is the folder of the devices; give another name",
            )),
            Some(name) if good(name) => Ok(Self(name.into())),
            _ => Err(ValueError::new(
                text,
                "give a plain file name of letters, digits, '.', '_' and '-' that begins with none of the latter two",
            )),
        }
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A path that says in full which file is meant: from `/`, without `..`.
pub fn full_path(text: &OsStr) -> Result<PathBuf, ValueError> {
    let path = Path::new(text);
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    if path.is_absolute() && path.components().all(plain) && !text.as_bytes().contains(&0) {
        // Rebuilt, so that doubled and trailing slashes are gone.
        Ok(path.components().collect())
    } else {
        Err(ValueError::new(text, "give a path from / without .."))
    }
}

/// A user or a group of the VM's own; never root, and never -1, which the kernel reads as "leave it".
pub fn own_id(text: &OsStr) -> Result<u32, ValueError> {
    match text.to_str().and_then(number) {
        Some(id @ 1..=0xffff_fffe) => Ok(id as u32),
        _ => Err(ValueError::new(
            text,
            "give a number from 1 to 4294967294 that no other user or machine has",
        )),
    }
}

/// A decimal number, written with digits only.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Which kind of control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum CgroupVersion {
    /// One hierarchy for each controller.
    #[serde(rename = "1")]
    V1,
    /// The unified hierarchy.
    #[serde(rename = "2")]
    V2,
}

impl CgroupVersion {
    /// Reads one.
    pub fn parse(text: &OsStr) -> Result<Self, ValueError> {
        match text.to_str() {
            Some("1") => Ok(Self::V1),
            Some("2") => Ok(Self::V2),
            _ => Err(ValueError::new(text, "give 1 or 2")),
        }
    }
}

/// What is written to one file of the machine's cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CgroupSetting {
    /// The controller that the file belongs to; none for the files of the cgroup itself.
    pub controller: Option<String>,
    /// The file's name, such as `memory.max`.
    pub file: String,
    /// One line.
    pub value: String,
}

impl CgroupSetting {
    /// Reads `FILE=VALUE`. The value may have `=` in it.
    ///
    /// Files of the core (`cgroup.`) that move, freeze or kill processes are none of a machine's limits, and are refused.
    pub fn parse(text: &OsStr) -> Result<Self, ValueError> {
        let wrong = |remedy| ValueError::new(text, remedy);
        let (file, value) = text
            .to_str()
            .and_then(|text| text.split_once('='))
            .ok_or_else(|| wrong("give FILE=VALUE, such as memory.max=268435456"))?;
        let plain = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        };
        let (controller, rest) = file
            .split_once('.')
            .filter(|(controller, rest)| plain(controller) && !controller.contains('-') && plain(rest))
            .ok_or_else(|| wrong("give the name of a cgroup's file, such as memory.max"))?;
        let controller = match (controller, rest) {
            ("cgroup", "max.depth" | "max.descendants") => None,
            ("cgroup", _) => {
                return Err(wrong(
                    "of the cgroup's own files only cgroup.max.depth and cgroup.max.descendants can be set",
                ));
            }
            (controller, _) => Some(controller.to_owned()),
        };
        if value.is_empty() || value.bytes().any(|b| b.is_ascii_control()) {
            return Err(wrong("give a value of one line"));
        }
        Ok(Self {
            controller,
            file: file.into(),
            value: value.into(),
        })
    }
}

/// The path of a cgroup below the hierarchy's mount.
pub fn cgroup_path(text: &OsStr) -> Result<PathBuf, ValueError> {
    let path = Path::new(text);
    let plain = |part| matches!(part, Component::Normal(_));
    let bytes = text.as_bytes();
    if bytes.is_empty() || !path.components().all(plain) || bytes.iter().any(u8::is_ascii_control) {
        return Err(ValueError::new(
            text,
            "give a path below the hierarchy's mount without a leading / and without ..",
        ));
    }
    Ok(path.components().collect())
}

/// A limit of the process (setrlimit(2)), soft and hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// The largest file, in bytes.
    Fsize,
    /// One more than the highest file descriptor.
    NoFile,
    /// The largest core dump, in bytes.
    Core,
    /// Memory that may be locked, in bytes.
    Memlock,
    /// Processes and threads of the VM's user.
    Nproc,
    /// Address space, in bytes.
    As,
}

impl Limit {
    /// All, by the names that they are given by.
    pub const NAMES: [(&'static str, Self); 6] = [
        ("fsize", Self::Fsize),
        ("no-file", Self::NoFile),
        ("core", Self::Core),
        ("memlock", Self::Memlock),
        ("nproc", Self::Nproc),
        ("as", Self::As),
    ];

    /// The name that it is given by.
    pub fn name(self) -> &'static str {
        Self::NAMES
            .into_iter()
            .find(|(_, limit)| *limit == self)
            .map_or("", |(name, _)| name)
    }

    /// Reads `NAME=VALUE`.
    pub fn parse(text: &OsStr) -> Result<(Self, u64), ValueError> {
        let setting = text.to_str().and_then(|text| text.split_once('='));
        setting
            .and_then(|(name, value)| {
                let (_, limit) = Self::NAMES.into_iter().find(|(known, _)| *known == name)?;
                Some((limit, number(value)?))
            })
            .ok_or_else(|| {
                ValueError::new(
                    text,
                    "give NAME=NUMBER, where NAME is fsize, no-file, core, memlock, nproc or as",
                )
            })
    }
}

/// A device node of the jail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// Virtual machines.
    Kvm,
    /// Network interfaces.
    Tun,
    /// Random bytes.
    Urandom,
    /// Page faults served in user space.
    Userfaultfd,
}

impl Device {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Kvm, Self::Tun, Self::Urandom, Self::Userfaultfd];

    /// The path below `/dev`, on the host and in the jail.
    pub fn path(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tun => "net/tun",
            Self::Urandom => "urandom",
            Self::Userfaultfd => "userfaultfd",
        }
    }

    /// Major and minor number where Linux has fixed them (Documentation/admin-guide/devices.txt).
    pub fn fixed_number(self) -> Option<(u32, u32)> {
        match self {
            Self::Kvm => Some((10, 232)),
            Self::Tun => Some((10, 200)),
            Self::Urandom => Some((1, 9)),
            Self::Userfaultfd => None,
        }
    }

    /// Reads one.
    pub fn parse(text: &OsStr) -> Result<Self, ValueError> {
        match text.to_str() {
            Some("kvm") => Ok(Self::Kvm),
            Some("tun") => Ok(Self::Tun),
            Some("urandom") => Ok(Self::Urandom),
            Some("userfaultfd") => Ok(Self::Userfaultfd),
            _ => Err(ValueError::new(text, "give kvm, tun, urandom or userfaultfd")),
        }
    }
}

/// What the VM may do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Read it.
    Read,
    /// Read and write it.
    Write,
    /// Read it and run it.
    Execute,
}

/// One file of the host that the VM sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileGrant {
    /// Where it is on the host.
    pub source: PathBuf,
    /// What it is called in the jail's root.
    pub name: Name,
    /// What may be done with it.
    pub access: Access,
}

impl FileGrant {
    /// Reads `SOURCE:NAME[:rw]`. Read from its end, so that the source may have colons in it.
    pub fn parse(text: &OsStr) -> Result<Self, ValueError> {
        let wrong = || ValueError::new(text, "give SOURCE:NAME or SOURCE:NAME:rw");
        let bytes = text.as_bytes();
        let (bytes, access) = match bytes.strip_suffix(b":rw") {
            Some(rest) => (rest, Access::Write),
            None => (bytes, Access::Read),
        };
        let colon = bytes.iter().rposition(|b| *b == b':').ok_or_else(wrong)?;
        let (source, name) = (&bytes[..colon], &bytes[colon + 1..]);
        Ok(Self {
            source: full_path(OsStr::from_bytes(source))?,
            name: Name::parse(OsStr::from_bytes(name))?,
            access,
        })
    }
}

/// A descriptor that is kept: none of the standard streams, which are kept anyway.
pub fn descriptor(text: &OsStr) -> Result<i32, ValueError> {
    match text.to_str().and_then(number) {
        Some(fd @ 3..=0x7fff_ffff) => Ok(fd as i32),
        _ => Err(ValueError::new(
            text,
            "give the number of an open descriptor, 3 or higher",
        )),
    }
}

/// An argument of the VMM; the kernel ends it at its first zero byte.
pub fn argument(text: OsString) -> Result<OsString, ValueError> {
    if text.as_bytes().contains(&0) {
        return Err(ValueError::new(text, "an argument cannot have a zero byte in it"));
    }
    Ok(OsString::from_vec(text.into_vec()))
}

/// Everything that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The machine's name.
    pub id: Id,
    /// The VMM's program.
    pub exec_file: PathBuf,
    /// What it is called in the jail, and the folder of its jails.
    pub exec_name: Name,
    /// The VM's user.
    pub uid: u32,
    /// The VM's group.
    pub gid: u32,
    /// Where the jails are.
    pub chroot_base: PathBuf,
    /// The network namespace to join instead of a new, empty one.
    pub netns: Option<PathBuf>,
    /// What the machine's cgroup is set to, in this order.
    pub cgroups: Vec<CgroupSetting>,
    /// Which kind of cgroups; where none is named, the one that the host has.
    pub cgroup_version: Option<CgroupVersion>,
    /// Below which cgroup the machine's own is made.
    pub parent_cgroup: Option<PathBuf>,
    /// The process's limits.
    pub limits: Vec<(Limit, u64)>,
    /// Whether the VMM is the first process of a PID namespace.
    pub new_pid_ns: bool,
    /// Whether the VMM is cut off from the terminal.
    pub daemonize: bool,
    /// The files that the VM sees, without the program.
    pub files: Vec<FileGrant>,
    /// The devices that it sees.
    pub devices: BTreeSet<Device>,
    /// The descriptors that stay open, beyond the standard streams.
    pub keep_fds: BTreeSet<i32>,
    /// The VMM's arguments.
    pub vmm_args: Vec<OsString>,
}
