//! What the host is, as far as the plan depends on it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, CWD, FileType};
use rustix::io::Errno;

use crate::options::{Device, Options};

mod cgroups;

pub use cgroups::Hierarchy;

/// What there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Major and minor number of each device that was asked for and is there.
    pub devices: BTreeMap<Device, (u32, u32)>,
    /// The hierarchy of version 2.
    pub unified: Option<Hierarchy>,
    /// The hierarchies of version 1, by controller.
    pub controllers: BTreeMap<String, Hierarchy>,
}

/// Why the host cannot be known.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// A file cannot be read.
    #[error("read {path}: {source}; the host has to have /proc and /dev mounted")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A device is not what its name says.
    #[error("{path}: {found}; restore the host's device node")]
    Device {
        /// The node.
        path: PathBuf,
        /// What is there.
        found: String,
    },
}

/// Looks at the host. Reads only what these options need, since each read costs the machine's start.
pub fn gather(options: &Options) -> Result<Facts, FactsError> {
    let mut facts = Facts::default();
    for device in &options.devices {
        if let Some(number) = device_number(*device)? {
            facts.devices.insert(*device, number);
        }
    }
    if !options.cgroups.is_empty() || options.parent_cgroup.is_some() {
        let mounts = read("/proc/self/mountinfo")?;
        let memberships = read("/proc/self/cgroup")?;
        (facts.unified, facts.controllers) = cgroups::hierarchies(&mounts, &memberships);
    }
    Ok(facts)
}

/// In one piece: the kernel makes such a text anew for each piece that it is read in.
fn read(path: &str) -> Result<String, FactsError> {
    const USUAL: usize = 8192;
    let mut text = String::with_capacity(USUAL);
    let read = File::open(path).and_then(|mut file| file.read_to_string(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(source) => Err(FactsError::Read {
            path: path.into(),
            source,
        }),
    }
}

/// The numbers of a device; `None` where it is not there.
fn device_number(device: Device) -> Result<Option<(u32, u32)>, FactsError> {
    let path = Path::new("/dev").join(device.path());
    let stat = match fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(error) => {
            return Err(FactsError::Read {
                path,
                source: error.into(),
            });
        }
    };
    let number = (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
    if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice {
        let found = "not a character device".into();
        return Err(FactsError::Device { path, found });
    }
    match device.fixed_number() {
        Some(fixed) if fixed != number => {
            let found = format!(
                "device {}, {}, where {}, {} should be",
                number.0, number.1, fixed.0, fixed.1
            );
            Err(FactsError::Device { path, found })
        }
        _ => Ok(Some(number)),
    }
}
