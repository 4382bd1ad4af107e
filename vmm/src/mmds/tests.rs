use std::time::Duration;

use secovia_vmm_api::MmdsVersion;
use serde_json::{Value, json};

use secovia_devices::virtio::net::Neighbour;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};

use super::http::{Answer, HttpError, Kind, Method, Parsed, REQUEST_MAX, Request, Status, parse};
use super::wire::Wire;
use super::*;

fn mmds(version: MmdsVersion) -> SharedMmds {
    let mmds = SharedMmds::new(1000).unwrap();
    mmds.lock().configure(version, false);
    let data =
        json!({ "latest": { "meta-data": { "id": "i-1", "count": 3, "a/b": "slash" }, "user": "text" } });
    mmds.lock().put(data).unwrap();
    mmds
}

fn request(text: &str) -> Request {
    match parse(text.as_bytes()) {
        Ok(Parsed::Whole(request, length)) if length == text.len() => request,
        other => panic!("{other:?}"),
    }
}

/// What the service answers a request of this first line and these headers.
fn ask(mmds: &SharedMmds, line: &str, headers: &str, now: Duration) -> Answer {
    mmds.lock()
        .answer_at(&request(&format!("{line} HTTP/1.1\r\n{headers}\r\n")), now)
}

const NOW: Duration = Duration::from_secs(100);

#[test]
fn the_path_is_the_place_in_the_data_and_accept_the_form() {
    let mmds = mmds(MmdsVersion::V1);
    let json = "Accept: application/json\r\n";
    for (path, headers, expected) in [
        ("/latest/meta-data/id", "", Ok((Kind::Text, "i-1"))),
        ("//latest///meta-data/id/", "", Ok((Kind::Text, "i-1"))),
        ("http://169.254.169.254/latest/user", "", Ok((Kind::Text, "text"))),
        ("/latest/user?x=y", "Accept: */*\r\n", Ok((Kind::Text, "text"))),
        ("/latest", "", Ok((Kind::Text, "meta-data/\nuser"))),
        ("/", "", Ok((Kind::Text, "latest/"))),
        ("/latest/meta-data/a~1b", "", Ok((Kind::Text, "slash"))),
        ("/latest/user", json, Ok((Kind::Json, "\"text\""))),
        ("/latest/meta-data/count", json, Ok((Kind::Json, "3"))),
        ("/latest/meta-data/count", "", Err(Status::Unable)),
        ("/latest/none", "", Err(Status::Missing)),
        ("/latest/user/none", json, Err(Status::Missing)),
    ] {
        let answer = ask(&mmds, &format!("GET {path}"), headers, NOW);
        match expected {
            Ok((kind, body)) => {
                assert_eq!(
                    (answer.status, answer.kind, answer.body.as_str()),
                    (Status::Ok, kind, body),
                    "{path}"
                );
            }
            Err(status) => assert_eq!(answer.status, status, "{path}"),
        }
    }
    mmds.lock().configure(MmdsVersion::V1, true);
    assert_eq!(ask(&mmds, "GET /latest/user", json, NOW).body, "text");
    assert_eq!(ask(&mmds, "DELETE /latest", "", NOW).status, Status::Method);
}

#[test]
fn the_second_version_answers_those_who_show_a_token_that_holds() {
    let mmds = mmds(MmdsVersion::V2);
    let read = |headers: &str, now| ask(&mmds, "GET /latest/user", headers, now);
    assert_eq!(read("", NOW).status, Status::Unauthorised);
    for names in [
        ("X-metadata-token-ttl-seconds", "X-metadata-token"),
        ("x-aws-ec2-metadata-token-ttl-seconds", "X-AWS-EC2-metadata-token"),
    ] {
        let given = ask(
            &mmds,
            "PUT /latest/api/token",
            &format!("{}: 60\r\n", names.0),
            NOW,
        );
        assert_eq!((given.status, given.seconds), (Status::Ok, Some(60)), "{given:?}");
        let token = given.body;
        let header = |token: &str| format!("{}: {token}\r\n", names.1);
        assert_eq!(read(&header(&token), NOW).body, "text");
        assert_eq!(
            read(&header(&token), NOW + Duration::from_secs(59)).status,
            Status::Ok
        );
        assert_eq!(
            read(&header(&token), NOW + Duration::from_secs(60)).status,
            Status::Unauthorised
        );
        // Each digit counts, and so does its number.
        for at in 0..token.len() {
            let mut other = token.clone().into_bytes();
            other[at] = if other[at] == b'0' { b'1' } else { b'0' };
            let other = String::from_utf8(other).unwrap();
            assert_eq!(read(&header(&other), NOW).status, Status::Unauthorised, "{at}");
            assert_eq!(read(&header(&token[..at]), NOW).status, Status::Unauthorised);
        }
        for bad in ["", "x", "zz", "ä"] {
            assert_eq!(read(&header(bad), NOW).status, Status::Unauthorised);
        }
    }
    // A token of another machine's.
    let other = SharedMmds::new(10).unwrap();
    let token = ask(
        &other,
        "PUT /latest/api/token",
        "X-metadata-token-ttl-seconds: 60\r\n",
        NOW,
    )
    .body;
    assert_eq!(
        read(&format!("X-metadata-token: {token}\r\n"), NOW).status,
        Status::Unauthorised
    );
}

#[test]
fn a_token_is_given_for_a_time_and_not_to_a_proxy() {
    let mmds = mmds(MmdsVersion::V2);
    let ttl = |ttl: &str| format!("X-metadata-token-ttl-seconds: {ttl}\r\n");
    for (path, headers, status) in [
        ("/latest/api/token", ttl("1"), Status::Ok),
        ("//latest/api/token/", ttl("21600"), Status::Ok),
        ("/latest/api/token", ttl("0"), Status::Bad),
        ("/latest/api/token", ttl("21601"), Status::Bad),
        ("/latest/api/token", ttl("-1"), Status::Bad),
        ("/latest/api/token", ttl("99999999999999999999"), Status::Bad),
        ("/latest/api/token", String::new(), Status::Bad),
        (
            "/latest/api/token",
            ttl("60") + "X-Forwarded-For: 10.0.0.1\r\n",
            Status::Bad,
        ),
        ("/latest/user", ttl("60"), Status::Missing),
    ] {
        assert_eq!(
            ask(&mmds, &format!("PUT {path}"), &headers, NOW).status,
            status,
            "{path} {headers}"
        );
    }
}

#[test]
fn data_is_merged_whole_or_not_at_all_and_never_too_large() {
    let mmds = SharedMmds::new(30).unwrap();
    let mut mmds = mmds.lock();
    assert_eq!(mmds.text(), "{}");
    assert_eq!(mmds.patch(&json!({ "a": 1 })), Err(MmdsError::Nothing));
    mmds.put(json!({ "a": { "b": 1, "c": 2 } })).unwrap();
    mmds.patch(&json!({ "a": { "b": null, "d": { "e": null } }, "f": 1 }))
        .unwrap();
    let text = mmds.text();
    assert_eq!(
        serde_json::from_str::<Value>(&text).unwrap(),
        json!({ "a": { "c": 2, "d": {} }, "f": 1 })
    );
    let long = json!({ "g": "x".repeat(30) });
    assert_eq!(mmds.patch(&long), Err(MmdsError::Size { size: 63, limit: 30 }));
    assert_eq!(mmds.put(long), Err(MmdsError::Size { size: 38, limit: 30 }));
    assert_eq!(mmds.text(), text);
    mmds.put(Value::Null).unwrap();
    assert_eq!(mmds.text(), "{}");
}

#[test]
fn requests_come_in_pieces_and_end_at_a_limit() {
    let text = b"PUT /latest/api/token HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET";
    let end = text.len() - 3;
    for length in 0..end {
        assert_eq!(parse(&text[..length]), Ok(Parsed::Partial), "{length}");
    }
    assert!(matches!(parse(text), Ok(Parsed::Whole(request, length))
        if length == end && request.method == Method::Put && !request.close));
    assert!(request("GET / HTTP/1.0\r\n\r\n").close);
    assert!(request("GET / HTTP/1.1\r\nConnection: close\r\n\r\n").close);
    for (text, error) in [
        ("nonsense\r\n\r\n".to_owned(), HttpError::Head),
        (
            "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            HttpError::Head,
        ),
        (
            "GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n".into(),
            HttpError::Head,
        ),
        (
            "GET / HTTP/1.1\r\nContent-Length: 9000\r\n\r\n".into(),
            HttpError::Size,
        ),
        (
            format!("GET /{} HTTP/1.1", "x".repeat(REQUEST_MAX)),
            HttpError::Size,
        ),
    ] {
        assert_eq!(parse(text.as_bytes()), Err(error), "{text}");
    }
}

/// A guest with a stack of its own, on the other end of the cable.
struct Guest {
    wire: Wire,
    stack: Interface,
    sockets: SocketSet<'static>,
    endpoint: Endpoint,
    now: std::time::Instant,
    port: u16,
}

const SERVICE: std::net::Ipv4Addr = std::net::Ipv4Addr::new(169, 254, 169, 254);

impl Guest {
    fn new(mmds: SharedMmds) -> Self {
        let mut wire = Wire::new(1500);
        let config = Config::new(EthernetAddress([6, 0, 0, 0, 0, 2]).into());
        let mut stack = Interface::new(config, &mut wire, smoltcp::time::Instant::ZERO);
        stack.update_ip_addrs(|addresses| {
            // The route to the service is one of its interface, not by a gateway.
            addresses
                .push(IpCidr::new(IpAddress::v4(10, 0, 0, 2), 0))
                .unwrap();
        });
        Self {
            wire,
            stack,
            sockets: SocketSet::new(vec![]),
            endpoint: Endpoint::new(SERVICE, 1500, mmds).unwrap(),
            now: std::time::Instant::now(),
            port: 40_000,
        }
    }

    /// Frames go to and fro until nothing moves.
    fn settle(&mut self) {
        loop {
            let now = smoltcp::time::Instant::from_micros(self.now.elapsed().as_micros() as i64);
            self.stack.poll(now, &mut self.wire, &mut self.sockets);
            let mut moved = false;
            while let Some(frame) = self.wire.get() {
                assert!(self.endpoint.is_for_it(&frame[..42]));
                self.endpoint.take(&frame);
                moved = true;
            }
            while let Some(frame) = self.endpoint.give() {
                assert!(frame.len() <= 1514);
                self.wire.put(&frame);
                moved = true;
            }
            if !moved {
                return;
            }
        }
    }

    fn connect(&mut self) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 65536]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        self.port += 1;
        socket
            .connect(self.stack.context(), (IpAddress::Ipv4(SERVICE), 80), self.port)
            .unwrap();
        let handle = self.sockets.add(socket);
        self.settle();
        handle
    }

    fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    fn send(&mut self, handle: SocketHandle, text: &str) {
        assert_eq!(self.socket(handle).send_slice(text.as_bytes()), Ok(text.len()));
        self.settle();
    }

    fn received(&mut self, handle: SocketHandle) -> String {
        let mut text = vec![0; 65536];
        let length = self.socket(handle).recv_slice(&mut text).unwrap();
        text.truncate(length);
        self.settle();
        String::from_utf8(text).unwrap()
    }
}

#[test]
fn a_guest_reads_over_its_cable() {
    let mut guest = Guest::new(mmds(MmdsVersion::V2));
    let connection = guest.connect();
    assert!(guest.socket(connection).may_send());
    // In two pieces, the second with the next request.
    guest.send(connection, "PUT /latest/api/token HTTP/1.1\r\nX-metadata-");
    guest.send(connection, "token-ttl-seconds: 60\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    let text = guest.received(connection);
    let (head, rest) = text.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200 OK") && head.contains("X-aws-ec2-metadata-token-ttl-seconds: 60"),
        "{text}"
    );
    let (token, rest) = rest.split_once("HTTP/1.1 401").unwrap();
    assert!(rest.contains("X-metadata-token"));
    guest.send(
        connection,
        &format!("GET /latest/user HTTP/1.1\r\nX-metadata-token: {token}\r\nConnection: close\r\n\r\n"),
    );
    assert!(guest.received(connection).ends_with("\r\n\r\ntext"));
    // That was the last one.
    assert!(!guest.socket(connection).may_recv());
}

#[test]
fn more_connections_than_places_are_served_one_after_the_other() {
    let mut guest = Guest::new(mmds(MmdsVersion::V1));
    for number in 0..100 {
        let connection = guest.connect();
        guest.send(
            connection,
            "GET /latest/user HTTP/1.1\r\nConnection: close\r\n\r\n",
        );
        assert!(guest.received(connection).ends_with("text"), "{number}");
        guest.socket(connection).close();
        guest.settle();
    }
    // And those that say nothing give way.
    let silent: Vec<_> = (0..8).map(|_| guest.connect()).collect();
    std::thread::sleep(Duration::from_millis(600));
    for _ in silent {
        guest.connect();
        let connection = guest.connect();
        guest.send(connection, "GET /latest/user HTTP/1.0\r\n\r\n");
        if guest.socket(connection).can_recv() {
            assert!(guest.received(connection).ends_with("text"));
            return;
        }
    }
    panic!("nobody gave way");
}

#[test]
fn what_is_larger_than_a_buffer_arrives_whole() {
    let mmds = SharedMmds::new(50_000).unwrap();
    let long = "0123456789".repeat(4900);
    mmds.lock().put(json!({ "long": long })).unwrap();
    let mut guest = Guest::new(mmds);
    let connection = guest.connect();
    guest.send(connection, "GET /long HTTP/1.0\r\n\r\n");
    let text = guest.received(connection);
    assert!(text.ends_with(&long), "{} of {} bytes", text.len(), long.len());
}

#[test]
fn only_what_is_for_the_service_is_taken() {
    let endpoint = Endpoint::new(SERVICE, 1500, mmds(MmdsVersion::V1)).unwrap();
    let frame = |kind: [u8; 2], at: usize, address: [u8; 4]| {
        let mut frame = [0; 42];
        frame[12..14].copy_from_slice(&kind);
        frame[at..at + 4].copy_from_slice(&address);
        frame
    };
    let service = SERVICE.octets();
    assert!(endpoint.is_for_it(&frame([8, 0], 30, service)));
    assert!(endpoint.is_for_it(&frame([8, 6], 38, service)));
    for other in [
        frame([8, 0], 26, service),
        frame([8, 6], 28, service),
        frame([8, 0], 30, [169, 254, 169, 253]),
        frame([0x86, 0xdd], 30, service),
    ] {
        assert!(!endpoint.is_for_it(&other));
    }
    for length in 0..34 {
        assert!(!endpoint.is_for_it(&frame([8, 0], 30, service)[..length]));
    }
}
