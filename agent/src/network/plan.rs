//! What to do so that the host's links and rules are those of the microVMs that are up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use secovia_agent_api::{Publish, VmNetwork};
use serde::{Deserialize, Serialize};

use super::Lease;

/// A microVM's place in the network, as its record has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Its addresses.
    pub lease: Lease,
    /// The host's ports that lead to it.
    pub publish: Vec<Publish>,
}

impl Port {
    /// What the API shows.
    pub fn show(&self) -> VmNetwork {
        VmNetwork {
            ipv4: self.lease.v4,
            ipv6: self.lease.v6,
            mac: self.lease.mac_text(),
            publish: self.publish.clone(),
        }
    }
}

/// What is on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// The host's ends of links.
    pub links: BTreeSet<String>,
}

/// The microVMs that are up, by their addresses.
pub type Ports = BTreeMap<Ipv4Addr, Port>;

/// One thing to do. Each can be done again without harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Put the rules for exactly these microVMs in force.
    Rules,
    /// Remove a link that leads to no microVM.
    RemoveLink(String),
    /// Give a link that is there its addresses and routes.
    Address(Lease),
    /// The link of a microVM that is up is gone: nothing but another start brings it back.
    Missing(Lease),
}

/// The steps, in the order in which they are to be done: what is not allowed is not for a moment.
pub fn plan(desired: &Ports, observed: &Observed) -> Vec<Step> {
    let wanted: BTreeMap<String, Lease> = desired
        .values()
        .map(|port| (port.lease.link(), port.lease))
        .collect();
    let mut steps = vec![Step::Rules];
    let strays = observed.links.iter().filter(|link| !wanted.contains_key(*link));
    steps.extend(strays.cloned().map(Step::RemoveLink));
    steps.extend(
        wanted
            .into_iter()
            .map(|(link, lease)| match observed.links.contains(&link) {
                true => Step::Address(lease),
                false => Step::Missing(lease),
            }),
    );
    steps
}
