//! From a VMM that was started to a workload that ended: brings the guest to run the workload and reports what happens.
//! It decides nothing.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use secovia_agent_api::StartTiming;
use secovia_guest_protocol::{
    ContainerReport, GuestErrorCode, GuestInfo, Reply, Request, WorkloadSpec, WorkloadState,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::collect::Collector;
use super::containers::Containers;
use super::hint;
use super::sessions::Sessions;
use crate::guest::{self, GuestCallError};
use crate::lifecycle::{Event, Failure};

/// How often a guest that boots is asked, at first and when it takes long.
const POLL_FAST: Duration = Duration::from_millis(5);
const POLL_SLOW: Duration = Duration::from_millis(100);

/// From when on it takes long.
const BOOTS_LONG: Duration = Duration::from_secs(5);

/// How long a held start waits for its attach session.
const HOLD: Duration = Duration::from_secs(60);

/// What the driver tells the VM's task.
#[derive(Debug)]
pub(super) enum Report {
    /// The guest answers.
    GuestReady,
    /// The start took this long.
    Timing(StartTiming),
    /// The containers do this.
    Containers(Vec<ContainerReport>),
    /// Something that moves the VM's life.
    Happened(Event),
}

/// What a guest is to run.
pub(super) enum Work {
    /// One workload.
    One {
        workload: WorkloadSpec,
        collector: Collector,
    },
    /// Several containers.
    Several(Containers),
}

/// What a driver works with.
pub(super) struct Drive {
    /// The way to the guest.
    pub(super) socket: PathBuf,
    pub(super) work: Work,
    /// Start only when somebody is attached.
    pub(super) hold: bool,
    /// When the VMM was started; unknown where an earlier agent did.
    pub(super) begun: Option<Instant>,
    /// How long the guest may take to answer; for ever where its workload runs already.
    pub(super) boot_timeout: Option<Duration>,
    /// Becomes true when the VMM is gone.
    pub(super) gone: watch::Receiver<bool>,
    pub(super) sessions: Sessions,
    pub(super) reports: mpsc::UnboundedSender<Report>,
}

impl Drive {
    /// Goes on until the workload has ended, the start has failed or the VMM is gone.
    pub(super) async fn run(mut self) {
        let Some(info) = self.wait_for_guest().await else {
            return;
        };
        let guest_us = self.begun.map(micros_since);
        self.report(Report::GuestReady);
        match self.work {
            Work::One {
                ref workload,
                ref collector,
            } => {
                let (workload, collector) = (workload.clone(), collector.clone());
                self.run_one(workload, collector, guest_us, &info).await;
            }
            Work::Several(_) => self.run_several(guest_us, &info).await,
        }
    }

    async fn run_several(self, guest_us: Option<u64>, info: &GuestInfo) {
        let Self {
            socket,
            work,
            begun,
            mut gone,
            reports,
            ..
        } = self;
        let Work::Several(containers) = work else {
            return;
        };
        // Nobody listens any more only when the agent ends.
        let report = |report| drop(reports.send(report));
        let event = match info.workload {
            WorkloadState::Waiting => match containers.start(&socket).await {
                Ok(()) => {
                    if let Some(timing) = timing(guest_us, begun, info) {
                        report(Report::Timing(timing));
                    }
                    Some(Event::WorkloadStarted)
                }
                Err(error) => start_failed("start the containers", error, &mut gone).await,
            },
            WorkloadState::Running | WorkloadState::Ended(_) => Some(Event::WorkloadStarted),
        };
        let Some(event) = event else {
            return;
        };
        let failed = matches!(event, Event::StartFailed(_));
        report(Report::Happened(event));
        if failed {
            return;
        }
        let tell = |containers| report(Report::Containers(containers));
        if let Some(status) = containers.follow(socket, gone, tell).await {
            let code = status.code().clamp(0, 255);
            report(Report::Happened(Event::WorkloadEnded { code }));
        }
    }

    async fn run_one(
        &mut self,
        workload: WorkloadSpec,
        collector: Collector,
        guest_us: Option<u64>,
        info: &GuestInfo,
    ) {
        // Attached before the start, so that no output is lost, and read from now on: the workload waits for us.
        let mut collecting = JoinSet::new();
        let Some(stream) = collector.attach(&mut self.gone).await else {
            return;
        };
        let gone = self.gone.clone();
        collecting.spawn(collector.run(stream, gone));
        let event = match info.workload {
            WorkloadState::Waiting => self.start(workload, guest_us, info).await,
            WorkloadState::Running | WorkloadState::Ended(_) => Some(Event::WorkloadStarted),
        };
        let Some(event) = event else {
            return;
        };
        let failed = matches!(event, Event::StartFailed(_));
        self.report(Report::Happened(event));
        if failed {
            return;
        }
        if let Some(Ok(Some(status))) = collecting.join_next().await {
            // The guest may say any number.
            let code = status.code().clamp(0, 255);
            self.report(Report::Happened(Event::WorkloadEnded { code }));
        }
    }

    async fn wait_for_guest(&mut self) -> Option<GuestInfo> {
        let begun = Instant::now();
        loop {
            if *self.gone.borrow() {
                return None;
            }
            let problem = match guest::try_call(&self.socket, Request::Info {}).await {
                Ok(Reply::Info(info)) => return Some(info),
                Ok(Reply::Done {} | Reply::Run(_)) => "it does not say who it is".to_string(),
                Err(error) => error.to_string(),
            };
            let waited = begun.elapsed();
            if let Some(limit) = self.boot_timeout.filter(|limit| waited > *limit) {
                let reason = format!(
                    "the guest did not come up within {} s: {}",
                    limit.as_secs(),
                    hint::plain(&problem)
                );
                self.report(Report::Happened(Event::StartFailed(Failure::new(reason))));
                return None;
            }
            sleep(if waited < BOOTS_LONG { POLL_FAST } else { POLL_SLOW }).await;
        }
    }

    /// Starts the workload: what came of it, or nothing where the VMM is gone.
    async fn start(
        &mut self,
        workload: WorkloadSpec,
        guest_us: Option<u64>,
        info: &GuestInfo,
    ) -> Option<Event> {
        if self.hold {
            tokio::select! {
                held = timeout(HOLD, self.sessions.any()) => if held.is_err() {
                    let reason = format!("nobody attached within {} s, as its start was to wait for", HOLD.as_secs());
                    return Some(Event::StartFailed(Failure::new(reason)));
                },
                _ = self.gone.wait_for(|gone| *gone) => return None,
            }
        }
        match guest::call(&self.socket, Request::Start(workload)).await {
            Ok(_) => {
                if let Some(timing) = timing(guest_us, self.begun, info) {
                    self.report(Report::Timing(timing));
                }
                Some(Event::WorkloadStarted)
            }
            Err(error) => start_failed("start the workload", error, &mut self.gone).await,
        }
    }

    fn report(&self, report: Report) {
        // Nobody listens any more only when the agent ends.
        let _ = self.reports.send(report);
    }
}

/// How long the start took, where this agent saw all of it.
fn timing(guest_us: Option<u64>, begun: Option<Instant>, info: &GuestInfo) -> Option<StartTiming> {
    Some(StartTiming {
        guest_us: guest_us?,
        workload_us: micros_since(begun?),
        init_us: info.init_at_ns / 1_000,
    })
}

/// What comes of a start that the guest did not carry out; nothing where the VMM is gone, whose end tells more.
async fn start_failed(what: &str, error: GuestCallError, gone: &mut watch::Receiver<bool>) -> Option<Event> {
    let failure = match error {
        // An earlier agent's request arrived after all.
        GuestCallError::Refused(error) if error.code == GuestErrorCode::AlreadyStarted => {
            return Some(Event::WorkloadStarted);
        }
        GuestCallError::Refused(error) => Failure {
            reason: format!("{what}: {}", hint::plain(&error.message)),
            code: match error.code {
                GuestErrorCode::NotFound => Some(127),
                GuestErrorCode::NotExecutable => Some(126),
                _ => None,
            },
        },
        error => {
            // A VMM that is just ending tells more than the connection that it broke.
            if timeout(POLL_SLOW, gone.wait_for(|gone| *gone)).await.is_ok() {
                return None;
            }
            Failure::new(format!("{what}: {error}"))
        }
    };
    Some(Event::StartFailed(failure))
}

fn micros_since(begun: Instant) -> u64 {
    begun.elapsed().as_micros() as u64
}
