//! What the microVMs' network needs of the host.

use super::super::check::Check;
use super::super::facts::Forwarding;

/// Without routing a microVM is reached from the host alone.
pub(super) fn forwarding(forwarding: Forwarding) -> Check {
    let id = "network_forwarding";
    let off = |on: Option<bool>| on != Some(true);
    let remedy = |keys: &str| {
        format!(
            "put {keys} into /etc/sysctl.d/60-secovia.conf and run `sysctl --system`; this host then also routes between networks \
             of yours, unless your own packet filter says otherwise"
        )
    };
    match (off(forwarding.v4), off(forwarding.v6)) {
        (false, false) => Check::ok(id, "this host routes for its microVMs"),
        (true, v6) => {
            let keys = if v6 {
                "`net.ipv4.ip_forward=1` and `net.ipv6.conf.all.forwarding=1`"
            } else {
                "`net.ipv4.ip_forward=1`"
            };
            let seen = "agent.toml has a [network], and this host does not route: published ports are reached from the host alone";
            Check::warn(id, seen, remedy(keys))
        }
        (false, true) => Check::info(
            id,
            "this host routes for its microVMs, but not IPv6 (net.ipv6.conf.all.forwarding)",
        ),
    }
}
