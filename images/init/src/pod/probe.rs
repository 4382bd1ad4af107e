//! Making probes: one thread for each, as long as the run that it asks.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use secovia_guest_protocol::{Check, ContainerSpec, ExitStatus, ProbeSpec, ProcessSpec};

use super::life::Kind;
use super::{Pod, check};
use crate::children::{Pids, thread};
use crate::lock;
use crate::process::Process;

/// How much a probe's program may write before it is dropped.
const OUTPUT: usize = 4 * 1024;

/// Begins to probe a run.
pub(super) fn begin(pod: &Arc<Pod>, index: usize, number: u32, process: &Arc<Process>) {
    let Some(spec) = pod.container(index) else {
        return;
    };
    for (kind, probe) in [
        (Kind::Startup, &spec.startup),
        (Kind::Liveness, &spec.liveness),
        (Kind::Readiness, &spec.readiness),
    ] {
        let Some(probe) = probe.clone() else {
            continue;
        };
        let prober = Prober {
            pod: Arc::clone(pod),
            index,
            number,
            process: Arc::clone(process),
            kind,
            probe,
        };
        if thread("probe", move || prober.probe()).is_err() {
            // Nobody would ask: the container counts as one that does not answer.
            pod.change(|board| board.seats.get_mut(index).map(|seat| seat.life.hear(kind, false)));
        }
    }
}

struct Prober {
    pod: Arc<Pod>,
    index: usize,
    number: u32,
    process: Arc<Process>,
    kind: Kind,
    probe: ProbeSpec,
}

impl Prober {
    fn probe(self) {
        let Some(spec) = self.pod.container(self.index).cloned() else {
            return;
        };
        let mut wait = Duration::from_millis(self.probe.initial_delay_ms);
        let mut inside = None;
        while self.wait(wait) {
            if self.wants() {
                let good = self.ask(&spec, &mut inside);
                if !self.is_on() {
                    return;
                }
                self.tell(good, &spec);
            }
            wait = Duration::from_millis(self.probe.period_ms);
        }
    }

    /// Waits; false where the run is over before.
    fn wait(&self, time: Duration) -> bool {
        let until = Instant::now().checked_add(time);
        let mut board = lock(&self.pod.board);
        loop {
            let seat = board.seats.get(self.index);
            let is_same = seat
                .and_then(|seat| seat.run.as_ref())
                .is_some_and(|(number, _)| *number == self.number);
            if !is_same || board.is_ending || !self.is_on() {
                return false;
            }
            let left = until.map_or(time, |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return true;
            }
            let waited = self.pod.changed.wait_timeout(board, left);
            board = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn is_on(&self) -> bool {
        self.process.pid().is_some()
    }

    fn wants(&self) -> bool {
        let board = lock(&self.pod.board);
        board
            .seats
            .get(self.index)
            .is_some_and(|seat| seat.life.wants(self.kind))
    }

    fn ask(&self, spec: &ContainerSpec, inside: &mut Option<Pids>) -> bool {
        let own = self.pod.own_address();
        let timeout = Duration::from_millis(self.probe.timeout_ms);
        match &self.probe.check {
            Check::Tcp { host, port } => check::tcp(host.as_deref(), own, *port, timeout),
            Check::Http {
                host,
                port,
                path,
                headers,
            } => check::http(host.as_deref(), own, *port, path, headers, timeout),
            Check::Exec { argv } => {
                let pids = match inside {
                    Some(pids) => pids,
                    None => match self.process.pid().map(|pid| self.pod.machine.join(pid)) {
                        Some(Ok(pids)) => inside.insert(pids),
                        Some(Err(_)) | None => return false,
                    },
                };
                let process = ProcessSpec {
                    argv: argv.clone(),
                    tty: None,
                    ..spec.process.clone()
                };
                self.exec(&process, pids.clone(), timeout)
            }
        }
    }

    fn exec(&self, spec: &ProcessSpec, pids: Pids, timeout: Duration) -> bool {
        let Ok(process) = Process::new_among(Arc::clone(&self.pod.children), OUTPUT, pids) else {
            return false;
        };
        process.end_input();
        let deadline = Instant::now().checked_add(timeout);
        if process.start(spec).is_err() {
            return false;
        }
        if !process.wait_until_over(|| deadline.unwrap_or_else(Instant::now)) {
            let _ = process.signal(libc::SIGKILL);
            return false;
        }
        process.status() == Some(ExitStatus::Exited(0))
    }

    /// Notes the answer, and ends the container where it has to be.
    fn tell(&self, good: bool, spec: &ContainerSpec) {
        let must_end = {
            let mut board = lock(&self.pod.board);
            let Some(seat) = board.seats.get_mut(self.index) else {
                return;
            };
            let before = seat.life.report();
            let must_end = seat.life.hear(self.kind, good);
            if must_end && seat.doom.is_none() {
                seat.doom = Some(format!("its {} probe failed", self.kind.word()));
            }
            if seat.life.report() != before {
                board.version = board.version.wrapping_add(1);
                self.pod.changed.notify_all();
            }
            must_end
        };
        if must_end && self.process.signal(libc::SIGTERM).unwrap_or(false) {
            let grace = Instant::now().checked_add(Duration::from_millis(spec.grace_ms));
            if !self
                .process
                .wait_until_over(|| grace.unwrap_or_else(Instant::now))
            {
                let _ = self.process.signal(libc::SIGKILL);
            }
        }
    }
}
