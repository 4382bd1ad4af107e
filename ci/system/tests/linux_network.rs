//! A Linux guest on a real tap: packets both ways, whole, with the work of checksums and segments left to whoever is last.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use secovia_system_tests::network::{GUEST, HOST, TAP, with_tap};
use secovia_system_tests::{Bench, End, given};
use secovia_vmm_api::{Exit, NetworkInterfaceSpec, RateLimiterSpec, TokenBucketSpec};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// What goes each way where there is no limit.
const SENT: usize = 2 << 20;
/// What goes each way where there is a limit.
const LIMITED: usize = 320 << 10;

/// Ports of the host's: from one the guest reads, to the other it writes.
const SOURCE: u16 = 4001;
const SINK: u16 = 4002;

fn interface() -> NetworkInterfaceSpec {
    NetworkInterfaceSpec {
        iface_id: "eth0".into(),
        host_dev_name: TAP.into(),
        guest_mac: Some("06:00:ac:10:00:02".into()),
        ..NetworkInterfaceSpec::default()
    }
}

/// A guest with that interface that brings it up and runs `script`.
fn bench(interface: NetworkInterfaceSpec, script: &str) -> Bench {
    let mut bench = Bench::new(&given("SECOVIA_KERNEL"), "");
    bench.spec.network_interfaces = vec![interface];
    bench.script(&format!(
        "ip addr add {GUEST}/24 dev eth0\n\
         ip link set eth0 up\n\
         echo report: mac $(cat /sys/class/net/eth0/address) mtu $(cat /sys/class/net/eth0/mtu)\n\
         {script}"
    ));
    bench
}

fn listen(port: u16) -> TcpListener {
    TcpListener::bind((HOST, port)).expect("listen on the tap's address")
}

/// Gives `bytes` to the first who connects; says when that was.
fn give(listener: TcpListener, bytes: Vec<u8>) -> thread::JoinHandle<Instant> {
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the guest connects");
        let begun = Instant::now();
        stream.write_all(&bytes).expect("the guest reads");
        begun
    })
}

/// Takes all from the first who connects; says when that was, and when it was over.
fn take(listener: TcpListener) -> thread::JoinHandle<(Vec<u8>, Instant, Instant)> {
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the guest connects");
        let begun = Instant::now();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("the guest writes");
        (bytes, begun, Instant::now())
    })
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn ended(bench: Bench) -> End {
    let end = bench.start().end();
    end.assert_code(Exit::GuestShutdown.code());
    end
}

/// 2 MiB each way over TCP arrive whole; echoes of up to 60,000 bytes, which go in fragments, come back.
#[test]
fn what_goes_over_the_network_arrives_whole() {
    with_tap(|| {
        let bytes: Vec<u8> = (0..SENT as u32).map(|at| (at ^ (at >> 11)) as u8).collect();
        let expected = hash(&bytes);
        let (given, taken) = (give(listen(SOURCE), bytes), take(listen(SINK)));
        let script = format!(
            "ping -q -c 3 -i 0.1 -s 1000 {HOST} >/dev/null && echo report: echo\n\
             ping -q -c 3 -i 0.1 -s 60000 {HOST} >/dev/null && echo report: large echo\n\
             echo report: received $(nc {HOST} {SOURCE} </dev/null | sha256sum)\n\
             dd if=/dev/urandom of=/data bs=1M count=2 2>/dev/null\n\
             nc {HOST} {SINK} </data\n\
             echo report: sent $(sha256sum </data)\n\
             for count in rx_errors rx_dropped tx_errors tx_dropped; do\n\
                 echo report: $count $(cat /sys/class/net/eth0/statistics/$count)\n\
             done"
        );
        let mtu = NetworkInterfaceSpec {
            mtu: Some(1400),
            ..interface()
        };
        let end = ended(bench(mtu, &script));
        end.assert_line("report: mac 06:00:ac:10:00:02 mtu 1400");
        end.assert_line("report: echo");
        end.assert_line("report: large echo");
        end.assert_line(&format!("report: received {expected} -"));
        given.join().expect("the host's side of it");
        let (bytes, ..) = taken.join().expect("the host's side of it");
        assert_eq!(bytes.len(), SENT, "{end}");
        end.assert_line(&format!("report: sent {} -", hash(&bytes)));
        for count in ["rx_errors", "rx_dropped", "tx_errors", "tx_dropped"] {
            end.assert_line(&format!("report: {count} 0"));
        }
    });
}

/// iperf3 between guest and host, two seconds in each direction, over two streams.
#[test]
fn iperf3_measures_both_directions() {
    with_tap(|| {
        // It serves a test for each direction, and tells its readiness by listening.
        let mut server = Command::new("iperf3")
            .args(["--server", "--bind", HOST])
            .stdout(Stdio::null())
            .spawn()
            .expect("start iperf3");
        let mut bench = Bench::new(&given("SECOVIA_KERNEL"), "");
        bench.spec.network_interfaces = vec![interface()];
        bench.add_tools(&["/usr/bin/iperf3".as_ref()]);
        bench.script(&format!(
            "ip addr add {GUEST}/24 dev eth0\n\
             ip link set eth0 up\n\
             ip link set lo up\n\
             for way in '' --reverse; do\n\
                 iperf3 --client {HOST} --parallel 2 --time 2 $way --json >/result\n\
                 echo \"report: iperf3$way\" $(tr -d ' \\t\\n' </result)\n\
             done"
        ));
        let end = bench.start().end();
        // A server that is asked by nobody any more would serve for ever.
        server.kill().expect("end iperf3");
        server.wait().expect("wait for iperf3");
        end.assert_code(Exit::GuestShutdown.code());
        for (way, name) in [("from", ""), ("to", "--reverse")] {
            let result: Value =
                serde_json::from_str(end.line(&format!("report: iperf3{name} "))).expect("JSON");
            let of = |end: &str, what: &str| result["end"][end][what].as_f64().unwrap_or(0.0);
            let (sent, received) = (of("sum_sent", "bytes"), of("sum_received", "bytes"));
            assert!(received > 1e6 && received <= sent, "{way} the guest: {result:#}");
            println!(
                "iperf3 {way} the guest: {:.0} Mbit/s",
                of("sum_received", "bits_per_second") / 1e6
            );
        }
    });
}

/// 64 KiB a second for 320 KiB each way, of which 16 KiB go at once and the last packet, of up to 64 KiB, ahead of its
/// time. So little that an emulated host is faster.
#[test]
fn a_limit_holds_in_both_directions() {
    with_tap(|| {
        let limit = Some(RateLimiterSpec {
            bandwidth: Some(TokenBucketSpec {
                size: 16 << 10,
                one_time_burst: None,
                refill_time: 250,
            }),
            ops: None,
        });
        let limited = NetworkInterfaceSpec {
            rx_rate_limiter: limit,
            tx_rate_limiter: limit,
            ..interface()
        };
        let bytes = vec![0x5a; LIMITED];
        let (given, taken) = (give(listen(SOURCE), bytes.clone()), take(listen(SINK)));
        let script = format!(
            "echo report: received $(nc {HOST} {SOURCE} </dev/null | wc -c)\n\
             dd if=/dev/zero bs=64K count=5 2>/dev/null | nc {HOST} {SINK}"
        );
        let end = ended(bench(limited, &script));
        end.assert_line(&format!("report: received {}", bytes.len()));
        let begun = given.join().expect("the host's side of it");
        let (bytes, middle, ended) = taken.join().expect("the host's side of it");
        assert_eq!(bytes.len(), LIMITED);
        // The guest sends when it has received all.
        for (direction, elapsed) in [("to the guest", middle - begun), ("from it", ended - middle)] {
            let seconds = elapsed.as_secs_f64();
            assert!((3.7..20.0).contains(&seconds), "{direction}: {seconds} s\n{end}");
        }
    });
}
