//! What a request comes to.

use secovia_devices::virtio::block::BlockConfig;
use secovia_vmm_api::{DrivePatch, DriveSpec, Fault, InstanceState};

use super::request::Kind;
use crate::config::ConfigError;
use crate::mmds::MmdsError;

/// What came of a request.
#[derive(Debug)]
pub enum Reply {
    /// It is done, and there is nothing to tell.
    Done,
    /// JSON.
    Json(String),
    /// Text of Prometheus' form.
    Text(String),
    /// The API's thread is to open a disk and ask again with it.
    Open(Box<ToOpen>),
    /// It was refused, in one line.
    Refused(String),
    /// It was refused because it is too much.
    TooLarge(String),
}

/// A disk that is wanted, and what is asked for again, with it.
#[derive(Debug)]
pub enum ToOpen {
    /// For a drive that is there.
    Other {
        /// The disk.
        config: BlockConfig,
        /// What is asked for.
        patch: DrivePatch,
        /// The drive has this path already.
        same: bool,
    },
    /// For a drive that comes.
    New {
        /// The disk.
        config: BlockConfig,
        /// What is asked for.
        spec: DriveSpec,
    },
}

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum Refusal {
    #[error("{path}: there is no such request; see Firecracker's API for methods and resources")]
    Unknown { path: String },
    #[error("{what} is not there yet")]
    NotYet { what: &'static str },
    #[error("{path}: a GET request has no body; send none")]
    Body { path: String },
    #[error("{path}: {source}")]
    Json { path: String, source: serde_json::Error },
    #[error("{path}: the body is about {name:?}; give both the same name")]
    TwoNames { path: String, name: String },
    #[error("{path}: no name for a device; give 1 to 64 letters, digits, dots, dashes and underscores")]
    Name { path: String },
    #[error("{path}: nothing is to be changed; name a field")]
    Nothing { path: &'static str },
    #[error("drives.{id}: with a socket there is nothing else to be changed; send drive_id alone")]
    BackendsOwn { id: String },
    #[error("not possible while the machine is {state}; {remedy}")]
    Season {
        state: &'static str,
        remedy: &'static str,
    },
    #[error("{field}: this machine has none; configure it before the start")]
    NoDevice { field: String },
    #[error("{field}: {reason}")]
    Plug { field: String, reason: &'static str },
    #[error("balloon.stats_polling_interval_s: statistics cannot be switched on or off after the start")]
    Statistics,
    #[error("balloon: statistics are off; set stats_polling_interval_s before the start")]
    NoStatistics,
    #[error("balloon: the guest names no free pages; set free_page_hinting before the start")]
    NoHinting,
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Metadata(#[from] MmdsError),
    /// What was to be done failed, and how.
    #[error("{0}")]
    Failed(String),
}

impl Refusal {
    /// A device that is to leave a machine whose devices stay.
    pub(super) fn no_pci(kind: Kind, id: &str) -> Self {
        Self::Plug {
            field: format!("{}.{id}", kind.resource()),
            reason: "devices come and go on a PCI bus only; start with --enable-pci",
        }
    }

    /// A request out of season.
    pub(super) fn season(state: InstanceState) -> Self {
        match state {
            InstanceState::NotStarted => Self::Season {
                state: "not started",
                remedy: "start it with the action InstanceStart",
            },
            InstanceState::Running => Self::Season {
                state: "running",
                remedy: "do it before the start",
            },
            InstanceState::Paused => Self::Season {
                state: "paused",
                remedy: "do it before the start",
            },
        }
    }
}

/// A refusal as it goes to the client.
pub(super) fn fault(message: String) -> String {
    // A structure of one string cannot fail to be written.
    serde_json::to_string(&Fault {
        fault_message: message,
    })
    .unwrap_or_default()
}
