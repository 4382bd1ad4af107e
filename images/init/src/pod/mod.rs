//! Several containers in one guest: started in order, watched, started again. What happens to each is decided in [`life`];
//! this is the shell around it.
//!
//! Each container has a thread that keeps it, and each run of it one that enters the container's root, so that all that a run
//! looks up and starts is found there. Each probe of a run has a thread too.
//!
//! Locks: the board, then a [`Process`]'s; never the other way round.

mod check;
mod keep;
mod life;
mod probe;
mod volume;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use secovia_guest_protocol::{
    ContainerSpec, ExitStatus, GuestError, GuestErrorCode, PodReport, PodSpec, ProcessSpec, WorkloadState,
};

use crate::children::{Children, Pids, thread};
use crate::lock;
use crate::machine::Machine;
use crate::plan::refused;
use crate::process::Process;
use life::Life;

pub(crate) use volume::Incoming as IncomingFile;

/// How many containers a guest may have in all.
const CONTAINERS_MAX: usize = 64;
/// How many volumes.
const VOLUMES_MAX: usize = 128;

/// The containers of this guest.
pub(crate) struct Pod {
    spec: PodSpec,
    machine: Arc<dyn Machine>,
    children: Arc<Children>,
    board: Mutex<Board>,
    /// Something on the board changed.
    changed: Condvar,
    begun: Instant,
}

struct Board {
    /// Init containers first, as in the report.
    seats: Vec<Seat>,
    /// Counts changes.
    version: u64,
    /// Nobody is started any more.
    is_ending: bool,
    /// All have ended for good.
    outcome: Option<ExitStatus>,
}

struct Seat {
    life: Life,
    /// The present run or the last one, where it could be started, and its number.
    run: Option<(u32, Arc<Process>)>,
    /// Why the present run is being ended.
    doom: Option<String>,
}

impl Pod {
    /// Containers that are started at once.
    pub(crate) fn start(
        spec: PodSpec,
        machine: Arc<dyn Machine>,
        children: Arc<Children>,
    ) -> Result<Arc<Self>, GuestError> {
        check(&spec)?;
        let seat = |spec: &ContainerSpec, policy, is_init| Seat {
            life: Life::new(
                policy,
                is_init,
                spec.restarts,
                [
                    spec.startup.as_ref(),
                    spec.liveness.as_ref(),
                    spec.readiness.as_ref(),
                ],
            ),
            run: None,
            doom: None,
        };
        let init = spec.init.iter().map(|one| seat(one, spec.restart, true));
        let others = spec.containers.iter().map(|one| seat(one, spec.restart, false));
        let seats = init.chain(others).collect();
        machine.prepare_volumes(&spec.volumes).map_err(|error| {
            refused(
                GuestErrorCode::Failed,
                format!("cannot prepare the volumes: {error}"),
            )
        })?;
        let pod = Arc::new(Self {
            spec,
            machine,
            children,
            board: Mutex::new(Board {
                seats,
                version: 0,
                is_ending: false,
                outcome: None,
            }),
            changed: Condvar::new(),
            begun: Instant::now(),
        });
        let keeper = Arc::clone(&pod);
        thread("pod", move || keeper.keep_all())
            .map_err(|error| refused(GuestErrorCode::Failed, format!("cannot start a thread: {error}")))?;
        Ok(pod)
    }

    /// All containers' specifications, in the order of the seats.
    fn container(&self, index: usize) -> Option<&ContainerSpec> {
        self.spec.init.iter().chain(&self.spec.containers).nth(index)
    }

    /// The first of the containers that are no init containers.
    pub(crate) fn first(&self) -> &str {
        self.spec.containers.first().map_or("", |first| &first.name)
    }

    fn find(&self, name: &str) -> Result<usize, GuestError> {
        let mut all = self.spec.init.iter().chain(&self.spec.containers);
        all.position(|container| container.name == name).ok_or_else(|| {
            refused(
                GuestErrorCode::NoSuchContainer,
                format!("there is no container {name:?}"),
            )
        })
    }

    /// A run of a container that was started, with its number: `wanted`, or in its place the present or last one.
    pub(crate) fn run(&self, name: &str, wanted: Option<u32>) -> Result<(u32, Arc<Process>), GuestError> {
        let index = self.find(name)?;
        let board = lock(&self.board);
        let run = board.seats.get(index).and_then(|seat| seat.run.clone());
        run.filter(|(number, _)| wanted.is_none_or(|wanted| wanted <= *number))
            .ok_or_else(|| {
                refused(
                    GuestErrorCode::NotRunning,
                    format!("container {name:?} has not come so far"),
                )
            })
    }

    /// Moves the calling thread into a container that runs, for good: what it looks up and starts is there. Gives a process
    /// that is to be one more in the container, and what is to be run with all that was left out filled in.
    pub(crate) fn enter(&self, name: &str, process: ProcessSpec) -> Result<(Pids, ProcessSpec), GuestError> {
        let not_running = || {
            refused(
                GuestErrorCode::NotRunning,
                format!("container {name:?} does not run"),
            )
        };
        let (_, run) = self.run(name, None).map_err(|error| match error.code {
            GuestErrorCode::NotRunning => not_running(),
            _ => error,
        })?;
        let spec = self.container(self.find(name)?).ok_or_else(not_running)?;
        let pid = run.pid().ok_or_else(not_running)?;
        let pids = self.machine.join(pid).map_err(|error| {
            refused(
                GuestErrorCode::Failed,
                format!("cannot enter container {name:?}: {error}"),
            )
        })?;
        let own = spec.process.clone();
        let mut env = own.env;
        env.extend(process.env);
        Ok((
            pids,
            ProcessSpec {
                argv: process.argv,
                env,
                cwd: process.cwd.or(own.cwd),
                user: process.user.or(own.user),
                tty: process.tty,
            },
        ))
    }

    /// Signals all containers that run; false where none does.
    pub(crate) fn signal(&self, signal: i32) -> bool {
        let processes: Vec<Arc<Process>> = {
            let board = lock(&self.board);
            let runs = board.seats.iter().filter_map(|seat| seat.run.as_ref());
            runs.map(|(_, process)| Arc::clone(process)).collect()
        };
        let reached = processes
            .iter()
            .filter(|process| process.signal(signal).unwrap_or(false));
        reached.count() > 0
    }

    /// What the containers do, when that is no more what it was at `version`; nothing once `gone` is set and
    /// [`Pod::wake`] was called.
    pub(crate) fn next_report(&self, version: &mut Option<u64>, gone: &AtomicBool) -> Option<PodReport> {
        let mut board = lock(&self.board);
        loop {
            if gone.load(Ordering::Relaxed) {
                return None;
            }
            if *version != Some(board.version) {
                *version = Some(board.version);
                return Some(PodReport {
                    containers: board.seats.iter().map(|seat| seat.life.report()).collect(),
                });
            }
            if board.outcome.is_some() {
                return None;
            }
            board = self.changed.wait(board).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// How all of it ended, where it did: 0, or the first status that is not.
    pub(crate) fn outcome(&self) -> Option<ExitStatus> {
        lock(&self.board).outcome
    }

    /// What the host learns of a workload.
    pub(crate) fn state(&self) -> WorkloadState {
        self.outcome()
            .map_or(WorkloadState::Running, WorkloadState::Ended)
    }

    /// Makes those who wait look again.
    pub(crate) fn wake(&self) {
        drop(lock(&self.board));
        self.changed.notify_all();
    }

    /// From now on nobody is started.
    pub(crate) fn end(&self) {
        self.change(|board| board.is_ending = true);
    }

    /// Waits until all have ended, at most until the deadline, which is asked for anew after each [`Pod::wake`]. True where
    /// all have.
    pub(crate) fn wait_until_over(&self, deadline: impl Fn() -> Instant) -> bool {
        let mut board = lock(&self.board);
        while board.outcome.is_none() {
            let left = deadline().saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(board, left);
            board = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Changes the board, and tells everybody.
    fn change<T>(&self, change: impl FnOnce(&mut Board) -> T) -> T {
        let mut board = lock(&self.board);
        let result = change(&mut board);
        board.version = board.version.wrapping_add(1);
        drop(board);
        self.changed.notify_all();
        result
    }

    /// Where probes ask.
    fn own_address(&self) -> IpAddr {
        let network = self.spec.network.as_ref();
        network.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |network| network.ipv4.into())
    }

    /// The clock that never goes back, and the calendar's, in milliseconds.
    fn now(&self) -> (u64, u64) {
        let calendar = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        (ms(self.begun.elapsed()), ms(calendar))
    }
}

/// Refuses what makes no sense.
fn check(spec: &PodSpec) -> Result<(), GuestError> {
    let bad = |message: String| Err(refused(GuestErrorCode::BadRequest, message));
    let mut names = BTreeSet::new();
    if spec.containers.is_empty() || spec.volumes.len() > VOLUMES_MAX {
        return bad(format!(
            "a guest has one container at least, and {VOLUMES_MAX} volumes at most"
        ));
    }
    if spec.init.len().saturating_add(spec.containers.len()) > CONTAINERS_MAX {
        return bad(format!("a guest has {CONTAINERS_MAX} containers at most"));
    }
    for volume in &spec.volumes {
        if !volume::is_name(&volume.name) || !names.insert(volume.name.as_str()) {
            return bad(format!("volume {:?}: the name is none, or is taken", volume.name));
        }
    }
    let volumes = std::mem::take(&mut names);
    for container in spec.init.iter().chain(&spec.containers) {
        let name = &container.name;
        if !volume::is_name(name) || !names.insert(name) {
            return bad(format!("container {name:?}: the name is none, or is taken"));
        }
        if container.disk.is_empty() || !container.disk.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return bad(format!("container {name:?}: {:?} is no disk", container.disk));
        }
        for mount in &container.mounts {
            if !volumes.contains(mount.volume.as_str()) || !mount.path.starts_with('/') {
                return bad(format!(
                    "container {name:?}: volume {:?} cannot be at {:?}",
                    mount.volume, mount.path
                ));
            }
        }
        for probe in [&container.startup, &container.liveness, &container.readiness] {
            let is_whole = |probe: &secovia_guest_protocol::ProbeSpec| {
                probe.period_ms > 0 && probe.timeout_ms > 0 && probe.success > 0 && probe.failure > 0
            };
            if !probe.as_ref().is_none_or(is_whole) {
                return bad(format!(
                    "container {name:?}: a probe has a zero where none can be"
                ));
            }
        }
    }
    Ok(())
}
