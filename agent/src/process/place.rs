//! Where a VM's files lie.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::records::VmId;

/// The name of the guest's socket in its VM's jail.
pub const SOCKET: &str = "vsock.sock";

/// The name of the disk of a VM's writable layer.
pub const DISK: &str = "disk.ext4";

/// Where all VMs have their files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    /// What the agent keeps of a VMM: as long as that runs.
    pub runtimes: PathBuf,
    /// Below it the jailer makes its jails.
    pub jail_base: PathBuf,
    /// The jails: below `jail_base`, under the name of the VMM's program.
    pub jails: PathBuf,
    /// What lives as long as the record.
    pub states: PathBuf,
}

/// The places of one VM's files: what lives as long as its VMM, and what lives as long as its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// As long as the VMM, for us only.
    pub runtime: PathBuf,
    /// As long as the VMM, and what it is locked into.
    pub jail: PathBuf,
    /// As long as the record.
    pub state: PathBuf,
}

impl Dirs {
    /// The directories of an agent with these two, whose VMs run `vmm`.
    pub fn new(runtime_dir: &Path, state_dir: &Path, vmm: &Path) -> Self {
        let jail_base = runtime_dir.join("jail");
        Self {
            runtimes: runtime_dir.join("vms"),
            jails: jail_base.join(vmm.file_name().unwrap_or_default()),
            jail_base,
            states: Self::states_below(state_dir),
        }
    }

    /// Where all VMs have their lasting files.
    pub fn states_below(state_dir: &Path) -> PathBuf {
        state_dir.join("vms")
    }

    /// The places of `id`.
    pub fn place(&self, id: VmId) -> Place {
        let below = |dir: &Path| dir.join(id.to_string());
        Place {
            runtime: below(&self.runtimes),
            jail: below(&self.jails),
            state: below(&self.states),
        }
    }
}

impl Place {
    /// The VMM's configuration.
    pub fn config(&self) -> PathBuf {
        self.runtime.join("vm.json")
    }

    /// The Unix socket that leads to the guest. Its directory belongs to the VM: the socket may be gone or be anything.
    pub fn socket(&self) -> PathBuf {
        self.jail.join("root").join(SOCKET)
    }

    /// The jailer's process identifier, written by the process itself before it becomes the jailer.
    pub fn jailer_pid(&self) -> PathBuf {
        self.runtime.join("jailer.pid")
    }

    /// The VMM's process identifier, written by the jailer before that process becomes the VMM.
    pub fn vmm_pid(&self) -> PathBuf {
        self.jail.join("vmm.pid")
    }

    /// The guest's serial console.
    pub fn console(&self) -> PathBuf {
        self.runtime.join("console.log")
    }

    /// What the VMM says of itself.
    pub fn errors(&self) -> PathBuf {
        self.runtime.join("stderr.log")
    }

    /// The disk of the writable layer.
    pub fn disk(&self) -> PathBuf {
        self.state.join(DISK)
    }

    /// The workload's output.
    pub fn log(&self) -> PathBuf {
        self.state.join("log")
    }

    /// The output of one of its containers.
    pub fn container_log(&self, name: &str) -> PathBuf {
        self.state.join("containers").join(name)
    }

    /// Removes what the VMM left. Nothing there is no error.
    pub fn clear_runtime(&self) -> io::Result<()> {
        remove(&self.jail)?;
        remove(&self.runtime)
    }

    /// Removes what lasts as long as the record.
    pub fn clear_state(&self) -> io::Result<()> {
        remove(&self.state)
    }
}

/// The identifiers that have an entry in `dir`, none where it is missing; other names are none of ours and stay.
pub(crate) fn entries(dir: &Path) -> io::Result<Vec<VmId>> {
    let mut ids = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ids),
        entries => entries?,
    };
    for entry in entries {
        if let Ok(name) = entry?.file_name().into_string() {
            ids.extend(name.parse::<VmId>());
        }
    }
    ids.sort();
    Ok(ids)
}

/// Makes a directory that only we enter, with its parents.
pub(crate) fn make_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The number in a pid file that is written once and whole.
pub(super) fn read_number(path: &Path) -> io::Result<u32> {
    let text = fs::read_to_string(path)?;
    text.trim_end().parse().map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{}: no number", path.display()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_holds_a_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        assert!(read_number(&path).is_err());
        fs::write(&path, "12\n").unwrap();
        assert_eq!(read_number(&path).unwrap(), 12);
        fs::write(&path, "1x").unwrap();
        assert!(read_number(&path).unwrap_err().to_string().contains("no number"));
    }
}
