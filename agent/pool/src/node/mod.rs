//! This machine as a Node of the region's Kubernetes.
//!
//! | module | what is in it |
//! |---|---|
//! | [`view`] | pure: what the agent says, and for how long it has said nothing |
//! | [`steady`] | pure: when another amount is shown |
//! | [`conditions`] | pure: Ready and the like, which are earned |
//! | [`cordon`] | pure: when the node takes no more Pods |
//! | [`object`] | pure: the Node object, and what is changed in it |
//! | [`host`] | what the kernel and the distribution say of this machine |
//! | [`keeper`] | registers the Node and keeps it up to date |
//! | [`lease`] | says that this node is alive |

pub mod conditions;
pub mod cordon;
pub mod host;
pub mod keeper;
pub mod lease;
pub mod object;
pub mod steady;
pub mod view;
