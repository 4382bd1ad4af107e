//! Wire types and client of the agent's local API.
//!
//! The agent listens on a Unix socket ([`SOCKET_PATH`]) and speaks HTTP/1.1 with JSON bodies. Root and the members of
//! group [`SOCKET_GROUP`] may use it. All routes are in [`route`]; every error has the shape of [`ErrorBody`].
//!
//! Conventions: times are milliseconds since 1970-01-01 UTC (`…_ms`), durations carry their unit in the name (`_us`,
//! `_s`), sizes are bytes unless the name says `_mib` (1 048 576 bytes). A request with an unknown field is refused;
//! an answer may gain fields in a later version, so a client ignores those that it does not know.
//!
//! Types only: nothing here is checked beyond its shape. The feature `client` adds the client, `openapi` the schemas.

pub mod audit;
pub mod capacity;
#[cfg(feature = "client")]
pub mod client;
pub mod container;
pub mod error;
pub mod image;
pub mod logs;
pub mod network;
pub mod node;
pub mod route;
pub mod terminal;
pub mod vm;

pub use audit::{AuditBreak, AuditEvent, AuditQuery, AuditRecord, AuditVerdict};
pub use capacity::{Amounts, Labels, LadderView, Offer, OfferLine, ReclaimRequest, Reclaimed};
pub use container::{
    Check, Container, ContainerEnd, ContainerState, Mount, Probe, VmContainer, Volume, VolumeContent,
    VolumeFile,
};
pub use error::{ErrorBody, ErrorCode, ErrorDetail};
pub use image::{ImageGc, ImageGcReport, ImageImport, ImageInfo, ImageUpload, Manifest};
pub use logs::{LogBytes, LogEvent, LogQuery, LogRecord};
pub use network::{NetworkMode, ParseNetworkModeError, ParsePublishError, Publish, Transport, VmNetwork};
pub use node::{Health, HealthStatus, Version};
pub use terminal::TerminalSize;
pub use vm::{
    DeleteQuery, KillRequest, ListQuery, RestartPolicy, StartTiming, StopRequest, Vm, VmCreate, VmRun,
    VmState, VmStats, WaitQuery, WaitUntil,
};

/// Where the agent listens.
pub const SOCKET_PATH: &str = "/run/secovia/agent.sock";

/// The group whose members may use the socket, beside root.
pub const SOCKET_GROUP: &str = "secovia";

/// The protocol that attach and exec upgrade to (`Upgrade:` header). After the answer 101 the bytes are frames of
/// the guest protocol, client to guest and guest to client; the first is the client's `Request`.
pub const UPGRADE_PROTOCOL: &str = "secovia-guest/1";
