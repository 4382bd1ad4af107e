//! What the agent knows of its VMs, durable before it is acted on.

mod id;
pub mod pod;
mod record;
mod store;
#[cfg(test)]
mod tests;

pub use id::{ParseVmIdError, VmId};
pub use pod::{PodContainer, PodSpec};
pub use record::{Record, Spec};
pub use store::{Store, StoreError};
