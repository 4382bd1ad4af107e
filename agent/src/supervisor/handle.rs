//! The way to a VM's task, and what all of them share.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::sessions::Sessions;
use crate::config::Config;
use crate::images::ImageStore;
use crate::lending::desk::{AdmissionError, Desk};
use crate::lifecycle::Step;
use crate::network::Network;
use crate::process::{Found, Launcher, Place};
use crate::records::{Record, Store, StoreError, VmId};

/// What all VMs share.
#[derive(Debug)]
pub struct Context {
    /// The agent's configuration.
    pub config: Config,
    /// The records.
    pub store: Store,
    /// The images.
    pub images: ImageStore,
    /// Starts VMMs.
    pub launcher: Launcher,
    /// The network of the VMs, where they may have one.
    pub network: Option<Arc<Network>>,
    /// Where VMs get their part of the machine.
    pub desk: Arc<Desk>,
}

impl Context {
    /// Where a VM's files lie.
    pub fn place(&self, id: VmId) -> Place {
        self.launcher.dirs.place(id)
    }
}

/// What a VM's task begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// These steps go with the record that was just written.
    Steps(Vec<Step>),
    /// The record's VMM runs: go on with it.
    Adopt(Found),
    /// The record claims a VMM that is not there.
    Lost,
    /// The record is at rest or waits for its time.
    Keep,
    /// The record is at rest, and is started with the agent.
    Start,
}

/// What a VM is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Start; refused where it is active.
    Start,
    /// Stop; where it does not run there is nothing to do.
    Stop {
        /// How long the workload may take.
        grace_ms: u64,
    },
    /// End at once.
    Kill,
    /// End for the owner, who needs the machine; its restart policy applies when there is room again.
    Reclaim {
        /// How long the guest may take; 0 for at once.
        within_ms: u64,
    },
    /// Stand still.
    Pause,
    /// Go on.
    Resume,
    /// Remove it and its record.
    Remove {
        /// End it first where it is active; refused otherwise.
        force: bool,
    },
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The VM is active, and must not be for this.
    #[error("it is {0}; stop it first")]
    Active(&'static str),
    /// There is no room for it.
    #[error(transparent)]
    Admission(AdmissionError),
    /// The VM was removed meanwhile.
    #[error("it was removed meanwhile")]
    Gone,
    /// The intent could not be written down, so nothing was done.
    #[error(transparent)]
    Store(StoreError),
}

/// Who asked, and waits for the answer.
pub(super) type Reply = oneshot::Sender<Result<(), CommandError>>;

/// A VM as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Its record, as it is on the disk.
    pub record: Record,
    /// Its VMM's process.
    pub vmm_pid: Option<u32>,
    /// Its guest answers.
    pub guest_ready: bool,
    /// It stands still.
    pub paused: bool,
    /// It is gone, with its record.
    pub removed: bool,
}

/// The way to a VM's task.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) commands: mpsc::Sender<(Command, Reply)>,
    /// The VM as it is now, and every change of it.
    pub view: watch::Receiver<View>,
    /// Changes when the log has grown.
    pub log_grown: watch::Receiver<u64>,
    /// Who is attached.
    pub sessions: Sessions,
    /// The Unix socket that leads to the guest.
    pub socket: PathBuf,
}

impl Handle {
    /// Has a command carried out: the answer comes when its intent is durable (for a removal: when all is gone).
    pub async fn command(&self, command: Command) -> Result<(), CommandError> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send((command, reply))
            .await
            .map_err(|_| CommandError::Gone)?;
        answer.await.unwrap_or(Err(CommandError::Gone))
    }

    /// Has a command carried out, and does not wait for that. False where the VM has more to do than it can take in.
    pub fn tell(&self, command: Command) -> bool {
        // Nobody waits for the answer.
        let (reply, _) = oneshot::channel();
        !matches!(
            self.commands.try_send((command, reply)),
            Err(mpsc::error::TrySendError::Full(_))
        )
    }
}
