//! Starting a VMM in its jail.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use secovia_vmm_api::VmSpec;

use super::cgroup::CgroupError;
use super::place::{make_private_dir, read_number};
use super::{Cgroups, Dirs, Limits, Vmm};
use crate::records::VmId;
use crate::sys;

/// How long the jailer may take: it needs milliseconds, on an emulated host that is busy a hundred times as much.
const JAILER_TIME: Duration = Duration::from_secs(20);

/// A VMM's descriptors: its guest may have 256 streams, each with one, and 128 more may wait to be taken.
const NO_FILE: u64 = 1_024;

/// How much of the guest's console is kept, in bytes.
const CONSOLE_MAX: &str = "1048576";

/// No file of a VMM's grows larger, but for its disks. The VMM itself keeps far below it: this is for one that a guest took
/// over.
const FILE_MAX: u64 = 64 << 20;

/// The configuration's name in the jail.
const CONFIG: &str = "vm.json";

/// What a VM runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The VMM's configuration, with paths as the VMM sees them: `/` and a file's name.
    pub spec: VmSpec,
    /// What it sees beside its configuration.
    pub files: Vec<JailFile>,
    /// The network namespace that it runs in; a new one with nothing in it where none is given.
    pub netns: Option<PathBuf>,
}

/// A file of the host's that a VMM sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JailFile {
    /// Where it lies, without symbolic links.
    pub source: PathBuf,
    /// What it is called in the jail.
    pub name: String,
    /// The VMM may write it; it belongs to the VM's user then.
    pub writable: bool,
}

impl JailFile {
    /// `source`, which the VMM sees as `name` and only reads.
    pub fn read_only(name: &str, source: PathBuf) -> Self {
        Self {
            source,
            name: name.into(),
            writable: false,
        }
    }
}

/// Starts VMMs.
#[derive(Debug)]
pub struct Launcher {
    /// The jailer's program.
    pub jailer: PathBuf,
    /// The VMM's.
    pub vmm: PathBuf,
    /// Where all VMs have their files.
    pub dirs: Dirs,
    /// The host's control groups.
    pub cgroups: Cgroups,
    /// Each VM's threads have cores of their own.
    pub core_scheduling: bool,
}

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
    /// It cannot be held in its bounds.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The jailer's program cannot be run.
    #[error("run jailer {program}: {source}; check `jailer` in agent.toml")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The jailer did not come to its end.
    #[error("the jailer did not end within {} s", JAILER_TIME.as_secs())]
    Slow,
    /// The jailer failed.
    #[error("the jailer failed ({status}){}", last_words(.said))]
    Jailer {
        /// How it ended.
        status: ExitStatus,
        /// Its last words.
        said: Option<String>,
    },
    /// The jailer succeeded, and yet there is no VMM.
    #[error("the jailer ended well and left no VMM: {source}")]
    NoVmm {
        /// Why not.
        source: io::Error,
    },
}

fn last_words(line: &Option<String>) -> String {
    line.as_ref()
        .map_or_else(String::new, |line| format!("; it said: {line}"))
}

impl Launcher {
    /// Starts the VMM of `id` as the user `uid`. What an earlier one left is removed: the caller knows that it is gone.
    ///
    /// The jailer's process writes its number down itself before it becomes the jailer, and the jailer writes the
    /// VMM's down before that becomes the VMM: there is no moment at which one of them runs and cannot be found. Until
    /// the first is the jailer it holds its pid file's lock (as does this process until it knows), so that whoever
    /// takes the lock knows that nobody is about to come.
    pub fn launch(&self, id: VmId, uid: u32, machine: &Machine, limits: Limits) -> Result<Vmm, LaunchError> {
        let place = self.dirs.place(id);
        place.clear_runtime().map_err(failed("remove", &place.runtime))?;
        make_private_dir(&place.runtime).map_err(failed("make directory", &place.runtime))?;
        let config = place.config();
        write_config(&config, &machine.spec).map_err(failed("write", &config))?;
        let pid_path = place.jailer_pid();
        let pid_file = create(&pid_path).map_err(failed("create", &pid_path))?;
        let pid_file = Flock::lock(pid_file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| failed("lock", &pid_path)(errno.into()))?;
        let console = place.console();
        let stdout = create(&console).map_err(failed("create", &console))?;
        let errors = place.errors();
        let stderr = create(&errors).map_err(failed("create", &errors))?;
        let cgroup = self.cgroups.create(id, limits, &place.state)?;

        let mut command = Command::new(&self.jailer);
        command
            .args(self.words(id, uid, machine, &config))
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr);
        let hook = sys::BeforeExec {
            pid_file: pid_file.as_raw_fd(),
            cgroup_procs: cgroup.as_ref().map(AsRawFd::as_raw_fd),
            core_scheduling: self.core_scheduling,
        };
        hook.install(&mut command);
        let mut child = command.spawn().map_err(|source| LaunchError::Spawn {
            program: self.jailer.clone(),
            source,
        })?;
        let status = match wait_for(&mut child, JAILER_TIME) {
            Ok(Some(status)) => status,
            ended => {
                // What does not end in time must not go on either.
                let _ = child.kill().and_then(|()| child.wait());
                end_group(child.id());
                return Err(ended.map_or_else(failed("wait for", &self.jailer), |_| LaunchError::Slow));
            }
        };
        if !status.success() {
            // It was ended between the VMM's start and its own end, perhaps.
            end_group(child.id());
            let said = last_line(&errors);
            return Err(LaunchError::Jailer { status, said });
        }
        // A child's number is ours until it is reaped, and only `Vmm::wait` reaps it.
        let vmm = read_number(&place.vmm_pid()).and_then(Vmm::open);
        vmm.map_err(|source| {
            end_group(child.id());
            LaunchError::NoVmm { source }
        })
    }

    /// The jailer's command line.
    fn words(&self, id: VmId, uid: u32, machine: &Machine, config: &Path) -> Vec<OsString> {
        let largest = machine.files.iter().filter(|file| file.writable);
        let largest = largest.filter_map(|file| fs::metadata(&file.source).ok());
        let file_max = largest.map(|disk| disk.len()).fold(FILE_MAX, u64::max);
        let (id, uid) = (id.to_string(), uid.to_string());
        let mut words: Vec<OsString> = Vec::new();
        let mut option = |name: &str, value: OsString| words.extend([name.into(), value]);
        option("--id", id.clone().into());
        option("--exec-file", self.vmm.clone().into());
        option("--uid", uid.clone().into());
        option("--gid", uid.into());
        option("--chroot-base-dir", self.dirs.jail_base.clone().into());
        option("--resource-limit", format!("no-file={NO_FILE}").into());
        option("--resource-limit", format!("fsize={file_max}").into());
        option("--file", handed(config, CONFIG, false));
        if let Some(netns) = &machine.netns {
            option("--netns", netns.into());
            option("--device", "tun".into());
        }
        for file in &machine.files {
            option("--file", handed(&file.source, &file.name, file.writable));
        }
        words.extend(["--new-pid-ns", "--", "--config-file"].map(OsString::from));
        words.push(format!("/{CONFIG}").into());
        words.extend(["--no-api", "--id", &id, "--console-limit", CONSOLE_MAX].map(OsString::from));
        words
    }
}

/// Waits for a child's end: its status, or nothing where it takes longer.
fn wait_for(child: &mut Child, time: Duration) -> io::Result<Option<ExitStatus>> {
    let pidfd = sys::pidfd_open(child.id())?;
    let mut ready = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
    let begun = Instant::now();
    loop {
        match poll(&mut ready, timeout) {
            Err(Errno::EINTR) if begun.elapsed() < time => {}
            Err(errno) => return Err(errno.into()),
            Ok(_) => return child.try_wait(),
        }
    }
}

/// Ends all processes that a jailer left that did not come to its end, and reaps those that became our children.
fn end_group(leader: u32) {
    let group = Pid::from_raw(leader as i32);
    // No such group: nothing was left.
    if killpg(group, Signal::SIGKILL).is_ok() {
        while waitpid(Pid::from_raw(-group.as_raw()), None).is_ok() {}
    }
}

/// `SOURCE:NAME[:rw]`.
fn handed(source: &Path, name: &str, writable: bool) -> OsString {
    let mut word = OsString::from(source);
    word.push(format!(":{name}{}", if writable { ":rw" } else { "" }));
    word
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LaunchError {
    let path = path.to_path_buf();
    move |source| LaunchError::File {
        operation,
        path,
        source,
    }
}

/// The VM's user reads it through the jail; the directory that it lies in keeps everybody else out.
fn write_config(path: &Path, spec: &VmSpec) -> io::Result<()> {
    let mut file = create(path)?;
    file.write_all(&serde_json::to_vec_pretty(spec)?)?;
    file.set_permissions(fs::Permissions::from_mode(0o444))
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn last_line(path: &Path) -> Option<String> {
    let text = String::from_utf8_lossy(&fs::read(path).ok()?).into_owned();
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.chars().filter(|c| !c.is_control()).take(480).collect())
}
