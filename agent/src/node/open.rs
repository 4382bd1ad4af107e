//! The start of an agent: the state directory is taken, and records and host are made to agree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::clock::now_ms;
use crate::config::Config;
use crate::images::{ImageError, ImageStore};
use crate::lending::desk::{Desk, claim};
use crate::lending::journal::JournalError;
use crate::lending::measure::{MeasureError, Meter};
use crate::lifecycle;
use crate::network::{HOST_NETWORK, Network};
use crate::process::{Cgroups, Dirs, Found, Launcher, entries, find, is_vmm, make_private_dir, settle};
use crate::reconcile::{self, Observed, Recorded, Step};
use crate::records::{Record, Store, StoreError, VmId};
use crate::supervisor::{Begin, Context};
use crate::sys;

/// How long a VMM may take to go after SIGKILL.
const END_TIME: Duration = Duration::from_secs(10);

/// How long a child may take between fork and exec.
const FORK_TIME: Duration = Duration::from_secs(10);

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another agent has the state directory.
    #[error(
        "state directory {dir} is in use by another agent{}; end that one or set another `state_dir`",
        .pid.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// The other agent's process, as it says.
        pid: Option<u32>,
    },
    /// A file or directory cannot be used.
    #[error(
        "{operation} {path}: {source}; the agent runs as root, or needs directories of its own in agent.toml"
    )]
    File {
        /// What was to be done.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The configuration asks for what the kernel has not.
    #[error(
        "`core_scheduling` in agent.toml is on, and this kernel has no core scheduling; start the host with `nosmt` \
         instead and switch it off, or use a kernel with CONFIG_SCHED_CORE"
    )]
    CoreScheduling,
    /// The records cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The images cannot be read.
    #[error(transparent)]
    Images(#[from] ImageError),
    /// The audit log cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What the machine has cannot be found out.
    #[error(transparent)]
    Measure(#[from] MeasureError),
    /// A VMM without a record cannot be ended.
    #[error("end VMM {pid} of user {uid}, which has no record: {source}")]
    End {
        /// Its process.
        pid: u32,
        /// Its user.
        uid: u32,
        /// Why not.
        source: io::Error,
    },
}

/// What an agent starts with.
pub(super) struct Opened {
    pub(super) context: Context,
    pub(super) lock: Flock<File>,
    pub(super) vms: Vec<(Record, Begin)>,
}

pub(super) fn open(mut config: Config) -> Result<Opened, OpenError> {
    if config.core_scheduling && !sys::has_core_scheduling() {
        return Err(OpenError::CoreScheduling);
    }
    let private = |path: &Path| make_private_dir(path).map_err(failed("make directory", path));
    private(&config.state_dir)?;
    // Members of the group pass through this one to the socket.
    if !config.runtime_dir.exists() {
        let make = || {
            fs::create_dir_all(&config.runtime_dir)?;
            fs::set_permissions(&config.runtime_dir, Permissions::from_mode(0o755))
        };
        make().map_err(failed("make directory", &config.runtime_dir))?;
    }
    // The jailer follows no link, and neither may what it is given: `/var/run` is one on most systems.
    for dir in [&mut config.state_dir, &mut config.runtime_dir] {
        *dir = fs::canonicalize(&*dir).map_err(failed("look up", dir))?;
    }
    let dirs = Dirs::new(&config.runtime_dir, &config.state_dir, &config.vmm);
    for dir in [&dirs.runtimes, &dirs.jail_base, &dirs.states] {
        private(dir)?;
    }
    let lock = take_lock(&config.state_dir)?;
    let store = open_store(&config.state_dir.join("records.redb"))?;
    let images = ImageStore::open(&config.state_dir.join("images"))?;
    let launcher = Launcher {
        jailer: config.jailer.clone(),
        vmm: config.vmm.clone(),
        dirs,
        cgroups: Cgroups::detect(),
        core_scheduling: config.core_scheduling,
    };
    let records = store.all()?;
    let desk = open_desk(&config, &launcher, &records)?;
    let network = config.network.clone();
    let network =
        network.map(|policy| Arc::new(Network::new(policy, &config.runtime_dir.join(HOST_NETWORK))));
    let context = Context {
        config,
        store,
        images,
        launcher,
        network,
        desk: Arc::new(desk),
    };
    let observed = observe(&context, &records)?;
    let recorded: Vec<Recorded<'_>> = records.iter().map(recorded).collect();
    let plan = reconcile::plan(&recorded, &observed);
    mend_network(&context, &records, &plan);
    let vms = carry_out(&context, records, plan)?;
    Ok(Opened { context, lock, vms })
}

/// Opens the desk with the claims that the records stand for: whoever is active has what it has.
fn open_desk(config: &Config, launcher: &Launcher, records: &[Record]) -> Result<Desk, OpenError> {
    let capacity = Meter::new(None, &launcher.dirs.states).capacity()?;
    let claims = records
        .iter()
        .map(|record| (record.id, claim(&record.spec), record.life.is_live()));
    let dir = config.state_dir.join("lending");
    let policy = config.policy.clone();
    Ok(Desk::open(
        &dir,
        config.audit_max_bytes,
        policy,
        capacity,
        claims,
        now_ms(),
    )?)
}

fn take_lock(dir: &Path) -> Result<Flock<File>, OpenError> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed("open", &path))?;
    let mut file = file;
    let begun = Instant::now();
    let mut lock = loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => break lock,
            Err((back, Errno::EWOULDBLOCK)) => back,
            Err((_, errno)) => return Err(failed("lock", &path)(errno.into())),
        };
        // A killed agent's last child has the lock too until it becomes a VMM; that takes a moment at most.
        let pid = holder(&mut file);
        if pid.is_none_or(is_alive) || begun.elapsed() > FORK_TIME {
            return Err(OpenError::Locked {
                dir: dir.to_path_buf(),
                pid,
            });
        }
        thread::sleep(Duration::from_millis(2));
    };
    let mut write = || -> io::Result<()> {
        lock.set_len(0)?;
        lock.rewind()?;
        writeln!(lock, "{}", std::process::id())
    };
    write().map_err(failed("write", &path))?;
    Ok(lock)
}

/// The agent that wrote itself into the lock file.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim_end().parse().ok()
}

/// Whether the process runs; one that was ended and only waits to be reaped does not.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    !state.is_empty() && !state.starts_with(['Z', 'X'])
}

/// Opens the records; a killed agent's last child may have them open for a moment yet.
fn open_store(path: &Path) -> Result<Store, StoreError> {
    let begun = Instant::now();
    loop {
        match Store::open(path) {
            Err(StoreError::InUse { .. }) if begun.elapsed() < FORK_TIME => {
                thread::sleep(Duration::from_millis(2));
            }
            opened => return opened,
        }
    }
}

fn recorded(record: &Record) -> Recorded<'_> {
    Recorded {
        id: record.id,
        uid: record.uid,
        life: &record.life,
    }
}

fn observe(context: &Context, records: &[Record]) -> Result<Observed, OpenError> {
    let Launcher { dirs, cgroups, .. } = &context.launcher;
    let processes = || failed("look for VMMs in", Path::new("/proc"));
    settle(&context.launcher).map_err(processes())?;
    // The range may have been changed since a record was given its user.
    let users: BTreeSet<u32> = records.iter().map(|record| record.uid).collect();
    let ours = |uid| context.config.vm_uids.contains(uid) || users.contains(&uid);
    let vmms = find(&context.launcher, ours).map_err(processes())?;
    let list = |dir: &Path| entries(dir).map_err(failed("read", dir));
    let mut runtimes = list(&dirs.runtimes)?;
    runtimes.extend(list(&dirs.jails)?);
    runtimes.sort();
    runtimes.dedup();
    Ok(Observed {
        vmms,
        runtimes,
        states: list(&dirs.states)?,
        cgroups: cgroups.list(),
    })
}

/// Makes the network that of the VMs that run. A node that cannot have one goes on without: each start that needs it says why
/// it fails.
fn mend_network(context: &Context, records: &[Record], plan: &[Step]) {
    let Some(network) = &context.network else {
        return;
    };
    let runs = |record: &&Record| {
        let adopted = |step: &Step| matches!(step, Step::Adopt(id, _) if *id == record.id);
        plan.iter().any(adopted)
    };
    let ports = records
        .iter()
        .filter(runs)
        .filter_map(|record| record.network.clone());
    let up = ports.map(|port| (port.lease.v4, port)).collect();
    if let Err(error) = network.repair(up).and_then(|()| network.guard()) {
        log::error!("prepare the network: {error}");
    }
}

/// Carries the plan out as far as it concerns the host, and says what each VM's task begins with.
fn carry_out(
    context: &Context,
    records: Vec<Record>,
    plan: Vec<Step>,
) -> Result<Vec<(Record, Begin)>, OpenError> {
    let mut records: BTreeMap<VmId, Record> = records.into_iter().map(|record| (record.id, record)).collect();
    let mut vms = Vec::new();
    let mut begin = |id: VmId, begin: Begin| {
        if let Some(record) = records.remove(&id) {
            vms.push((record, begin));
        }
    };
    for step in plan {
        match step {
            Step::End(found) => end(found)?,
            Step::ClearRuntime(id) => {
                let place = context.place(id);
                place.clear_runtime().map_err(failed("remove", &place.runtime))?;
            }
            Step::ClearState(id) => {
                let place = context.place(id);
                place.clear_state().map_err(failed("remove", &place.state))?;
            }
            Step::ClearCgroup(id) => context.launcher.cgroups.remove(id),
            Step::Adopt(id, found) => begin(id, Begin::Adopt(found)),
            Step::Lost(id) => begin(id, Begin::Lost),
            Step::Keep(id) => begin(id, Begin::Keep),
            Step::Remove(id) => begin(id, Begin::Steps(vec![lifecycle::Step::Remove])),
            Step::Start(id) => begin(id, Begin::Start),
        }
    }
    Ok(vms)
}

/// Ends a VMM and waits until it is gone.
fn end(found: Found) -> Result<(), OpenError> {
    log::warn!(
        "VMM {} of user {} has no record that stands for it: ended",
        found.pid,
        found.uid
    );
    let failed = |source| OpenError::End {
        pid: found.pid,
        uid: found.uid,
        source,
    };
    let pidfd = match sys::pidfd_open(found.pid) {
        Ok(pidfd) => pidfd,
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !is_vmm(found) {
        return Ok(());
    }
    sys::pidfd_kill(&pidfd, libc::SIGKILL).map_err(failed)?;
    let begun = Instant::now();
    while is_vmm(found) {
        if begun.elapsed() > END_TIME {
            return Err(failed(io::ErrorKind::TimedOut.into()));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_path_buf();
    move |source| OpenError::File {
        operation,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_was_ended_is_not_alive() {
        assert!(is_alive(std::process::id()));
        assert!(!is_alive(u32::MAX >> 1));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(is_alive(child.id()));
        child.kill().unwrap();
        let begun = Instant::now();
        while is_alive(child.id()) {
            assert!(begun.elapsed() < Duration::from_secs(5));
            thread::sleep(Duration::from_millis(1));
        }
        child.wait().unwrap();
    }

    #[test]
    fn a_lock_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let lock = take_lock(dir.path()).unwrap();
        let error = take_lock(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("(process {})", std::process::id())),
            "{error}"
        );
        drop(lock);
        // What a killed agent's last child does: the lock is held, its owner is gone.
        let held = take_lock(dir.path()).unwrap();
        fs::write(dir.path().join("lock"), format!("{}\n", u32::MAX >> 1)).unwrap();
        let child = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            drop(held);
        });
        take_lock(dir.path()).unwrap();
        child.join().unwrap();
    }
}
