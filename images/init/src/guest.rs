//! The guest as its sessions see it: one workload, the processes beside it, the machine under it.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use secovia_guest_protocol::{
    FileSpec, GuestError, GuestErrorCode, GuestInfo, NetworkSetup, PodSpec, WorkloadSpec,
};

use crate::children::{Children, Pids, Reaping, thread};
use crate::lock;
use crate::machine::Machine;
use crate::plan::refused;
use crate::pod::{IncomingFile, Pod};
use crate::process::Process;

/// How much output of the workload is kept while nobody is attached.
const HISTORY: usize = 1024 * 1024;
/// How many sessions there may be at a time.
pub(crate) const MAX_SESSIONS: usize = 128;
/// How long the last frames may take to reach the host before the power goes.
const FAREWELL: Duration = Duration::from_secs(1);

/// What the sessions share.
pub(crate) struct Guest {
    machine: Arc<dyn Machine>,
    children: Arc<Children>,
    workload: Arc<Process>,
    /// The containers that run in the place of a workload.
    pod: Mutex<Option<Arc<Pod>>>,
    sessions: Mutex<usize>,
    session_ended: Condvar,
    /// When the workload's grace ends, once a shutdown has begun.
    shutdown: Mutex<Option<Instant>>,
}

impl Guest {
    pub(crate) fn new(machine: impl Machine, reaping: Reaping) -> io::Result<Arc<Self>> {
        let children = Children::new(reaping)?;
        let workload = Process::new(Arc::clone(&children), HISTORY)?;
        Ok(Arc::new(Self {
            machine: Arc::new(machine),
            children,
            workload,
            pod: Mutex::new(None),
            sessions: Mutex::new(0),
            session_ended: Condvar::new(),
            shutdown: Mutex::new(None),
        }))
    }

    /// Counts a session in; false where there are too many.
    pub(crate) fn enter(&self) -> bool {
        let mut sessions = lock(&self.sessions);
        let room = *sessions < MAX_SESSIONS;
        if room {
            *sessions = sessions.saturating_add(1);
        }
        room
    }

    /// Counts a session out.
    pub(crate) fn leave(&self) {
        let mut sessions = lock(&self.sessions);
        *sessions = sessions.saturating_sub(1);
        self.session_ended.notify_all();
    }

    /// Ends the workload (SIGTERM, after the grace SIGKILL), lets the host read the end of the story and powers the
    /// machine off. Returns at once. Called again it can only shorten the grace.
    pub(crate) fn shutdown(self: &Arc<Self>, grace: Duration) {
        let now = Instant::now();
        let deadline = now.checked_add(grace);
        let first = {
            let mut shutdown = lock(&self.shutdown);
            let first = shutdown.is_none();
            // A grace beyond the clock's end: what was said before stands, or a day.
            let deadline = deadline.or_else(|| now.checked_add(Duration::from_secs(86_400)));
            *shutdown = shutdown.into_iter().chain(deadline).min();
            first
        };
        self.workload.wake();
        if let Some(pod) = self.pod() {
            pod.wake();
        }
        if first {
            let guest = Arc::clone(self);
            if thread("shutdown", move || guest.end()).is_err() {
                self.end();
            }
        }
    }

    fn end(&self) {
        let pod = self.pod();
        if let Some(pod) = &pod {
            pod.end();
        }
        self.children.signal_all(libc::SIGTERM);
        let deadline = || lock(&self.shutdown).unwrap_or_else(Instant::now);
        match &pod {
            Some(pod) => drop(pod.wait_until_over(deadline)),
            None => drop(self.workload.wait_until_over(deadline)),
        }
        self.children.end();
        let begin = Instant::now();
        let end = begin.checked_add(FAREWELL).unwrap_or(begin);
        match &pod {
            Some(pod) => drop(pod.wait_until_over(|| end)),
            None => drop(self.workload.wait_until_over(|| end)),
        }
        let sessions = lock(&self.sessions);
        let left = end.saturating_duration_since(Instant::now());
        let waited = self
            .session_ended
            .wait_timeout_while(sessions, left, |count| *count > 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        self.machine.power_off();
    }

    pub(crate) fn workload(&self) -> &Arc<Process> {
        &self.workload
    }

    /// The containers, where there are some.
    pub(crate) fn pod(&self) -> Option<Arc<Pod>> {
        lock(&self.pod).clone()
    }

    pub(crate) fn new_process(&self, history: usize, pids: Pids) -> Result<Arc<Process>, GuestError> {
        Process::new_among(Arc::clone(&self.children), history, pids).map_err(|error| {
            refused(
                GuestErrorCode::Failed,
                format!("cannot prepare a process: {error}"),
            )
        })
    }

    pub(crate) fn start(&self, spec: &WorkloadSpec) -> Result<(), GuestError> {
        if self.pod().is_some() {
            return Err(already_started());
        }
        self.set_up(&spec.hostname, spec.network.as_ref())?;
        self.workload.start(&spec.process)
    }

    pub(crate) fn start_pod(&self, spec: PodSpec) -> Result<(), GuestError> {
        // Held to the end, so that of two requests one is refused.
        let mut pod = lock(&self.pod);
        if pod.is_some() || lock(&self.shutdown).is_some() {
            return Err(already_started());
        }
        self.set_up(&spec.hostname, spec.network.as_ref())?;
        *pod = Some(Pod::start(
            spec,
            Arc::clone(&self.machine),
            Arc::clone(&self.children),
        )?);
        Ok(())
    }

    /// Begins a file of a volume.
    pub(crate) fn new_file(&self, spec: &FileSpec) -> Result<IncomingFile, GuestError> {
        if self.pod().is_some() {
            return Err(already_started());
        }
        let bad = |message: String| refused(GuestErrorCode::Failed, message);
        let volumes = self.machine.volume_files();
        let volumes = volumes.ok_or_else(|| bad("this machine was started for one workload".into()))?;
        IncomingFile::create(&volumes, spec).map_err(|error| {
            bad(format!(
                "cannot write {:?} in volume {:?}: {error}",
                spec.path, spec.volume
            ))
        })
    }

    fn set_up(&self, name: &str, network: Option<&NetworkSetup>) -> Result<(), GuestError> {
        let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'.';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
            let message = format!("{name:?} is not a host name: 1 to 64 letters, digits, '-' and '.'");
            return Err(refused(GuestErrorCode::BadRequest, message));
        }
        self.machine.set_hostname(name).map_err(|error| {
            refused(
                GuestErrorCode::Failed,
                format!("cannot set the host name {name}: {error}"),
            )
        })?;
        if let Some(setup) = network {
            self.machine.set_network(setup).map_err(|error| {
                let interface = &setup.interface;
                refused(
                    GuestErrorCode::Failed,
                    format!("cannot set up the network interface {interface}: {error}"),
                )
            })?;
        }
        Ok(())
    }

    pub(crate) fn signal(&self, signal: i32) -> Result<(), GuestError> {
        if !(1..=64).contains(&signal) {
            let message = format!("{signal} is not a signal, 1 to 64");
            return Err(refused(GuestErrorCode::BadRequest, message));
        }
        let reached = match self.pod() {
            Some(pod) => Ok(pod.signal(signal)),
            None => self.workload.signal(signal),
        };
        match reached {
            Ok(true) => Ok(()),
            Ok(false) => Err(refused(GuestErrorCode::NotRunning, "the workload does not run")),
            Err(error) => Err(refused(
                GuestErrorCode::Failed,
                format!("cannot send signal {signal}: {error}"),
            )),
        }
    }

    pub(crate) fn info(&self) -> GuestInfo {
        let (workload, output) = match self.pod() {
            Some(pod) => (pod.state(), 0),
            None => self.workload.report(),
        };
        let release = nix::sys::utsname::uname();
        GuestInfo {
            version: env!("CARGO_PKG_VERSION").to_string(),
            kernel: release
                .map(|u| u.release().to_string_lossy().into_owned())
                .unwrap_or_default(),
            workload,
            output,
            init_at_ns: self.machine.started_after_ns(),
        }
    }
}

fn already_started() -> GuestError {
    refused(
        GuestErrorCode::AlreadyStarted,
        "the workload was started before; a guest runs one",
    )
}
