//! The node's part in its region's Kubernetes.
//!
//! A process of its own, `secovia-pool`, beside the agent: it speaks with the agent through the agent's local API alone, and
//! with the region's API server over TLS. So no byte of the network's is parsed by the daemon, and a pool that is lost or
//! that crashed stops no microVM: what runs, runs on, and the agent's own records start it again after a reboot.
//!
//! It keeps no state of Pods. What is wanted is what the API server has bound to this node; what is there is what the agent
//! lists; the difference is a pure plan.
//!
//! | module | what is in it |
//! |---|---|
//! | [`join`], [`leave`], [`status`] | what a person does: [`args`] says how it is typed |
//! | [`service`] | what goes on as long as the node is in the pool |
//! | [`node`] | this machine as a Node: pure decisions, and the two tasks that write it |
//! | [`certificate`], [`signing`] | keys of this node's own, and how the region signs them |
//! | [`home`] | what is kept: who this node is, what it trusts, its keys |
//! | [`region`], [`backoff`] | the way to the API server, and how long to wait where it fails |
//! | [`kubelet`] | the port at which the region asks for logs and figures of Pods |
//! | [`events`] | what happens to Pods and to the node, told in the region |
//! | [`rate`] | how often something may be done |
//! | [`pod`] | pure: what a Pod asks for becomes a microVM, or is refused by the name of the field |
//! | [`pods`] | the shell around it: Pods are watched, microVMs made and ended, statuses and events written |

pub mod args;
pub mod backoff;
pub mod certificate;
pub mod error;
pub mod events;
pub mod home;
pub mod join;
pub mod kubelet;
pub mod leave;
pub mod logger;
pub mod node;
pub mod pod;
pub mod pods;
pub mod rate;
pub mod region;
pub mod service;
pub mod signing;
pub mod status;

/// `text` without what would move a terminal's cursor or begin another line: servers' words are shown to people.
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}
