//! Which programs the scenarios run: the stand-ins, or the real ones.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What the scenarios run.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The daemon.
    pub agent: PathBuf,
    /// The VMM.
    pub vmm: PathBuf,
    /// The jailer.
    pub jailer: PathBuf,
    /// The guest's kernel; none where the VMM is the stand-in.
    pub kernel: Option<PathBuf>,
    /// The guest's initrd.
    pub initrd: Option<PathBuf>,
    /// An image directory with a shell.
    pub image: Option<PathBuf>,
}

/// A file that can be executed.
pub(crate) fn is_executable(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o111 != 0)
}

impl Programs {
    /// The stand-in VMM, in a real jail.
    pub fn fake(agent: &str, vmm: &str, jailer: &str) -> Self {
        Self {
            agent: agent.into(),
            vmm: vmm.into(),
            jailer: jailer.into(),
            kernel: None,
            initrd: None,
            image: None,
        }
    }

    /// The real ones, from the variables that `ci/test` sets; what is missing where it does not.
    pub fn real() -> Result<Self, String> {
        let path = |name: &str| match std::env::var_os(name) {
            Some(value) => Ok(PathBuf::from(value)),
            None => Err(format!("{name} is not set")),
        };
        let programs = Self {
            agent: path("SECOVIA_AGENT")?,
            vmm: path("SECOVIA_VMM")?,
            jailer: path("SECOVIA_JAILER")?,
            kernel: Some(path("SECOVIA_KERNEL")?),
            initrd: Some(path("SECOVIA_INITRD")?),
            image: Some(path("SECOVIA_IMAGE_BASE")?),
        };
        for program in [&programs.agent, &programs.vmm, &programs.jailer] {
            match is_executable(program) {
                Ok(true) => {}
                Ok(false) => return Err(format!("{} is not executable", program.display())),
                Err(error) => return Err(format!("{}: {error}", program.display())),
            }
        }
        Ok(programs)
    }
}
