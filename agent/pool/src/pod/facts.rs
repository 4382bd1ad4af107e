//! What is known of the node.

use std::net::IpAddr;

use secovia_agent_api::Amounts;

/// What a Pod may learn of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The node's name in Kubernetes.
    pub node_name: String,
    /// The node's address.
    pub host_ip: IpAddr,
    /// CPUs of the host.
    pub cpus: u32,
    /// What is lent at most.
    pub allocatable: Amounts,
}
