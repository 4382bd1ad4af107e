//! Starting a VMM.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{Flock, FlockArg};
use secovia_vmm_api::VmSpec;

use super::place::make_private_dir;
use super::{Cgroups, Limits, Place, Vmm};
use crate::records::VmId;
use crate::sys;

/// Why a VMM was not started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A file that it needs cannot be made.
    #[error("{operation} {path}: {source}")]
    File {
        /// What was to be done.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The program cannot be run.
    #[error("run VMM {program}: {source}; check `vmm` in agent.toml")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Starts `program` for the VM `id`, in a runtime directory of its own. What an earlier VMM left there is removed:
/// the caller knows that it is gone.
///
/// The process writes its number down itself before it becomes the VMM, so that there is no moment at which a VMM
/// runs and its pid file is not there yet. Until then it holds the file's lock (as does this process until it knows),
/// so that whoever takes the lock reads either a number or nothing, for good.
pub fn launch(
    program: &Path,
    id: VmId,
    place: &Place,
    spec: &VmSpec,
    cgroups: &Cgroups,
    limits: Limits,
) -> Result<Vmm, LaunchError> {
    let failed = |operation, path: &Path| {
        let path = path.to_path_buf();
        move |source| LaunchError::File {
            operation,
            path,
            source,
        }
    };
    place.clear_runtime().map_err(failed("remove", &place.runtime))?;
    make_private_dir(&place.runtime).map_err(failed("make directory", &place.runtime))?;
    let config = place.config();
    write_config(&config, spec).map_err(failed("write", &config))?;
    let pid_path = place.pid();
    let pid_file = create(&pid_path).map_err(failed("create", &pid_path))?;
    let pid_file = Flock::lock(pid_file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, errno)| failed("lock", &pid_path)(errno.into()))?;
    let console = place.console();
    let stdout = create(&console).map_err(failed("create", &console))?;
    let errors = place.errors();
    let stderr = create(&errors).map_err(failed("create", &errors))?;
    let cgroup = cgroups.create(id, limits);

    let mut command = Command::new(program);
    command
        .arg("--config-file")
        .arg(&config)
        .arg("--no-api")
        .args(["--id", &id.to_string()])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr);
    sys::before_exec(
        &mut command,
        pid_file.as_raw_fd(),
        cgroup.as_ref().map(AsRawFd::as_raw_fd),
    );
    let mut child = command.spawn().map_err(|source| LaunchError::Spawn {
        program: program.to_path_buf(),
        source,
    })?;
    // A child's number is ours until it is reaped, and only `Vmm::wait` reaps it.
    Vmm::open(child.id()).map_err(|error| {
        // What nobody watches must not run.
        let _ = child.kill().and_then(|()| child.wait());
        failed("watch process of", program)(error)
    })
}

fn write_config(path: &Path, spec: &VmSpec) -> io::Result<()> {
    create(path)?.write_all(&serde_json::to_vec_pretty(spec)?)
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}
