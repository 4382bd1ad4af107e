//! A disk that another process serves, as far as a backend can see it that takes the queue and serves nothing.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use common::{Machine, Running, kvm};
use nix::sys::signal::Signal;
use secovia_stub_guests as stubs;
use serde_json::json;

// Requests of the protocol.
const GET_FEATURES: u32 = 1;
const SET_MEM_TABLE: u32 = 5;
const GET_VRING_BASE: u32 = 11;
const GET_PROTOCOL_FEATURES: u32 = 15;
const SET_VRING_ENABLE: u32 = 18;
const GET_CONFIG: u32 = 24;

/// Serves one connection until the other end, or `end`, and tells of each request.
fn serve(mut stream: UnixStream, told: &Sender<u32>, end: u32) {
    loop {
        let mut header = [0; 12];
        if stream.read_exact(&mut header).is_err() {
            return;
        }
        let field = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
        let (request, flags) = (field(0), field(4));
        let mut payload = vec![0; field(8) as usize];
        stream.read_exact(&mut payload).unwrap();
        let _ = told.send(request);
        if request == end {
            return;
        }
        let number = |number: u64| Some(number.to_ne_bytes().to_vec());
        let answer = match request {
            // VERSION_1, the ring's features, protocol features.
            GET_FEATURES => number(1 << 32 | 3 << 28 | 1 << 30),
            // CONFIG and REPLY_ACK.
            GET_PROTOCOL_FEATURES => number(1 << 9 | 1 << 3),
            GET_VRING_BASE => number(0),
            GET_CONFIG => {
                payload[12] = 8;
                Some(payload)
            }
            _ if flags & 8 != 0 => number(0),
            _ => None,
        };
        if let Some(answer) = answer {
            let mut message = request.to_ne_bytes().to_vec();
            message.extend(5_u32.to_ne_bytes());
            message.extend((answer.len() as u32).to_ne_bytes());
            message.extend(answer);
            stream.write_all(&message).unwrap();
        }
    }
}

/// A machine whose disk is served until the request `end`.
fn machine(end: u32) -> (Machine, Receiver<u32>) {
    let machine = Machine::stub(stubs::DISK_ROUNDS);
    let socket = machine.folder.join("backend.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let (sender, told) = mpsc::channel();
    thread::spawn(move || serve(listener.accept().unwrap().0, &sender, end));
    let drive = json!({ "drive_id": "disk", "socket": socket, "is_root_device": false });
    (machine.with("/drives/0", drive), told)
}

fn wait(told: &Receiver<u32>, request: u32) {
    while told
        .recv_timeout(Duration::from_secs(20))
        .unwrap_or_else(|_| panic!("no request {request}"))
        != request
    {}
}

/// Asked twice, the machine ends, whatever its guest does.
fn end(running: &Running) {
    running.signal(Signal::SIGTERM);
    thread::sleep(Duration::from_millis(300));
    running.signal(Signal::SIGTERM);
}

#[test]
fn a_backend_gets_the_queue_leaves_it_for_a_pause_and_is_asked_for_its_size() {
    if !kvm() {
        return;
    }
    let (machine, told) = machine(u32::MAX);
    let (running, api) = machine.start_served();
    wait(&told, SET_MEM_TABLE);
    wait(&told, SET_VRING_ENABLE);
    for _ in 0..3 {
        assert_eq!(api.patch("/vm", json!({ "state": "Paused" })).status, 204);
        wait(&told, GET_VRING_BASE);
        assert_eq!(api.patch("/vm", json!({ "state": "Resumed" })).status, 204);
        wait(&told, SET_VRING_ENABLE);
    }
    assert_eq!(
        api.patch("/drives/disk", json!({ "drive_id": "disk" })).status,
        204
    );
    wait(&told, GET_CONFIG);
    let refused = api.patch("/drives/disk", json!({ "drive_id": "disk", "path_on_host": "/" }));
    assert!(
        refused.fault().starts_with("drives.disk: with a socket"),
        "{refused:?}"
    );
    end(&running);
    assert_eq!(running.end().errors, "");
}

#[test]
fn a_backend_that_goes_away_takes_nothing_with_it() {
    if !kvm() {
        return;
    }
    let (machine, told) = machine(GET_VRING_BASE);
    let (running, api) = machine.start_served();
    wait(&told, SET_VRING_ENABLE);
    // At the second time it is known.
    for state in ["Paused", "Resumed", "Paused", "Resumed"] {
        assert_eq!(api.patch("/vm", json!({ "state": state })).status, 204, "{state}");
    }
    assert_eq!(api.get("/").body["state"], "Running");
    end(&running);
    let errors = running.end().errors;
    assert!(
        errors.contains("the disk's vhost-user backend is given up"),
        "{errors}"
    );
}
