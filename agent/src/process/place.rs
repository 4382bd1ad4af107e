//! Where a VM's files lie.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::records::VmId;

/// The places of one VM's files: what lives as long as its VMM, and what lives as long as its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// As long as the VMM.
    pub runtime: PathBuf,
    /// As long as the record.
    pub state: PathBuf,
}

impl Place {
    /// The places of `id`.
    pub fn new(runtime_dir: &Path, state_dir: &Path, id: VmId) -> Self {
        Self {
            runtime: Self::runtimes(runtime_dir).join(id.to_string()),
            state: Self::states(state_dir).join(id.to_string()),
        }
    }

    /// Where all VMs have their runtime files.
    pub fn runtimes(runtime_dir: &Path) -> PathBuf {
        runtime_dir.join("vms")
    }

    /// Where all VMs have their lasting files.
    pub fn states(state_dir: &Path) -> PathBuf {
        state_dir.join("vms")
    }

    /// The VMM's configuration.
    pub fn config(&self) -> PathBuf {
        self.runtime.join("vm.json")
    }

    /// The Unix socket that leads to the guest.
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("vsock.sock")
    }

    /// The VMM's process identifier, written by the process itself before it becomes the VMM.
    pub fn pid(&self) -> PathBuf {
        self.runtime.join("pid")
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
        self.state.join("disk.ext4")
    }

    /// The workload's output.
    pub fn log(&self) -> PathBuf {
        self.state.join("log")
    }

    /// Removes what the VMM left. Nothing there is no error.
    pub fn clear_runtime(&self) -> io::Result<()> {
        remove(&self.runtime)
    }

    /// Removes what lasts as long as the record.
    pub fn clear_state(&self) -> io::Result<()> {
        remove(&self.state)
    }
}

/// The identifiers that have an entry in `dir`; other names are none of ours and stay.
pub(crate) fn entries(dir: &Path) -> io::Result<Vec<VmId>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(dir)? {
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
