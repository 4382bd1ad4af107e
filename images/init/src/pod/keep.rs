//! The threads that keep containers running.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use secovia_guest_protocol::{ExitStatus, GuestError, GuestErrorCode};

use super::life::Next;
use super::{Pod, probe};
use crate::children::thread;
use crate::lock;
use crate::machine::Room;
use crate::process::Process;

/// How much output of a container is kept while nobody is attached.
const HISTORY: usize = 1024 * 1024;
/// How long is waited at a time for what ends by itself.
const LONG: Duration = Duration::from_secs(3600);

impl Pod {
    /// The init containers one after the other, then all others side by side, then the end.
    pub(super) fn keep_all(self: &Arc<Self>) {
        let inits = self.spec.init.len();
        let all = inits.saturating_add(self.spec.containers.len());
        let mut outcome = None;
        for index in 0..inits {
            self.keep(index);
            outcome = self.outcome_of(index).filter(|status| status.code() != 0);
            if outcome.is_some() || lock(&self.board).is_ending {
                break;
            }
        }
        if outcome.is_none() && !lock(&self.board).is_ending {
            for index in inits..all {
                let pod = Arc::clone(self);
                if let Err(error) = thread("container", move || pod.keep(index)) {
                    self.could_not_start(index, &format!("cannot start a thread: {error}"));
                }
            }
            let mut board = lock(&self.board);
            let is_over = |index: usize, board: &super::Board| {
                board
                    .seats
                    .get(index)
                    .is_none_or(|seat| seat.life.outcome().is_some())
            };
            while !(inits..all).all(|index| is_over(index, &board)) {
                board = self.changed.wait(board).unwrap_or_else(PoisonError::into_inner);
            }
            let mut outcomes = board.seats.iter().filter_map(|seat| seat.life.outcome());
            outcome = outcomes.find(|status| status.code() != 0);
        }
        self.change(|board| board.outcome = Some(outcome.unwrap_or(ExitStatus::Exited(0))));
    }

    fn outcome_of(&self, index: usize) -> Option<ExitStatus> {
        lock(&self.board).seats.get(index)?.life.outcome()
    }

    /// One run after the other, until there is none more.
    fn keep(self: &Arc<Self>, index: usize) {
        loop {
            let (sender, ended) = std::sync::mpsc::channel();
            let pod = Arc::clone(self);
            let started = thread("run", move || {
                let _ = sender.send(pod.run_once(index));
            });
            let next = match started.map(|()| ended.recv()) {
                Ok(Ok(Ok(status))) => self.has_ended(index, status, None, true),
                Ok(Ok(Err(error))) => self.could_not_start_as(index, &error),
                Ok(Err(_)) => self.could_not_start(index, "its thread broke"),
                Err(error) => self.could_not_start(index, &format!("cannot start a thread: {error}")),
            };
            let Next::Again { after_ms } = next else {
                return;
            };
            if !self.rest(index, Duration::from_millis(after_ms)) {
                return;
            }
        }
    }

    /// Waits for the next run; false where there will be none.
    fn rest(&self, index: usize, time: Duration) -> bool {
        let until = Instant::now().checked_add(time);
        let mut board = lock(&self.board);
        loop {
            if board.is_ending {
                drop(board);
                self.change(|board| {
                    if let Some(seat) = board.seats.get_mut(index) {
                        seat.life.give_up();
                    }
                });
                return false;
            }
            let left = until.map_or(time, |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return true;
            }
            let waited = self.changed.wait_timeout(board, left);
            board = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// In a thread of its own, which is in the container's root from then on.
    fn run_once(self: &Arc<Self>, index: usize) -> Result<ExitStatus, GuestError> {
        let failed = |message: String| super::refused(GuestErrorCode::Failed, message);
        let Some(spec) = self.container(index) else {
            return Err(failed("there is no such container".into()));
        };
        let pids = self
            .machine
            .enter(&Room {
                container: spec,
                volumes: &self.spec.volumes,
                hostname: &self.spec.hostname,
                network: self.spec.network.as_ref(),
            })
            .map_err(|error| failed(format!("cannot make its root directory: {error}")))?;
        let process = Process::new_among(Arc::clone(&self.children), HISTORY, pids)
            .map_err(|error| failed(format!("cannot prepare a process: {error}")))?;
        if !spec.stdin {
            process.end_input();
        }
        process.start(&spec.process)?;
        let (now, now_ms) = self.now();
        let number = self.change(|board| {
            board.seats.get_mut(index).map_or(0, |seat| {
                seat.doom = None;
                let number = seat.life.begin(now, now_ms);
                seat.run = Some((number, Arc::clone(&process)));
                number
            })
        });
        probe::begin(self, index, number, &process);
        // Asked for between the look at the board and the start: whoever ends the guest has not seen this one.
        if lock(&self.board).is_ending {
            let _ = process.signal(libc::SIGTERM);
        }
        let much_later = || Instant::now().checked_add(LONG).unwrap_or_else(Instant::now);
        while !process.wait_until_over(much_later) {}
        Ok(process.status().unwrap_or(ExitStatus::Exited(0)))
    }

    fn could_not_start_as(&self, index: usize, error: &GuestError) -> Next {
        let code = match error.code {
            GuestErrorCode::NotFound => 127,
            GuestErrorCode::NotExecutable => 126,
            _ => 128,
        };
        self.has_ended(
            index,
            ExitStatus::Exited(code),
            Some(error.message.clone()),
            false,
        )
    }

    fn could_not_start(&self, index: usize, why: &str) -> Next {
        self.has_ended(index, ExitStatus::Exited(128), Some(why.to_string()), false)
    }

    fn has_ended(&self, index: usize, status: ExitStatus, reason: Option<String>, started: bool) -> Next {
        let now = self.now();
        self.change(|board| {
            let is_ending = board.is_ending;
            board.seats.get_mut(index).map_or(Next::Over, |seat| {
                let reason = reason.or(seat.doom.take());
                if !started {
                    seat.life.begin(now.0, now.1);
                }
                seat.life.end(status, reason, started, is_ending, now)
            })
        })
    }
}
