//! One task for each VM: it alone moves the VM's life, writes each move down, and then carries its steps out.

mod actor;
mod collect;
mod drive;
mod hint;
mod machine;
mod sessions;

pub use actor::{Begin, Command, CommandError};
pub use sessions::{SessionGuard, Sessions};

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::images::ImageStore;
use crate::process::{Cgroups, Place};
use crate::records::{Record, Store, VmId};

/// What all VMs share.
#[derive(Debug)]
pub struct Context {
    /// The agent's configuration.
    pub config: Config,
    /// The records.
    pub store: Store,
    /// The images.
    pub images: ImageStore,
    /// The host's control groups.
    pub cgroups: Cgroups,
}

impl Context {
    /// Where a VM's files lie.
    pub fn place(&self, id: VmId) -> Place {
        Place::new(&self.config.runtime_dir, &self.config.state_dir, id)
    }
}

/// A VM as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Its record, as it is on the disk.
    pub record: Record,
    /// Its VMM's process.
    pub vmm_pid: Option<u32>,
    /// Its guest answers.
    pub guest_ready: bool,
    /// It is gone, with its record.
    pub removed: bool,
}

/// The way to a VM's task.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::Sender<(Command, oneshot::Sender<Result<(), CommandError>>)>,
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
}

/// Starts the task of a VM whose record is on the disk. The task ends when the VM is removed.
pub fn supervise(context: Arc<Context>, record: Record, begin: Begin) -> (Handle, JoinHandle<()>) {
    actor::spawn(context, record, begin)
}

/// Unix time in milliseconds.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
