//! The process gives up its rights to files, networks and other processes, as far as the kernel has Landlock.

use std::path::{Path, PathBuf};

use ::landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

/// The newest version that is known here; of an older kernel's, everything that it has is used.
const NEWEST: ABI = ABI::V10;

/// Something that the process may still do with files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Right {
    /// Open this file to read it.
    Read(PathBuf),
    /// Open this file to read and write it.
    Write(PathBuf),
    /// Open this device to read and write it, and give it orders (ioctl).
    Device(PathBuf),
    /// In this folder: remove files.
    Remove(PathBuf),
    /// In this folder: make sockets, remove them, and connect to them.
    Sockets(PathBuf),
}

/// Whether the process restricts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landlock {
    /// As far as the kernel can.
    On,
    /// Not at all.
    Off,
}

impl Landlock {
    /// Leaves this thread, and all that it starts from now on, nothing but `rights`: no other file is opened, made,
    /// changed or executed, no TCP or UDP port used, no process outside signalled. What is open stays open.
    pub fn restrict(self, rights: impl IntoIterator<Item = Right>) -> Result<(), RulesetError> {
        if self == Self::Off {
            return Ok(());
        }
        let mut rules = Ruleset::default()
            .handle_access(AccessFs::from_all(NEWEST))?
            .handle_access(AccessNet::from_all(NEWEST))?
            .scope(Scope::from_all(NEWEST))?
            .create()?;
        for right in rights {
            let (path, access) = right.access();
            // What is not there cannot be opened either, and whoever tries says so.
            if let Ok(path) = PathFd::new(path) {
                rules = rules.add_rule(PathBeneath::new(path, access))?;
            }
        }
        match rules.restrict_self()?.ruleset {
            RulesetStatus::FullyEnforced => {}
            RulesetStatus::PartiallyEnforced => {
                log::debug!("Landlock: this kernel's is older than what is asked of it; what it has is on");
            }
            RulesetStatus::NotEnforced => log::debug!("Landlock: this kernel has none"),
        }
        Ok(())
    }
}

impl Right {
    fn access(&self) -> (&Path, BitFlags<AccessFs>) {
        match self {
            Self::Read(path) => (path, AccessFs::ReadFile.into()),
            Self::Write(path) => (path, AccessFs::ReadFile | AccessFs::WriteFile),
            Self::Device(path) => (path, DEVICE),
            Self::Remove(folder) => (named(folder), AccessFs::RemoveFile.into()),
            Self::Sockets(folder) => (named(folder), SOCKETS),
        }
    }
}

/// The folder of a path without one is the current one.
fn named(folder: &Path) -> &Path {
    match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    }
}

const DEVICE: BitFlags<AccessFs> = ::landlock::make_bitflags!(AccessFs::{ReadFile | WriteFile | IoctlDev});
const SOCKETS: BitFlags<AccessFs> =
    ::landlock::make_bitflags!(AccessFs::{MakeSock | RemoveFile | ResolveUnix});
