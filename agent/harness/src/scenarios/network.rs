//! The network: what a microVM reaches and who reaches it, and what is left of it. The agent's host is a namespace of its
//! own, the town hall, with another on its network cable.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use secovia_agent_api::client::ClientError;
use secovia_agent_api::{ErrorCode, NetworkMode, VmCreate, VmNetwork};

use crate::bed::POLL;
use crate::{Programs, Settings, Testbed, exec, sh};

/// Two network namespaces with a cable between them; gone when dropped.
struct Town {
    hall: String,
    lan: String,
}

impl Town {
    /// Nothing where this host does not let us.
    fn new(test: &str) -> Option<Self> {
        let number = std::process::id();
        let town = Self {
            hall: format!("hall-{test}-{number}"),
            lan: format!("lan-{test}-{number}"),
        };
        let made = Command::new("ip").args(["netns", "add", &town.hall]).output();
        if !made.is_ok_and(|output| output.status.success()) {
            println!("SKIP: {test}: making network namespaces needs root and iproute2");
            return None;
        }
        let Self { hall, lan } = &town;
        do_all(&format!(
            "ip netns add {lan}
             ip -n {hall} link set lo up
             ip -n {lan} link set lo up
             ip -n {hall} link add cable type veth peer name eth0 netns {lan}
             ip -n {hall} address add 192.168.50.1/24 dev cable
             ip -n {hall} address add 2001:db8:50::1/64 dev cable nodad
             ip -n {hall} link set cable up
             ip -n {lan} address add 192.168.50.2/24 dev eth0
             ip -n {lan} address add 2001:db8:50::2/64 dev eth0 nodad
             ip -n {lan} link set eth0 up
             ip -n {lan} route add default via 192.168.50.1
             ip -n {lan} route add default via 2001:db8:50::1
             nsenter --net=/run/netns/{hall} sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
             nsenter --net=/run/netns/{hall} nft add table inet owner
             nsenter --net=/run/netns/{hall} nft add chain inet owner kept"
        ));
        Some(town)
    }

    fn settings(&self, network: &'static str) -> Settings {
        Settings {
            policy: network,
            netns: Some(PathBuf::from(format!("/run/netns/{}", self.hall))),
            ..Settings::default()
        }
    }

    fn in_hall(&self, words: &str) -> Output {
        within(&self.hall, words)
    }

    fn links(&self) -> Vec<String> {
        let output = text(&self.in_hall("ip -o link show"));
        let names = output.lines().filter_map(|line| line.split_whitespace().nth(1));
        let names = names.filter(|name| name.starts_with("svm"));
        let mut names: Vec<String> = names
            .map(|name| name.split('@').next().unwrap().trim_end_matches(':').to_string())
            .collect();
        names.sort();
        names
    }

    fn rules(&self) -> String {
        text(&self.in_hall("nft list table inet secovia"))
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        for name in [&self.hall, &self.lan] {
            let pids = Command::new("ip").args(["netns", "pids", name]).output().unwrap();
            for pid in text(&pids).split_whitespace() {
                let _ = kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL);
            }
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}

/// Runs `work` in a thread that is in another network namespace.
fn inside<T: Send + 'static>(
    namespace: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let file = File::open(format!("/run/netns/{namespace}")).unwrap();
    thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    })
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn within(namespace: &str, words: &str) -> Output {
    let net = format!("--net=/run/netns/{namespace}");
    Command::new("nsenter")
        .args([net.as_str(), "sh", "-c", words])
        .output()
        .unwrap()
}

fn do_all(lines: &str) {
    for line in lines.lines() {
        let output = Command::new("sh").args(["-c", line]).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
    }
}

/// A network of the smallest kind, so that addresses are known.
const NETWORK: &str = "[network]\nsubnet = \"10.213.0.0/24\"\n";

async fn refused(bed: &Testbed, create: &VmCreate) -> ErrorCode {
    match bed.client().create_vm(create).await {
        Err(ClientError::Refused(error)) => error.code,
        other => panic!("{other:?}"),
    }
}

async fn network(bed: &Testbed, vm: &str) -> VmNetwork {
    bed.client().vm(vm).await.unwrap().network.unwrap()
}

fn published(create: VmCreate, ports: &[&str]) -> VmCreate {
    VmCreate {
        publish: ports.iter().map(|text| text.parse().unwrap()).collect(),
        ..create
    }
}

/// Waits until the host is as it should be.
async fn eventually(what: &str, bed: &Testbed, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{what}\n{}",
            bed.agent_log()
        );
        tokio::time::sleep(POLL).await;
    }
}

/// What a microVM has of the network goes with it, whatever the agent lives to see.
pub async fn a_network_leaves_nothing_behind(programs: &Programs) {
    let Some(town) = Town::new("leaves") else {
        return;
    };
    let mut bed = Testbed::with_image(programs, &town.settings(NETWORK)).await;
    assert!(
        town.rules().contains("svm*"),
        "there are rules before there is anybody"
    );
    let one = published(sh("one", "sleep 1000"), &["8080:80", "5353:53/udp"]);
    let two = published(sh("two", "sleep 1000"), &["192.168.50.1:8081:80"]);
    for create in [&one, &two] {
        bed.client().create_vm(create).await.unwrap();
    }
    bed.running("one").await;
    bed.running("two").await;
    let second_id = bed.client().vm("two").await.unwrap().id;
    let (first, second) = (network(&bed, "one").await, network(&bed, "two").await);
    assert_ne!(first.ipv4, second.ipv4);
    assert_eq!(first.publish, one.publish);
    assert_eq!(
        refused(&bed, &published(sh("three", ":"), &["8080:81"])).await,
        ErrorCode::PortTaken
    );
    let lonely = VmCreate {
        network: Some(NetworkMode::None),
        ..sh("lonely", "sleep 1000")
    };
    assert_eq!(bed.client().create_vm(&lonely).await.unwrap().network, None);
    bed.running("lonely").await;
    let links = town.links();
    assert_eq!(links, ["svm0ad50002", "svm0ad50003"]);
    let rules = town.rules();
    for vm in [&first, &second] {
        assert!(
            rules.contains(&vm.ipv4.to_string()) && rules.contains(&vm.ipv6.to_string()),
            "{rules}"
        );
    }

    // What an owner's reload of the packet filter does.
    do_all(&format!(
        "nsenter --net=/run/netns/{} nft 'flush ruleset; add table inet owner'",
        town.hall
    ));
    eventually("the rules are back", &bed, || town.rules().contains("10.213.0.3")).await;

    // The agent dies and one VMM with it; a link of nobody's turns up, and the owner does away with our table.
    bed.kill_agent();
    let ids = bed.vmms();
    let (_, pid) = ids.iter().find(|(id, _)| *id == second_id).unwrap();
    kill(Pid::from_raw(*pid as i32), Signal::SIGKILL).unwrap();
    do_all(&format!(
        "ip -n {0} link add svmdeadbeef type veth peer name stray
         nsenter --net=/run/netns/{0} nft delete table inet secovia",
        town.hall
    ));
    bed.start().await;
    bed.running("one").await;
    eventually("only the link of whoever runs is left", &bed, || {
        town.links() == links[..1]
    })
    .await;
    let rules = town.rules();
    assert!(rules.contains("8080") && rules.contains("10.213.0.2"), "{rules}");
    assert!(
        !rules.contains("8081") && !rules.contains("10.213.0.3"),
        "{rules}"
    );
    assert_eq!(network(&bed, "one").await, first, "addresses stay");
    assert_eq!(network(&bed, "two").await, second, "addresses stay");
    bed.client().start_vm("two").await.unwrap();
    bed.running("two").await;
    assert_eq!(town.links(), links);

    for vm in ["one", "two", "lonely"] {
        bed.client().delete_vm(vm, true).await.unwrap();
    }
    bed.client()
        .create_vm(&published(sh("three", "sleep 1000"), &["8080:81"]))
        .await
        .unwrap();
    bed.running("three").await;
    assert_eq!(town.links().len(), 1);
    bed.client().delete_vm("three", true).await.unwrap();
    assert!(town.links().is_empty() && !town.rules().contains("8080"));
    assert!(
        text(&town.in_hall("nft list tables")).contains("inet owner"),
        "the owner's table stays"
    );
    bed.assert_nothing_runs();
}

/// Who came to the owner's servers, and to which.
type Visitors = Arc<Mutex<BTreeSet<(&'static str, IpAddr)>>>;

/// The owner's servers, for as long as the test runs: a web server on port 9000 of every address, and sockets for names.
fn serve(lan: &str) -> Visitors {
    let visitors = Visitors::default();
    let seen = Arc::clone(&visitors);
    inside(lan, move || {
        for socket in TcpListener::bind("[::]:9000").unwrap().incoming() {
            let mut socket = socket.unwrap();
            seen.lock()
                .unwrap()
                .insert(("web", socket.peer_addr().unwrap().ip().to_canonical()));
            // What is closed with a request unread is reset, and the answer is lost with it.
            let _ = socket.set_read_timeout(Some(Duration::from_secs(2)));
            let _ = socket.read(&mut [0; 1024]);
            let _ = socket.write_all(b"HTTP/1.0 200 OK\r\n\r\nowner\n");
        }
    });
    for (name, address) in [("lan", "192.168.50.2:53"), ("resolver", "192.168.50.3:53")] {
        let seen = Arc::clone(&visitors);
        inside(lan, move || {
            let socket = UdpSocket::bind(address).unwrap();
            while let Ok((_, peer)) = socket.recv_from(&mut [0; 512]) {
                seen.lock().unwrap().insert((name, peer.ip()));
            }
        });
    }
    visitors
}

/// What a web server says to somebody in this namespace; nothing where it is not reached.
fn fetch(namespace: &str, address: &str) -> Option<String> {
    const TIME: Duration = Duration::from_secs(4);
    let address: SocketAddr = address.parse().unwrap();
    let fetched = inside(namespace, move || {
        let mut socket = TcpStream::connect_timeout(&address, TIME).ok()?;
        socket.set_read_timeout(Some(TIME)).unwrap();
        socket.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        socket.read_to_string(&mut text).ok()?;
        Some(text)
    });
    fetched.join().unwrap()
}

/// What each name stands for is tried in the guest, all at once; the names of what was reached.
async fn reached(bed: &Testbed, vm: &str, tries: &[(&str, &str)]) -> BTreeSet<String> {
    // Not busybox's wget: as a static program it dies of its resolver.
    const WEB: &str = r#"printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 5 $1 $2 | grep -q ."#;
    let mut script = format!("cat >/tmp/web <<'END'\n#!/bin/sh\n{WEB}\nEND\nchmod 755 /tmp/web\n");
    for (name, words) in tries {
        script.push_str(&format!(
            "( timeout 8 {words} >/dev/null 2>&1 </dev/null && echo 'reached {name}' ) &\n"
        ));
    }
    script.push_str("wait; echo tried\n");
    let ended = exec(&bed.client(), vm, &["sh", "-c", &script]).await;
    assert!(ended.stdout.contains("tried"), "{ended:?}");
    ended
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("reached "))
        .map(String::from)
        .collect()
}

/// A microVM that serves a page with its name.
fn server(name: &str, ports: &[&str]) -> VmCreate {
    let script = format!("mkdir -p /srv; echo {name} > /srv/index.html; exec httpd -f -p 80 -h /srv");
    published(sh(name, &script), ports)
}

/// Two microVMs and the owner's network reach each other as far as something was published, and no further.
pub async fn microvms_and_the_owners_network_are_apart(programs: &Programs) {
    let Some(town) = Town::new("apart") else {
        return;
    };
    // `::` is nobody: the kernel's own ends of a link report their multicast groups so.
    // What lies beyond the owner's network, as the owner's router has it.
    do_all(&format!(
        "ip -n {1} address add 192.168.50.3/24 dev eth0
         ip -n {1} address add 93.184.215.14/32 dev lo
         ip -n {0} route add default via 192.168.50.2
         ip -n {1} route add 10.213.0.0/24 via 192.168.50.1
         nsenter --net=/run/netns/{0} nft 'add table inet owner; \
            add chain inet owner seen {{ type filter hook prerouting priority -400; }}; \
            add rule inet owner seen iifname \"svm*\" ip saddr 10.213.0.2 counter comment own; \
            add rule inet owner seen iifname svm0ad50002 ip saddr != 10.213.0.2 counter comment spoofed; \
            add rule inet owner seen iifname svm0ad50002 ip6 saddr != {{ fd5e:c071:a000::2, fe80::5e:aff:fed5:2, :: }} counter comment spoofed6; \
            add set inet owner who {{ type ipv6_addr . ipv6_addr . inet_proto; flags dynamic; size 64; }}; \
            add rule inet owner seen iifname svm0ad50002 update @who {{ ip6 saddr . ip6 daddr . meta l4proto }}; \
            add table arp owner; add chain arp owner seen {{ type filter hook input priority 0; }}; \
            add rule arp owner seen iifname svm0ad50002 arp saddr ip != 10.213.0.2 counter comment spoofed-arp'",
        town.hall, town.lan
    ));
    let visitors = serve(&town.lan);
    let network = "[network]\nsubnet = \"10.213.0.0/24\"\negress = \"internet\"\ndns = [\"192.168.50.3\"]\n";
    let mut bed = Testbed::with_image(programs, &town.settings(network)).await;
    bed.client()
        .create_vm(&server("one", &["8080:80", "5353:5353/udp"]))
        .await
        .unwrap();
    bed.client()
        .create_vm(&server("two", &["8081:80"]))
        .await
        .unwrap();
    bed.running("one").await;
    bed.running("two").await;

    // What is allowed: this is also what shows that the rest below could be seen if it were.
    let page = |from: &str, address: &str| {
        // The workload is just being started.
        let begun = Instant::now();
        loop {
            match fetch(from, address) {
                Some(text) => return text,
                None if begun.elapsed() > Duration::from_secs(30) => return String::new(),
                None => thread::sleep(POLL),
            }
        }
    };
    let looks = || {
        let seen = "ip address; ip route; ip -6 route; ip neigh; nft list ruleset";
        text(&town.in_hall(seen))
    };
    for address in ["10.213.0.3:80", "[fd5e:c071:a000::3]:80", "192.168.50.1:8081"] {
        assert!(
            page(&town.hall, address).ends_with("two\n"),
            "the host reaches {address}: {}",
            looks()
        );
    }
    for (address, name) in [
        ("192.168.50.1:8080", "one\n"),
        ("[2001:db8:50::1]:8080", "one\n"),
        ("192.168.50.1:8081", "two\n"),
    ] {
        assert!(
            page(&town.lan, address).ends_with(name),
            "the owner's network reaches {address}: {}",
            looks()
        );
    }
    let allowed = [
        ("world", "/tmp/web 93.184.215.14 9000"),
        ("gateway-arp", "arping -c 2 -w 4 -I eth0 10.213.0.1"),
    ];
    let all: BTreeSet<String> = allowed.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(reached(&bed, "one", &allowed).await, all);
    let _ = exec(
        &bed.client(),
        "one",
        &["timeout", "5", "nslookup", "name.example"],
    )
    .await;
    let told = exec(&bed.client(), "one", &["cat", "/etc/resolv.conf"])
        .await
        .stdout;
    assert_eq!(told, "nameserver 192.168.50.3\n");

    // What is not.
    let denied = [
        ("tcp-other", "/tmp/web 10.213.0.3 80"),
        ("tcp6-other", "/tmp/web fd5e:c071:a000::3 80"),
        ("tcp-published-other", "/tmp/web 192.168.50.1 8081"),
        ("tcp-lan", "/tmp/web 192.168.50.2 9000"),
        ("tcp6-lan", "/tmp/web 2001:db8:50::2 9000"),
        ("tcp-resolver", "/tmp/web 192.168.50.3 9000"),
        ("icmp-other", "ping -c 2 -W 3 10.213.0.3"),
        ("icmp6-other", "ping6 -c 2 -W 3 fd5e:c071:a000::3"),
        ("icmp-lan", "ping -c 2 -W 3 192.168.50.2"),
        ("icmp6-lan", "ping6 -c 2 -W 3 2001:db8:50::2"),
        ("icmp-host", "ping -c 2 -W 3 192.168.50.1"),
        ("icmp-gateway", "ping -c 2 -W 3 10.213.0.1"),
        ("icmp6-gateway", "ping6 -c 2 -W 3 fe80::1%eth0"),
        ("arp-other", "arping -c 2 -w 4 -I eth0 10.213.0.3"),
        ("arp-host", "arping -c 2 -w 4 -I eth0 192.168.50.1"),
        ("arp-lan", "arping -c 2 -w 4 -I eth0 192.168.50.2"),
        ("udp-lan", "nslookup name.example 192.168.50.2"),
    ];
    assert_eq!(reached(&bed, "one", &denied).await, BTreeSet::new());
    for address in ["10.213.0.2:80", "[fd5e:c071:a000::2]:80"] {
        assert_eq!(
            fetch(&town.lan, address),
            None,
            "the owner's network reaches {address}"
        );
    }
    for words in ["ping -c 2 -W 3 10.213.0.2", "ping6 -c 2 -W 3 fd5e:c071:a000::2"] {
        let output = within(&town.lan, &format!("busybox {words}"));
        assert!(!output.status.success(), "{words}: {output:?}");
    }
    // Only as the host, and only where it was allowed.
    let expected = [("resolver", "192.168.50.1"), ("web", "192.168.50.1")];
    let expected: BTreeSet<_> = expected
        .into_iter()
        .map(|(name, ip)| (name, ip.parse().unwrap()))
        .collect();
    assert_eq!(*visitors.lock().unwrap(), expected);

    // One that says it is another: an address of its neighbour's, of nobody's, of the owner's.
    let lies = "for a in 10.213.0.3 10.213.0.77 192.168.50.2; do ip address add $a/32 dev eth0; done
        for a in fd5e:c071:a000::3 fd5e:c071:a000::77 2001:db8:50::2; do ip -6 address add $a/128 dev eth0 nodad; done
        for a in 10.213.0.3 10.213.0.77 192.168.50.2; do
            ping -c 1 -W 1 -I $a 10.213.0.1; ping -c 1 -W 1 -I $a 93.184.215.14
            arping -c 1 -w 1 -I eth0 -s $a 10.213.0.1; arping -U -c 1 -w 1 -I eth0 -s $a $a
        done
        for a in fd5e:c071:a000::3 fd5e:c071:a000::77 2001:db8:50::2; do
            ping6 -c 1 -W 1 -I $a 2001:db8:50::1; ping6 -c 1 -W 1 -I $a fe80::1%eth0
        done
        ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:99; ip link set eth0 up
        ip route add default via 10.213.0.1 onlink dev eth0
        ping -c 1 -W 1 10.213.0.1; arping -c 1 -w 1 -I eth0 10.213.0.1; echo lied";
    let ended = exec(&bed.client(), "one", &["sh", "-c", lies]).await;
    assert!(ended.stdout.contains("lied"), "{ended:?}");
    let counted = text(&town.in_hall("nft list table inet owner; nft list table arp owner"));
    for line in counted.lines().filter(|line| line.contains("comment")) {
        let silent = line.contains("packets 0 ");
        assert_eq!(silent, line.contains("spoofed"), "{counted}");
    }
    let neighbours = text(&town.in_hall("ip neigh show dev svm0ad50002"));
    for address in [
        "10.213.0.3 ",
        "10.213.0.77",
        "192.168.50.2",
        "a000::3 ",
        "a000::77",
        "50::2 ",
    ] {
        assert!(!neighbours.contains(address), "{neighbours}");
    }

    // The agent dies: nothing changes, and nothing does when it is back.
    bed.kill_agent();
    assert!(page(&town.lan, "192.168.50.1:8081").ends_with("two\n"));
    bed.start().await;
    bed.running("two").await;
    assert!(page(&town.lan, "192.168.50.1:8081").ends_with("two\n"));
    assert_eq!(fetch(&town.lan, "10.213.0.3:80"), None);
    assert_eq!(reached(&bed, "two", &denied[3..5]).await, BTreeSet::new());
    for vm in ["one", "two"] {
        bed.client().delete_vm(vm, true).await.unwrap();
    }
    assert_eq!(
        fetch(&town.lan, "192.168.50.1:8081"),
        None,
        "nothing is published any more"
    );
    assert!(town.links().is_empty());
}
