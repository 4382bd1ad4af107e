use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::*;
use crate::records::VmId;

/// As small a network as there can be, but for three more.
pub(crate) fn policy() -> NetworkPolicy {
    let spec: NetworkSpec = toml::from_str("subnet = \"10.9.8.0/29\"\ndns = [\"9.9.9.9\"]").unwrap();
    spec.check().unwrap()
}

/// The first place in it.
pub(crate) fn port(publish: &str) -> Port {
    Port {
        lease: Lease::pick(&policy(), &BTreeSet::new(), None).unwrap(),
        publish: vec![publish.parse().unwrap()],
    }
}

fn id(number: u8) -> VmId {
    format!("{number:016x}").parse().unwrap()
}

fn v4(last: u8) -> Ipv4Addr {
    [10, 9, 8, last].into()
}

#[test]
fn a_network_is_private_and_has_room() {
    let defaults: NetworkSpec = toml::from_str("").unwrap();
    let defaults = defaults.check().unwrap();
    assert_eq!(
        (defaults.egress, defaults.subnet.prefix_len()),
        (Egress::None, 16)
    );
    for (text, key) in [
        ("subnet = \"8.8.8.0/24\"", "network.subnet"),
        ("subnet = \"10.0.0.0/30\"", "network.subnet"),
        ("subnet = \"10.0.0.1/24\"", "network.subnet"),
        ("subnet6 = \"2001:db8::/64\"", "network.subnet6"),
        ("subnet6 = \"fd00::/100\"", "network.subnet6"),
        ("dns = [\"127.0.0.53\"]", "network.dns"),
        ("dns = [\"::1\"]", "network.dns"),
    ] {
        let spec: NetworkSpec = toml::from_str(text).unwrap();
        assert_eq!(spec.check().unwrap_err().0, key, "{text}");
    }
    for text in ["subnet = \"10\"", "egress = \"lan\"", "mtu = 1"] {
        assert!(toml::from_str::<NetworkSpec>(text).is_err(), "{text}");
    }
}

#[test]
fn what_follows_from_an_address() {
    let lease = port("1:1").lease;
    assert_eq!(lease.v4.to_string(), "10.9.8.2");
    assert_eq!(lease.gateway.to_string(), "10.9.8.1");
    assert_eq!(lease.v6.to_string(), "fd5e:c071:a000::2");
    assert_eq!(lease.mac_text(), "02:5e:0a:09:08:02");
    assert_eq!(lease.link_local().to_string(), "fe80::5e:aff:fe09:802");
    assert_eq!(lease.link(), "svm0a090802");
}

#[test]
fn all_addresses_are_given_and_a_freed_one_rests() {
    let (mut taken, mut last) = (BTreeSet::new(), None);
    while let Some(lease) = Lease::pick(&policy(), &taken, last) {
        assert!(taken.insert(lease.v4));
        last = Some(lease.v4);
    }
    let given: Vec<String> = taken.iter().map(ToString::to_string).collect();
    assert_eq!(
        given,
        ["10.9.8.2", "10.9.8.3", "10.9.8.4", "10.9.8.5", "10.9.8.6"]
    );
    let freed = "10.9.8.3".parse().unwrap();
    taken.remove(&freed);
    assert_eq!(Lease::pick(&policy(), &taken, last).unwrap().v4, freed);
    let next = Lease::pick(&policy(), &BTreeSet::new(), Some(freed)).unwrap();
    assert_eq!(next.v4.to_string(), "10.9.8.4");
}

/// What the text says of whom: all addresses of the subnet, but for the host's.
fn mentioned(rules: &str) -> BTreeSet<String> {
    let words = rules.split(|c: char| !(c.is_ascii_hexdigit() || c == '.'));
    words
        .filter(|word| word.starts_with("10.9.8.") && *word != "10.9.8.0")
        .map(String::from)
        .collect()
}

#[test]
fn rules_say_what_is_published_and_nothing_of_others() {
    let policy = policy();
    let ports = BTreeMap::from([
        (v4(2), port("192.0.2.1:8080:80")),
        (v4(3), {
            let mut port = port("[2001:db8::1]:53:5353/udp");
            port.lease = Lease::pick(&policy, &BTreeSet::from([port.lease.v4]), None).unwrap();
            port
        }),
    ]);
    let owners = [
        "198.18.7.1/24".parse().unwrap(),
        "2001:db8:1::5/64".parse().unwrap(),
    ];
    let rules = host_rules(&policy, &owners, &ports);
    for line in [
        "ip daddr 192.0.2.1 tcp dport 8080 dnat ip to 10.9.8.2:80",
        "ip6 daddr 2001:db8::1 udp dport 53 dnat ip6 to [fd5e:c071:a000::3]:5353",
        "\"svm0a090802\" . 10.9.8.2, \"svm0a090803\" . 10.9.8.3",
        "198.18.7.0/24",
        "2001:db8:1::/64",
        "elements = { 9.9.9.9 }",
    ] {
        assert!(rules.contains(line), "{line}: {rules}");
    }
    assert_eq!(
        rules.matches("dnat").count() - rules.matches("status dnat").count(),
        4
    );
    assert!(
        !rules.contains("ip6 to [fd5e:c071:a000::2]"),
        "an address of IPv4 leads to one of IPv4: {rules}"
    );
    assert!(rules.contains("ip6 daddr @lan6 drop\n\t\tdrop"));
    let internet = NetworkPolicy {
        egress: Egress::Internet,
        ..policy
    };
    assert!(host_rules(&internet, &owners, &ports).contains("ip6 daddr @lan6 drop\n\t\taccept"));
}

#[test]
fn a_default_route_is_no_network_of_the_owners() {
    let owners = ["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
    let rules = host_rules(&policy(), &owners, &BTreeMap::new());
    assert!(!rules.contains("0.0.0.0/0") && !rules.contains("::/0"));
}

/// nft itself, where it may be asked: the text is one that it takes.
#[test]
fn nft_understands_the_rules() {
    let ports = BTreeMap::from([(v4(2), port("8080:80"))]);
    let texts = [
        host_rules(&policy(), &["192.168.1.1/24".parse().unwrap()], &ports),
        host_rules(&policy(), &[], &BTreeMap::new()),
        guest_rules(&port("8080:80").lease),
    ];
    let outcome = std::thread::spawn(move || {
        if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
            println!("SKIP: nft_understands_the_rules: a network namespace needs root");
            return;
        }
        for text in &texts {
            nft::apply(text).unwrap();
        }
        // Replaced, not added to.
        nft::apply(&texts[0]).unwrap();
        let error = nft::apply("table inet secovia { nonsense }").unwrap_err();
        assert!(error.to_string().contains("nft refused"), "{error}");
    });
    outcome.join().unwrap();
}

/// What can happen to a node: the records are durable, the links are the kernel's, and the agent may die between any two.
#[derive(Debug, Clone)]
enum Happening {
    Create,
    /// The lease is recorded, rules and link are made: as many of these as the agent comes to.
    Start(usize, u8),
    /// The VMM ends and its link with it; the agent sees it or is dead by then.
    End(usize, bool),
    Remove(usize),
    Crash,
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        3 => Just(Happening::Create),
        3 => (any::<usize>(), 0..3_u8).prop_map(|(vm, done)| Happening::Start(vm, done)),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(vm, seen)| Happening::End(vm, seen)),
        2 => any::<usize>().prop_map(Happening::Remove),
        2 => Just(Happening::Crash),
    ];
    prop::collection::vec(one, 0..60)
}

#[derive(Debug, Default)]
struct Node {
    next: u8,
    records: BTreeMap<VmId, Port>,
    /// Whose VMM runs.
    running: BTreeSet<VmId>,
    last: Option<Ipv4Addr>,
    observed: Observed,
    rules: String,
}

impl Node {
    fn nth(&self, number: usize) -> Option<VmId> {
        let count = self.records.len().max(1);
        self.records.keys().nth(number % count).copied()
    }

    fn up(&self) -> Ports {
        let up = self.records.iter().filter(|(id, _)| self.running.contains(id));
        up.map(|(_, port)| (port.lease.v4, port.clone())).collect()
    }

    fn repair(&mut self) {
        let up = self.up();
        for step in plan(&up, &self.observed) {
            match step {
                Step::Rules => self.rules = host_rules(&policy(), &[], &up),
                Step::RemoveLink(name) => assert!(self.observed.links.remove(&name)),
                Step::Address(lease) => assert!(self.observed.links.contains(&lease.link())),
                Step::Missing(lease) => assert!(!self.observed.links.contains(&lease.link())),
            }
        }
    }

    fn happen(&mut self, happening: &Happening) {
        match happening {
            Happening::Create => {
                let taken = self.records.values().map(|port| port.lease.v4).collect();
                if let Some(lease) = Lease::pick(&policy(), &taken, self.last) {
                    self.next += 1;
                    self.last = Some(lease.v4);
                    let publish = vec![format!("{}:80", 8_000 + u16::from(self.next)).parse().unwrap()];
                    self.records.insert(id(self.next), Port { lease, publish });
                }
            }
            Happening::Start(vm, done) => {
                let Some(id) = self.nth(*vm).filter(|id| !self.running.contains(id)) else {
                    return;
                };
                let mut up = self.up();
                let port = self.records[&id].clone();
                up.insert(port.lease.v4, port);
                if *done > 0 {
                    self.rules = host_rules(&policy(), &[], &up);
                }
                if *done > 1 {
                    self.observed.links.insert(self.records[&id].lease.link());
                    self.running.insert(id);
                } else {
                    // Died on the way.
                    self.repair();
                }
            }
            Happening::End(vm, seen) => {
                let Some(id) = self.nth(*vm).filter(|id| self.running.remove(id)) else {
                    return;
                };
                if *seen {
                    self.observed.links.remove(&self.records[&id].lease.link());
                    self.rules = host_rules(&policy(), &[], &self.up());
                } else {
                    // The kernel may not have come to it yet.
                    self.repair();
                }
            }
            Happening::Remove(vm) => {
                if let Some(id) = self.nth(*vm).filter(|id| !self.running.contains(id)) {
                    self.records.remove(&id);
                }
            }
            Happening::Crash => {
                self.last = None;
                self.repair();
            }
        }
    }
}

proptest! {
    #[test]
    fn no_history_leaves_a_rule_or_gives_an_address_twice(history in happenings()) {
        let mut node = Node::default();
        for happening in &history {
            node.happen(happening);
            let leases: BTreeSet<IpAddr> = node.records.values()
                .flat_map(|port| [IpAddr::V4(port.lease.v4), IpAddr::V6(port.lease.v6)]).collect();
            prop_assert_eq!(leases.len(), 2 * node.records.len());
            let links: BTreeSet<String> = node.records.values().map(|port| port.lease.link()).collect();
            prop_assert_eq!(links.len(), node.records.len());
        }
        node.repair();
        let up = node.up();
        let addresses: BTreeSet<String> = up.values().map(|port| port.lease.v4.to_string()).collect();
        prop_assert_eq!(mentioned(&node.rules), addresses);
        let links: BTreeSet<String> = up.values().map(|port| port.lease.link()).collect();
        prop_assert_eq!(&node.observed.links, &links);
        // Done again, nothing changes.
        let again = plan(&up, &node.observed);
        prop_assert!(again.iter().all(|step| matches!(step, Step::Rules | Step::Address(_))), "{:?}", again);
    }
}
