//! The node's network: an address for each microVM, and rules for whom it reaches.
//!
//! ```text
//!  microVM's network namespace (lives as long as its VMM)          host's network namespace
//! ┌──────────────────────────────────────────────────────┐
//! │ VMM ── tap0 ── bridge ── up0 ────────────────────────┼── svm0ad50002   10.213.0.1, fe80::1
//! │           table bridge secovia:                      │   route to 10.213.0.2/32 and its IPv6 address
//! │           its own MAC and addresses, or nothing      │   table inet secovia: who reaches whom, published ports
//! └──────────────────────────────────────────────────────┘
//! ```
//!
//! Each microVM hangs on the host by a point-to-point link of its own, and the host routes: no two microVMs share a
//! segment, so that there is nothing to spoof ARP or neighbour discovery towards, and what passes from one to anybody else
//! passes the host's `forward` hook. The tap is in a namespace of the VMM's own, so that a VMM that its guest took over
//! sees neither the host's interfaces nor another VM's. The bridge in there has two ports and learns nothing; it costs no
//! setting of the kernel's (routing in there would need `ip_forward` once more, which the agent's unit may not write).
//! The kernel removes all of it when the last process in the namespace ends, whoever runs or does not run then.
//!
//! ```text
//! host (thin)            attach, detach, repair: carries plans out; one lock
//!   ├── links (thin)     netlink: namespaces, interfaces, addresses, routes
//!   ├── watch (thin)     says when somebody changed the packet filter
//!   ├── pin (thin)       the way from a service without a network to the host's
//!   ├── nft (thin)       hands rules to nft(8)
//!   ├── plan             pure: what should be and what is, to steps
//!   ├── rules            pure: who is there, to both tables' text
//!   ├── lease            pure: addresses, and what follows from them
//!   └── policy           pure: `[network]` of agent.toml
//! ```
//!
//! A lease is part of its microVM's record, durable before it is used; the records are the journal. The host's table is a
//! function of the policy and the leases of the microVMs that are up, and is always replaced whole, in one transaction: no
//! rule can be left of one that is gone. The rules are text in nft's own language, because that is what `nft list table inet
//! secovia` shows to the owner; all that varies in them is typed addresses and numbers. Both tables are the agent's own;
//! the owner's are never touched, and what the owner's drop stays dropped. Where the owner's
//! reload flushes our table too, it is put back at once.

mod host;
mod lease;
mod links;
mod nft;
mod pin;
mod plan;
mod policy;
mod rules;
#[cfg(test)]
pub(crate) mod tests;
mod watch;

pub use host::{Network, NetworkError};
pub use lease::{GATEWAY6, LINK_PREFIX, Lease, TAP};
pub use links::Namespace;
pub use pin::{HOST_NETWORK, pin_host};
pub use plan::{Observed, Port, Ports, Step, plan};
pub use policy::{Egress, NetworkPolicy, NetworkSpec};
pub use rules::{guest_rules, host_rules};
