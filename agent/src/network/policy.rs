//! `[network]` of agent.toml.

use std::net::IpAddr;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::Deserialize;

/// The smallest subnet of use: two microVMs.
const V4_LONGEST: u8 = 29;
/// As many addresses as IPv4 has must fit in.
const V6_LONGEST: u8 = 96;

/// `[network]` as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkSpec {
    subnet: Ipv4Net,
    subnet6: Ipv6Net,
    egress: Egress,
    dns: Vec<IpAddr>,
}

impl Default for NetworkSpec {
    fn default() -> Self {
        Self {
            subnet: Ipv4Net::new_assert([10, 213, 0, 0].into(), 16),
            subnet6: Ipv6Net::new_assert([0xfd5e, 0xc071, 0xa000, 0, 0, 0, 0, 0].into(), 64),
            egress: Egress::None,
            dns: Vec::new(),
        }
    }
}

/// Whom microVMs reach by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Egress {
    /// Nobody but the resolvers.
    None,
    /// Public addresses too; never those of the owner's networks.
    Internet,
}

/// A network that can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Where addresses come from.
    pub subnet: Ipv4Net,
    /// Where those of IPv6 come from.
    pub subnet6: Ipv6Net,
    /// Whom microVMs reach by themselves.
    pub egress: Egress,
    /// The resolvers that they may ask, and are told of.
    pub dns: Vec<IpAddr>,
}

impl NetworkSpec {
    /// Checks it: the key that is wrong, and what would be right.
    pub fn check(self) -> Result<NetworkPolicy, (&'static str, String)> {
        let Self {
            subnet,
            subnet6,
            egress,
            dns,
        } = self;
        if !subnet.addr().is_private()
            || subnet.prefix_len() > V4_LONGEST
            || subnet.addr() != subnet.network()
        {
            let problem = format!(
                "is {subnet}; use a private network of at most /{V4_LONGEST} that nothing else has, such as 10.213.0.0/16"
            );
            return Err(("network.subnet", problem));
        }
        let unique_local = subnet6.addr().segments()[0] & 0xfe00 == 0xfc00;
        if !unique_local || subnet6.prefix_len() > V6_LONGEST || subnet6.addr() != subnet6.network() {
            let problem = format!(
                "is {subnet6}; use a unique local network (fd00::/8) of at most /{V6_LONGEST}, such as fd5e:c071:a000::/64"
            );
            return Err(("network.subnet6", problem));
        }
        if let Some(address) = dns
            .iter()
            .find(|address| address.is_loopback() || address.is_unspecified() || address.is_multicast())
        {
            let problem =
                format!("has {address}, which no microVM can reach; name the resolver's own address");
            return Err(("network.dns", problem));
        }
        Ok(NetworkPolicy {
            subnet,
            subnet6,
            egress,
            dns,
        })
    }
}
