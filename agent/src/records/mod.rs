//! What the agent knows of its VMs, durable before it is acted on.

mod id;
mod record;
mod store;
#[cfg(test)]
mod tests;

pub use id::{ParseVmIdError, VmId};
pub use record::{Record, Spec};
pub use store::{Store, StoreError};
