//! The whole device: a driver over real queues on one side, real sockets on the other.

mod guest;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use guest::{GUEST_BUFFER, Guest, Name};

use super::super::MAX_STREAMS;
use super::super::credit::BUF_ALLOC;
use super::super::host::MAX_PENDING;
use super::super::packet::{HOST_CID, Op, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM};
use super::*;

/// A fresh directory; short, for socket paths are.
fn directory() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("secovia-vsock-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// Bytes that differ from place to place.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 56) as u8
        })
        .collect()
}

/// A client of the host's, after its CONNECT line.
fn dial(guest: &Guest, port: u32) -> UnixStream {
    let mut client = UnixStream::connect(guest.path()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    writeln!(client, "CONNECT {port}").unwrap();
    client
}

/// The port in the `OK` line; `None` if the stream was refused.
fn ok_line(client: &UnixStream) -> Option<u32> {
    let mut line = String::new();
    // A byte at a time, so that nothing of the stream is swallowed.
    BufReader::with_capacity(1, client).read_line(&mut line).unwrap();
    if line.is_empty() {
        return None;
    }
    Some(
        line.strip_prefix("OK ")
            .unwrap()
            .strip_suffix('\n')
            .unwrap()
            .parse()
            .unwrap(),
    )
}

/// A stream that a client opened to a program in the guest.
fn open_from_host(guest: &mut Guest) -> (UnixStream, Name) {
    guest.listening.insert(1024);
    let client = dial(guest, 1024);
    guest.turn();
    let port = ok_line(&client).unwrap();
    let name = (port, 1024);
    assert!(guest.socket(name).open);
    (client, name)
}

/// A stream that a program in the guest opened to a service of the host's.
fn open_from_guest(guest: &mut Guest) -> (UnixStream, Name) {
    let path = guest.directory().join("vsock_80");
    let service = UnixListener::bind(&path).unwrap();
    let name = guest.connect(80, 5000);
    assert!(guest.socket(name).open);
    let (server, _) = service.accept().unwrap();
    server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    std::fs::remove_file(path).unwrap();
    (server, name)
}

#[test]
fn the_device_says_what_it_is() {
    let guest = Guest::new();
    assert_eq!(guest.device.device_type(), 19);
    assert_eq!(guest.device.queue_max_sizes().len(), 3);
    let mut config = [0xff; 12];
    guest.device.read_config(0, &mut config);
    assert_eq!(config, [42, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    let mut byte = [7];
    guest.device.read_config(u64::MAX, &mut byte);
    assert_eq!(byte, [7]);
}

#[test]
fn reserved_addresses_and_taken_paths_are_refused_by_name() {
    let directory = directory();
    for cid in [0, 1, 2, u64::from(u32::MAX), u64::MAX] {
        let error = Vsock::new(cid, directory.join("vsock")).unwrap_err().to_string();
        assert!(error.contains(&cid.to_string()), "{error}");
    }
    let path = directory.join("file");
    std::fs::write(&path, "mine").unwrap();
    let error = Vsock::new(3, &path).unwrap_err().to_string();
    assert!(
        error.contains(path.to_str().unwrap()) && error.contains("exists"),
        "{error}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    let missing = directory.join("none/vsock");
    let error = Vsock::new(3, &missing).unwrap_err().to_string();
    assert!(error.contains(missing.to_str().unwrap()), "{error}");
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn the_socket_goes_with_the_device_but_another_files_stays() {
    let directory = directory();
    let path = directory.join("vsock");
    drop(Vsock::new(3, &path).unwrap());
    assert!(!path.exists());
    let device = Vsock::new(3, &path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "somebody else's").unwrap();
    drop(device);
    assert!(path.exists());
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_hosts_stream_carries_bytes_both_ways() {
    let mut guest = Guest::new();
    let (mut client, name) = open_from_host(&mut guest);
    client.write_all(b"to the guest").unwrap();
    guest.turn();
    assert_eq!(guest.socket(name).read(100), b"to the guest");
    guest.socket(name).outbox.extend(b"to the host");
    guest.turn();
    let mut buffer = [0; 11];
    client.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"to the host");
}

#[test]
fn a_guests_stream_carries_bytes_both_ways() {
    let mut guest = Guest::new();
    let (mut server, name) = open_from_guest(&mut guest);
    server.write_all(b"to the guest").unwrap();
    guest.socket(name).outbox.extend(b"to the host");
    guest.turn();
    assert_eq!(guest.socket(name).read(100), b"to the guest");
    let mut buffer = [0; 11];
    server.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"to the host");
}

#[test]
fn bytes_behind_the_connect_line_are_not_lost() {
    let mut guest = Guest::new();
    guest.listening.insert(1024);
    let mut client = UnixStream::connect(guest.path()).unwrap();
    client.write_all(b"CONNECT 1024\nearly").unwrap();
    guest.turn();
    let name = (ok_line(&client).unwrap(), 1024);
    guest.turn();
    assert_eq!(guest.socket(name).read(100), b"early");
}

#[test]
fn where_nobody_listens_a_stream_is_refused() {
    let mut guest = Guest::new();
    let client = dial(&guest, 7);
    guest.turn();
    assert_eq!(ok_line(&client), None);
    let name = guest.connect(81, 5000);
    assert!(guest.socket(name).reset);
    // A socket's file that nobody serves any more.
    drop(UnixListener::bind(guest.directory().join("vsock_82")).unwrap());
    let name = guest.connect(82, 5000);
    assert!(guest.socket(name).reset);
    assert_eq!(guest.device.engine.sockets(), 0);
}

#[test]
fn a_client_without_a_proper_line_is_closed() {
    let mut guest = Guest::new();
    for line in [
        "CONNECT x\n",
        "\n",
        "HELO\n",
        "CONNECT 99999999999\n",
        "CONNECT 1024 and a line without an end",
    ] {
        let mut client = UnixStream::connect(guest.path()).unwrap();
        client.write_all(line.as_bytes()).unwrap();
        guest.turn();
        let end = client.read(&mut [0; 8]);
        // Closing a socket with bytes unread in it is a reset for the other side.
        assert!(
            matches!(&end, Ok(0)) || end.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset),
            "{line:?}"
        );
    }
}

#[test]
fn clients_that_say_nothing_are_bounded_and_the_oldest_goes() {
    let mut guest = Guest::new();
    let mut silent: Vec<_> = (0..MAX_PENDING + 3)
        .map(|_| {
            let client = UnixStream::connect(guest.path()).unwrap();
            guest.turn();
            client.set_nonblocking(true).unwrap();
            client
        })
        .collect();
    let dropped = silent.iter_mut().map(|client| client.read(&mut [0]).is_ok());
    let dropped: Vec<_> = dropped.collect();
    assert_eq!(dropped.iter().filter(|dropped| **dropped).count(), 3);
    assert!(dropped[..3].iter().all(|dropped| *dropped));
    let (_client, _) = open_from_host(&mut guest);
}

#[test]
fn a_hundred_streams_echo_at_once_without_mixing_bytes() {
    let mut guest = Guest::new();
    guest.listening.insert(7);
    let path = guest.path();
    let clients: Vec<_> = (0..100u64)
        .map(|seed| {
            let path = path.clone();
            std::thread::spawn(move || {
                let mut client = UnixStream::connect(path).unwrap();
                client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                writeln!(client, "CONNECT 7").unwrap();
                ok_line(&client).unwrap();
                let data = pattern(seed, 150_000 + seed as usize * 1000);
                let mut writer = client.try_clone().unwrap();
                let to_send = data.clone();
                let sender = std::thread::spawn(move || {
                    writer.write_all(&to_send).unwrap();
                    writer.shutdown(Shutdown::Write).unwrap();
                });
                let mut echo = Vec::new();
                client.read_to_end(&mut echo).unwrap();
                sender.join().unwrap();
                assert!(
                    echo == data,
                    "stream {seed}: {} of {} bytes, or others",
                    echo.len(),
                    data.len()
                );
            })
        })
        .collect();
    let start = std::time::Instant::now();
    while !clients.iter().all(|client| client.is_finished()) {
        assert!(start.elapsed().as_secs() < 60);
        guest.turn();
        let names: Vec<_> = guest.sockets.keys().copied().collect();
        for name in names {
            let socket = guest.socket(name);
            let data = socket.read(usize::MAX);
            socket.outbox.extend(data);
            let ended = socket.host_shutdown & SHUTDOWN_SEND != 0 && socket.outbox.is_empty();
            if ended && socket.open {
                socket.open = false;
                guest.send(name, Op::Shutdown, SHUTDOWN_BOTH, &[]);
            }
        }
        guest.turn();
        guest.wait(1);
    }
    for client in clients {
        client.join().unwrap();
    }
    guest.until(|guest| guest.device.engine.streams() == 0 && guest.device.engine.sockets() == 0);
}

#[test]
fn a_slow_program_in_the_guest_holds_the_client_back() {
    let mut guest = Guest::new();
    let (mut client, name) = open_from_host(&mut guest);
    client.set_nonblocking(true).unwrap();
    let data = pattern(1, 2_000_000);
    let mut written = 0;
    let mut stuck = 0;
    while stuck < 3 {
        match client.write(&data[written..]) {
            Ok(count) => (written, stuck) = (written + count, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => stuck += 1,
            Err(error) => panic!("{error}"),
        }
        guest.turn();
    }
    assert_eq!(guest.socket(name).inbox.len(), GUEST_BUFFER as usize);
    assert!(written < data.len());
    // It is asked for credit once, not over and over.
    guest.turn();
    let asked = guest
        .log
        .iter()
        .filter(|header| header.op == Op::CreditRequest.number())
        .count();
    assert_eq!(asked, 1);
    let mut got = Vec::new();
    guest.until(|guest| {
        got.extend(guest.socket(name).read(10_000));
        if let Ok(count) = client.write(&data[written..]) {
            written += count;
        }
        got.len() == data.len()
    });
    assert!(got == data, "the bytes differ");
}

#[test]
fn a_slow_client_holds_the_guest_back_within_its_bound() {
    let mut guest = Guest::new();
    let (mut client, name) = open_from_host(&mut guest);
    let data = pattern(2, 2_000_000);
    guest.socket(name).outbox.extend(&data);
    guest.turn();
    let waiting = guest.socket(name).outbox.len();
    assert!(waiting > 1_000_000, "{waiting}");
    guest.turn();
    assert_eq!(guest.socket(name).outbox.len(), waiting, "nothing moves");
    let mut got = Vec::new();
    client.set_nonblocking(true).unwrap();
    guest.until(|_| {
        let mut buffer = [0; 50_000];
        while let Ok(count) = client.read(&mut buffer) {
            got.extend_from_slice(&buffer[..count]);
        }
        got.len() >= data.len()
    });
    assert!(got == data, "the bytes differ");
}

#[test]
fn a_guest_that_ignores_its_credit_is_reset() {
    let mut guest = Guest::new();
    let (client, name) = open_from_host(&mut guest);
    let (_other, other) = open_from_host(&mut guest);
    let payload = vec![1; 16_000];
    let mut sent = 0u32;
    while !guest.socket(name).reset {
        guest.send(name, Op::Data, 0, &payload);
        sent += 16_000;
        // What the socket takes and what the credit allows, but not more.
        assert!(sent < 2_000_000 + BUF_ALLOC);
        guest.turn();
    }
    assert_eq!(
        guest.device.engine.sockets(),
        1,
        "the stream's bytes are dropped with it"
    );
    drop(client);
    assert!(!guest.socket(other).reset);
    assert!(guest.socket(other).open);
}

#[test]
fn half_close_by_the_client_lets_the_guest_answer() {
    let mut guest = Guest::new();
    let (mut client, name) = open_from_host(&mut guest);
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    guest.turn();
    assert_eq!(guest.socket(name).read(100), b"question");
    assert_eq!(guest.socket(name).host_shutdown, SHUTDOWN_SEND);
    guest.socket(name).outbox.extend(b"answer");
    guest.turn();
    guest.send(name, Op::Shutdown, SHUTDOWN_BOTH, &[]);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
    guest.turn();
    assert!(guest.socket(name).reset, "the end is confirmed");
    assert_eq!(guest.device.engine.sockets(), 0);
}

#[test]
fn half_close_by_the_guest_lets_the_client_answer() {
    let mut guest = Guest::new();
    let (mut client, name) = open_from_host(&mut guest);
    // More than the socket takes, so that the end must wait behind it.
    let question = pattern(3, 300_000);
    let mut got = Vec::new();
    guest.socket(name).outbox.extend(&question);
    client.set_nonblocking(true).unwrap();
    let mut said = false;
    let mut ended = false;
    guest.until(|guest| {
        if guest.socket(name).outbox.is_empty() && !said {
            said = true;
            guest.send(name, Op::Shutdown, SHUTDOWN_SEND, &[]);
        }
        let mut buffer = [0; 1000];
        match client.read(&mut buffer) {
            Ok(0) => ended = true,
            Ok(count) => got.extend_from_slice(&buffer[..count]),
            Err(_) => {}
        }
        ended
    });
    assert!(got == question, "the bytes differ");
    client.write_all(b"answer").unwrap();
    guest.turn();
    assert_eq!(guest.socket(name).read(100), b"answer");
    drop(client);
    guest.turn();
    assert_eq!(guest.socket(name).host_shutdown, SHUTDOWN_BOTH);
    assert_eq!(guest.device.engine.sockets(), 0);
}

#[test]
fn a_guest_that_reads_no_more_stops_the_client() {
    let mut guest = Guest::new();
    let (mut client, name) = open_from_host(&mut guest);
    guest.send(name, Op::Shutdown, SHUTDOWN_RECEIVE, &[]);
    guest.turn();
    assert_eq!(client.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    guest.socket(name).outbox.extend(b"still");
    guest.turn();
    let mut buffer = [0; 5];
    client.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"still");
}

#[test]
fn a_close_in_the_guest_does_not_lose_the_bytes_before_it() {
    let mut guest = Guest::new();
    for op in [Op::Shutdown, Op::Reset] {
        let (mut client, name) = open_from_host(&mut guest);
        let data = pattern(4, 1_000_000);
        guest.socket(name).outbox.extend(&data);
        guest.turn();
        let left = guest.socket(name).outbox.len();
        guest.socket(name).open = false;
        guest.send(name, op, SHUTDOWN_BOTH, &[]);
        guest.turn();
        assert_eq!(guest.device.engine.streams(), 0);
        assert_eq!(guest.device.engine.sockets(), 1, "it lingers");
        let mut got = Vec::new();
        client.set_nonblocking(true).unwrap();
        let mut ended = false;
        guest.until(|_| {
            let mut buffer = [0; 50_000];
            match client.read(&mut buffer) {
                Ok(0) => ended = true,
                Ok(count) => got.extend_from_slice(&buffer[..count]),
                Err(_) => {}
            }
            ended
        });
        assert!(got == data[..data.len() - left], "the bytes differ");
        assert_eq!(guest.device.engine.sockets(), 0);
    }
}

#[test]
fn a_client_that_hangs_up_is_told_to_the_guest_after_its_bytes() {
    let mut guest = Guest::new();
    let (mut client, name) = open_from_host(&mut guest);
    client.write_all(&pattern(5, 150_000)).unwrap();
    drop(client);
    guest.turn();
    assert_eq!(
        guest.socket(name).host_shutdown & SHUTDOWN_SEND,
        0,
        "not all of it was read"
    );
    let mut got = 0;
    guest.until(|guest| {
        got += guest.socket(name).read(4096).len();
        guest.socket(name).host_shutdown == SHUTDOWN_BOTH && guest.socket(name).inbox.is_empty()
    });
    assert_eq!(got, 150_000);
    guest.send(name, Op::Reset, 0, &[]);
    assert_eq!(guest.device.engine.sockets(), 0);
}

#[test]
fn a_client_that_hangs_up_unheard_leaves_nothing() {
    let mut guest = Guest::new();
    drop(dial(&guest, 1024));
    guest.turn();
    assert_eq!(
        (guest.device.engine.streams(), guest.device.engine.sockets()),
        (0, 0)
    );
    assert!(guest.log.is_empty());
    // The guest was asked and has not answered: it must hear that nobody waits any more.
    guest.hold = true;
    let client = dial(&guest, 1024);
    guest.wait(1000);
    assert_eq!(guest.device.engine.streams(), 1);
    drop(client);
    guest.wait(1000);
    assert_eq!(guest.device.engine.sockets(), 0);
    guest.listening.insert(1024);
    guest.turn();
    guest.release();
    guest.turn();
    assert!(guest.sockets.values().all(|socket| socket.reset));
    assert_eq!(guest.device.engine.streams(), 0);
}

#[test]
fn strange_packets_are_answered_with_a_reset() {
    let mut guest = Guest::new();
    let (_client, name) = open_from_host(&mut guest);
    let good = guest.header((9, 9), Op::Data, 0, 0);
    let reset = Op::Reset.number();
    let answered = |guest: &mut Guest, header: &Header| {
        guest.log.clear();
        guest.send_raw(header, &[]);
        guest.turn();
        guest.log.first().map(|answer| {
            assert_eq!(guest.log.len(), 1);
            assert_eq!(answer.op, reset);
            assert_eq!(
                (answer.src_cid, answer.src_port),
                (header.dst_cid, header.dst_port)
            );
            assert_eq!(
                (answer.dst_cid, answer.dst_port),
                (header.src_cid, header.src_port)
            );
            answer.kind
        })
    };
    assert_eq!(answered(&mut guest, &good), Some(TYPE_STREAM), "no such stream");
    for op in [0, 8, u16::MAX] {
        assert_eq!(answered(&mut guest, &Header { op, ..good }), Some(TYPE_STREAM));
    }
    for kind in [0, 2, 3] {
        let op = Op::Request.number();
        assert_eq!(answered(&mut guest, &Header { kind, op, ..good }), Some(kind));
    }
    let elsewhere = Header {
        dst_cid: 77,
        op: Op::Request.number(),
        ..good
    };
    assert_eq!(answered(&mut guest, &elsewhere), Some(TYPE_STREAM));
    // No reset for a reset, and none for a packet in somebody else's name.
    assert_eq!(answered(&mut guest, &Header { op: reset, ..good }), None);
    assert_eq!(
        answered(
            &mut guest,
            &Header {
                op: reset,
                kind: 9,
                ..good
            }
        ),
        None
    );
    assert_eq!(
        answered(
            &mut guest,
            &Header {
                src_cid: HOST_CID,
                ..good
            }
        ),
        None
    );
    assert!(guest.socket(name).open, "other streams go on");
    // A second request for a stream that exists ends it.
    let again = guest.header(name, Op::Request, 0, 0);
    assert_eq!(answered(&mut guest, &again), Some(TYPE_STREAM));
    assert_eq!(guest.device.engine.streams(), 0);
}

#[test]
fn broken_chains_stop_the_device() {
    let mut guest = Guest::new();
    let mut header = guest.header((1, 1), Op::Data, 0, 0);
    header.len = 1;
    guest.queue_packet(&header, &[]);
    let result = guest.try_call(|device, active| device.handle_queue(TX, active));
    assert!(
        matches!(result, Err(DeviceError::Malformed { queue: TX, .. })),
        "{result:?}"
    );

    let mut guest = Guest::new();
    guest.spoil_rx();
    let header = guest.header((1, 1), Op::Data, 0, 0);
    guest.queue_packet(&header, &[]);
    let result = guest.try_call(|device, active| device.handle_queue(TX, active));
    assert!(
        matches!(result, Err(DeviceError::Malformed { queue: RX, .. })),
        "{result:?}"
    );
}

#[test]
fn resets_that_find_no_buffer_hold_the_guests_packets_back() {
    let mut guest = Guest::new();
    guest.hold = true;
    let stray = guest.header((9, 9), Op::Data, 0, 0);
    // 256 find a buffer, 256 wait, and then the transmit queue stays full.
    for _ in 0..512 {
        guest.send_raw(&stray, &[]);
        guest.turn();
    }
    for _ in 0..100 {
        guest.send_raw(&stray, &[]);
    }
    guest.turn();
    assert_eq!(guest.log.len(), 256);
    assert!(!guest.device.engine.has_room());
    guest.release();
    guest.turn();
    assert_eq!(guest.log.len(), 612);
    assert!(guest.device.engine.has_room());
}

#[test]
fn streams_are_bounded_and_the_next_is_refused() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let needed = 4096;
    if soft < needed {
        setrlimit(Resource::RLIMIT_NOFILE, needed.min(hard), hard).unwrap();
    }
    let mut guest = Guest::new();
    guest.listening.insert(1024);
    let mut clients = Vec::new();
    for _ in 0..MAX_STREAMS {
        let client = dial(&guest, 1024);
        guest.turn();
        ok_line(&client).unwrap();
        clients.push(client);
    }
    let refused = dial(&guest, 1024);
    guest.turn();
    assert_eq!(ok_line(&refused), None);
    let _service = UnixListener::bind(guest.directory().join("vsock_80")).unwrap();
    let name = guest.connect(80, 1);
    assert!(guest.socket(name).reset);
    // All of them work, and each gets its turn although one has always something to say.
    clients[0].set_nonblocking(true).unwrap();
    for client in clients.iter_mut() {
        let _ = client.write_all(&[1; 4096 * 8]);
    }
    guest.wait(0);
    guest.receive_once();
    let heard = guest
        .sockets
        .values()
        .filter(|socket| !socket.inbox.is_empty())
        .count();
    assert!(heard >= 256, "{heard} streams got a turn");
    drop(clients);
    guest.until(|guest| {
        let names: Vec<_> = guest.sockets.keys().copied().collect();
        for name in names {
            guest.socket(name).read(usize::MAX);
            if guest.socket(name).open && guest.socket(name).host_shutdown == SHUTDOWN_BOTH {
                guest.socket(name).open = false;
                guest.send(name, Op::Reset, 0, &[]);
            }
        }
        guest.device.engine.sockets() == 0
    });
    let (_client, _) = open_from_host(&mut guest);
}

#[test]
fn a_reset_of_the_device_drops_the_streams_and_it_starts_anew() {
    let mut guest = Guest::new();
    let (mut client, _) = open_from_host(&mut guest);
    guest.device.reset();
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    // A client that comes while no driver is there is served when one is.
    let waiting = dial(&guest, 1024);
    guest.boot();
    guest.turn();
    assert!(ok_line(&waiting).is_some());
    let (_client, _) = open_from_host(&mut guest);
}

#[test]
fn a_transport_reset_is_told_by_an_event() {
    let mut guest = Guest::new();
    let (mut client, _) = open_from_host(&mut guest);
    for _ in 0..4 {
        let outcome = guest.call(|device, active| device.transport_reset(active));
        assert!(outcome.interrupt);
        assert_eq!(guest.event(), Some(EVENT_TRANSPORT_RESET));
    }
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    // Without a buffer it waits for one.
    let outcome = guest.call(|device, active| device.transport_reset(active));
    assert!(!outcome.interrupt);
    assert_eq!(guest.event(), None);
    guest.offer_event();
    let outcome = guest.call(|device, active| device.handle_queue(EVENT, active));
    assert!(outcome.interrupt);
    assert_eq!(guest.event(), Some(EVENT_TRANSPORT_RESET));
}
