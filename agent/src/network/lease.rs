//! A microVM's addresses, and what follows from them.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::NetworkPolicy;

/// What the names of the host's ends of all links begin with.
pub const LINK_PREFIX: &str = "svm";

/// The tap interface, in its namespace.
pub const TAP: &str = "tap0";

/// The first address of a subnet is the host's: where microVMs send what leaves the link.
const HOST: u32 = 1;

/// The host's address on every link, in IPv6.
pub const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// What a microVM has for as long as there is one: no other has the same at the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// Its address.
    pub v4: Ipv4Addr,
    /// Its address in IPv6: the same number in the other subnet.
    pub v6: Ipv6Addr,
    /// The host's address on its link.
    pub gateway: Ipv4Addr,
}

impl Lease {
    /// One that is not `taken`. The search begins behind `last`, the one given before: connections that somebody still
    /// remembers should not become another's, so an address rests as long as it can.
    pub fn pick(policy: &NetworkPolicy, taken: &BTreeSet<Ipv4Addr>, last: Option<Ipv4Addr>) -> Option<Self> {
        let network = u32::from(policy.subnet.network());
        // The broadcast address is nobody's.
        let (first, end) = (network + HOST + 1, u32::from(policy.subnet.broadcast()));
        let behind = last
            .map(|last| u32::from(last).saturating_add(1))
            .filter(|next| (first..end).contains(next))
            .unwrap_or(first);
        let number = (behind..end)
            .chain(first..behind)
            .find(|number| !taken.contains(&Ipv4Addr::from(*number)))?;
        let base6 = u128::from(policy.subnet6.network());
        Some(Self {
            v4: number.into(),
            v6: (base6 | u128::from(number - network)).into(),
            gateway: (network + HOST).into(),
        })
    }

    /// The guest's interface: locally administered, and as much its own as its address.
    pub fn mac(&self) -> [u8; 6] {
        let [a, b, c, d] = self.v4.octets();
        [0x02, 0x5e, a, b, c, d]
    }

    /// The same, as a text.
    pub fn mac_text(&self) -> String {
        self.mac().map(|byte| format!("{byte:02x}")).join(":")
    }

    /// What the guest's kernel calls itself on its link (RFC 4291, appendix A).
    pub fn link_local(&self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.mac().map(u16::from);
        let high = (a ^ 0x02) << 8 | b;
        Ipv6Addr::new(0xfe80, 0, 0, 0, high, c << 8 | 0xff, 0xfe00 | d, e << 8 | f)
    }

    /// The host's end of its link.
    pub fn link(&self) -> String {
        format!("{LINK_PREFIX}{:08x}", u32::from(self.v4))
    }
}
