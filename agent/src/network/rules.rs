//! The rules: what is allowed between microVMs, the host, its owner's networks and the rest of the world.

use std::fmt::{Display, Write};
use std::net::IpAddr;

use ipnet::IpNet;
use secovia_agent_api::Publish;

use super::{Egress, Lease, NetworkPolicy, Ports, TAP};

/// What is no public address of IPv4 (IANA's registry of special-purpose addresses, and multicast).
const NOT_PUBLIC: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/3",
];

/// The same of IPv6: all but 2000::/3, and of that what stands for other addresses or for none.
const NOT_PUBLIC6: &[&str] = &[
    "::/3",
    "4000::/2",
    "8000::/1",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
];

/// The host's table, whole: it replaces the one that is there, in one transaction.
///
/// `owners` are the networks that the host is attached to. They are refused beside all that is not public: a town hall's
/// own network may have public addresses.
pub fn host_rules(policy: &NetworkPolicy, owners: &[IpNet], ports: &Ports) -> String {
    let mut sets = String::new();
    let sources = |address: fn(&Lease) -> IpAddr| {
        let pairs = ports
            .values()
            .map(move |port| format!("\"{}\" . {}", port.lease.link(), address(&port.lease)));
        pairs.collect::<Vec<_>>()
    };
    set(
        &mut sets,
        "guests",
        "typeof iifname . ip saddr",
        &sources(|lease| lease.v4.into()),
    );
    set(
        &mut sets,
        "guests6",
        "typeof iifname . ip6 saddr",
        &sources(|lease| lease.v6.into()),
    );
    let owner = |v4: bool| {
        let nets = owners.iter().map(IpNet::trunc);
        nets.filter(move |net| net.addr().is_ipv4() == v4 && net.prefix_len() > 0)
            .map(|net| net.to_string())
    };
    let lan: Vec<String> = NOT_PUBLIC
        .iter()
        .map(ToString::to_string)
        .chain(owner(true))
        .collect();
    let lan6: Vec<String> = NOT_PUBLIC6
        .iter()
        .map(ToString::to_string)
        .chain(owner(false))
        .collect();
    set(
        &mut sets,
        "lan",
        "type ipv4_addr; flags interval; auto-merge",
        &lan,
    );
    set(
        &mut sets,
        "lan6",
        "type ipv6_addr; flags interval; auto-merge",
        &lan6,
    );
    let (dns, dns6): (Vec<IpAddr>, Vec<IpAddr>) = policy.dns.iter().partition(|address| address.is_ipv4());
    set(&mut sets, "dns", "type ipv4_addr", &dns);
    set(&mut sets, "dns6", "type ipv6_addr", &dns6);

    let egress = match policy.egress {
        Egress::None => "drop",
        Egress::Internet => "accept",
    };
    let (mut published, mut published_here) = (String::new(), String::new());
    for port in ports.values() {
        for publish in &port.publish {
            for address in [IpAddr::V4(port.lease.v4), IpAddr::V6(port.lease.v6)] {
                dnat(&mut published, publish, address, "");
                dnat(&mut published_here, publish, address, not_loopback(address));
            }
        }
    }
    let (subnet, subnet6) = (policy.subnet, policy.subnet6);
    format!(
        r#"add table inet secovia
delete table inet secovia
table inet secovia {{
{sets}
	# A microVM speaks as itself.
	chain sources {{
		type filter hook prerouting priority raw; policy accept;
		iifname != "svm*" accept
		ip daddr 127.0.0.0/8 drop
		iifname . ip saddr @guests accept
		iifname . ip6 saddr @guests6 accept
		ip6 saddr fe80::/10 icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
		drop
	}}

	# To the host itself: answers, neighbour discovery, names where the host is the resolver.
	chain input {{
		type filter hook input priority filter - 10; policy accept;
		iifname != "svm*" accept
		ct state established,related accept
		icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
		jump names
		drop
	}}

	chain forward {{
		type filter hook forward priority filter - 10; policy accept;
		oifname "svm*" jump to_microvm
		iifname "svm*" jump from_microvm
	}}

	# From others: answers, and what was published. From one microVM to another: nothing.
	chain to_microvm {{
		iifname "svm*" drop
		ct state established,related accept
		ct state new ct status dnat accept
		drop
	}}

	chain from_microvm {{
		ct state established,related accept
		ct state invalid drop
		jump names
		ip daddr @lan drop
		ip6 daddr @lan6 drop
		{egress}
	}}

	chain names {{
		ip daddr @dns meta l4proto {{ tcp, udp }} th dport 53 accept
		ip6 daddr @dns6 meta l4proto {{ tcp, udp }} th dport 53 accept
	}}

	chain published {{
		type nat hook prerouting priority dstnat; policy accept;
		iifname "svm*" accept
		fib daddr type != local accept
{published}	}}

	# The host's own programs.
	chain published_here {{
		type nat hook output priority -100; policy accept;
		fib daddr type != local accept
{published_here}	}}

	chain outward {{
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr {subnet} oifname != "svm*" masquerade
		ip6 saddr {subnet6} oifname != "svm*" masquerade
	}}
}}
"#
    )
}

/// A named set; nft knows no empty list.
fn set(text: &mut String, name: &str, kind: &str, elements: &[impl Display]) {
    let _ = write!(text, "\tset {name} {{\n\t\t{kind}\n");
    if !elements.is_empty() {
        let elements: Vec<String> = elements.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "\t\telements = {{ {} }}", elements.join(", "));
    }
    text.push_str("\t}\n");
}

/// What leads a host's port to a guest, where the address is of the family of the port's.
fn dnat(text: &mut String, publish: &Publish, guest: IpAddr, condition: &str) {
    let (family, name) = match guest {
        IpAddr::V4(_) => ("ipv4", "ip"),
        IpAddr::V6(_) => ("ipv6", "ip6"),
    };
    let at = match publish.address {
        Some(address) if address.is_ipv4() != guest.is_ipv4() => return,
        Some(address) => format!("{name} daddr {address}"),
        None => format!("meta nfproto {family}"),
    };
    let (transport, from, to) = (publish.transport, publish.host_port, publish.guest_port);
    let target = match guest {
        IpAddr::V4(guest) => format!("{guest}:{to}"),
        IpAddr::V6(guest) => format!("[{guest}]:{to}"),
    };
    let _ = writeln!(
        text,
        "\t\t{at} {condition}{transport} dport {from} dnat {name} to {target}"
    );
}

/// What the host says to itself on the loopback interface stays there: an answer to 127.0.0.1 could not come back.
fn not_loopback(guest: IpAddr) -> &'static str {
    match guest {
        IpAddr::V4(_) => "ip daddr != 127.0.0.0/8 ",
        IpAddr::V6(_) => "ip6 daddr != ::1 ",
    }
}

/// The table of a microVM's own namespace: whatever is not sent as itself goes nowhere.
pub fn guest_rules(lease: &Lease) -> String {
    let Lease { v4, v6, gateway } = lease;
    let (mac, link_local) = (lease.mac_text(), lease.link_local());
    let target = |address: std::net::Ipv6Addr| format!("{:#034x}", u128::from(address));
    let (target, target_local) = (target(*v6), target(link_local));
    format!(
        r#"table bridge secovia {{
	chain forward {{
		type filter hook forward priority filter; policy drop;
		iifname "up0" accept
		iifname != "{TAP}" drop
		ether saddr != {mac} drop
		ether type arp arp saddr ether {mac} arp saddr ip {v4} arp daddr ip {gateway} accept
		ether type arp drop
		ip saddr {v4} accept
		icmpv6 type {{ nd-router-advert, nd-redirect }} drop
		icmpv6 type nd-neighbor-advert @th,64,128 != {{ {target}, {target_local} }} drop
		ip6 saddr {{ {v6}, {link_local} }} accept
		drop
	}}

	# There is nobody in here to speak with, or to speak.
	chain input {{
		type filter hook input priority filter; policy drop;
	}}

	chain output {{
		type filter hook output priority filter; policy drop;
	}}
}}
"#
    )
}
