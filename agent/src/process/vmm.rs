//! A VMM process that runs.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use secovia_vmm_api::Exit;
use tokio::io::unix::AsyncFd;

use crate::sys;

/// A VMM, held by a pidfd: its number can not be mistaken for another process's.
#[derive(Debug)]
pub struct Vmm {
    pid: u32,
    pidfd: AsyncFd<OwnedFd>,
}

/// How a VMM ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With this status.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
    /// Its parent was an earlier agent, which the status went down with.
    Unknown,
}

impl Vmm {
    /// The process `pid`, which is a child of ours or was identified just now.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pidfd = sys::watch_pidfd(sys::pidfd_open(pid)?)?;
        Ok(Self { pid, pidfd })
    }

    /// Its process identifier, for people.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until the process is gone, and reaps it where it is a child of ours.
    pub async fn wait(&self) -> io::Result<Ended> {
        // The descriptor stays readable from the process's end on.
        let _ready = self.pidfd.readable().await?;
        Ok(
            match waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED) {
                Ok(WaitStatus::Exited(_, code)) => Ended::Exited(code),
                Ok(WaitStatus::Signaled(_, signal, _)) => Ended::Signaled(signal as i32),
                _ => Ended::Unknown,
            },
        )
    }

    /// Stops the process where it is, or lets it go on: what a host without control groups of version 2 is able to do.
    pub fn freeze(&self, on: bool) -> io::Result<()> {
        let signal = if on { Signal::SIGSTOP } else { Signal::SIGCONT };
        sys::pidfd_kill(&self.pidfd, signal as i32)
    }

    /// Ends the process at once.
    pub fn kill(&self) -> io::Result<()> {
        sys::pidfd_kill(&self.pidfd, Signal::SIGKILL as i32)
    }
}

impl Ended {
    /// What that means, for people.
    pub fn describe(self) -> String {
        let status = |code| match Exit::from_code(code) {
            Some(Exit::GuestShutdown) => "the guest powered off before its workload ended".to_string(),
            Some(Exit::Internal) => "the VMM failed".to_string(),
            Some(Exit::BadConfiguration) => "the VMM refused its configuration".to_string(),
            Some(Exit::GuestReset) => "the guest reset itself".to_string(),
            Some(Exit::GuestPanic) => "the guest's kernel panicked".to_string(),
            Some(Exit::Forced) => {
                "the VMM was asked to end and the guest did not power off in time".to_string()
            }
            Some(Exit::ForbiddenCall) => {
                "the VMM made a forbidden system call and was ended: its log names the call".to_string()
            }
            None => format!("the VMM ended with unknown status {code}"),
        };
        match self {
            Self::Exited(code) => status(code),
            Self::Signaled(number) => match Signal::try_from(number) {
                Ok(signal) => format!("the VMM was ended by signal {number} ({signal})"),
                Err(_) => format!("the VMM was ended by signal {number}"),
            },
            Self::Unknown => {
                "the VMM ended; its status went to the earlier agent that started it".to_string()
            }
        }
    }
}
