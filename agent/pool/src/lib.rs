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
//! | [`pod`] | pure: what a Pod asks for becomes a microVM, or is refused by the name of the field |
//! | [`pods`] | the shell around it: Pods are watched, microVMs made and ended, statuses and events written |

pub mod pod;
pub mod pods;
