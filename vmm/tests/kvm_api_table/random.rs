//! Calls in an order that nobody would choose.

use nix::sys::signal::Signal;
use secovia_stub_guests as stubs;
use serde_json::{Value, json};

use super::after::after;
use super::before::before;
use super::common::{Machine, kvm};
use super::row::Row;

/// A generator of numbers, of which every run makes the same.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        // An xorshift.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// Breaks a body in one of the ways in which bodies are broken.
fn spoil(body: &Value, dice: &mut Dice) -> String {
    let mut text = body.to_string();
    match dice.below(4) {
        0 => text.truncate(dice.below(text.len().max(1))),
        1 => text = text.replacen(':', ",", 1),
        2 => text = text.replacen('"', "\"x", 1),
        _ => {
            let with = ["null", "-1", "[]", "{\"a\":{}}", "1e999", "\"\\u0000\""][dice.below(6)];
            if let Some((head, _)) = text.rsplit_once(':') {
                text = format!("{head}:{with}}}");
            }
        }
    }
    text
}

#[test]
fn a_thousand_calls_in_random_order_leave_no_wrong_state() {
    if !kvm() {
        return;
    }
    let machine = Machine::stub(stubs::SERIAL_FLOOD);
    let (running, api) = machine.start_empty();
    // The metrics' file and the log's are set once, and a tap is nowhere: the rest may come in any order.
    let rows: Vec<Row> = before(&machine)
        .into_iter()
        .chain(after(&machine))
        .filter(|row| {
            !row.1.starts_with("/network-interfaces/n") && row.1 != "/serial" && row.1 != "/mmds/config"
        })
        .collect();
    let mut dice = Dice(0x5eed_0f5e_c0f1_a001);
    let (mut state, mut statuses) = ("Not started", [0; 3]);
    for number in 0..1000 {
        let before = api.get("/vm/config").body;
        let (method, path, body, _) = &rows[dice.below(rows.len())];
        let is_start = number == 400;
        let (method, path, body) = if is_start {
            // With a description that holds, however the dice fell.
            for (path, body) in [
                (
                    "/boot-source",
                    json!({ "kernel_image_path": machine.folder.join("kernel") }),
                ),
                (
                    "/drives/disk",
                    json!({ "drive_id": "disk", "path_on_host": machine.folder.join("disk"),
                    "is_root_device": false, "is_read_only": true }),
                ),
                // The same disk: two who write it, or two root devices, are not what this is about.
                (
                    "/pmem/p",
                    json!({ "id": "p", "path_on_host": machine.folder.join("disk"), "read_only": true }),
                ),
                // Before the memory, of which the balloon may be too much, and behind the pages that go with none.
                ("/machine-config", json!({ "vcpu_count": 2, "mem_size_mib": 256 })),
                ("/balloon", json!({ "amount_mib": 0, "deflate_on_oom": false })),
                ("/machine-config", json!({ "vcpu_count": 2, "mem_size_mib": 64 })),
            ] {
                api.set(path, body);
            }
            ("PUT", "/actions", json!({ "action_type": "InstanceStart" }))
        } else if path == "/actions" && state == "Not started" {
            ("GET", "/", Value::Null)
        } else {
            (*method, path.as_str(), body.clone())
        };
        let text = match dice.below(4) {
            0 if !is_start => spoil(&body, &mut dice),
            _ if body.is_null() => String::new(),
            _ => body.to_string(),
        };
        let answer = api.call(method, path, &text);
        let config = api.get("/vm/config").body;
        let name = format!("call {number}: {method} {path} {text}");
        match answer.status {
            200 => assert!(method == "GET" && !answer.body.is_null(), "{name}: {answer:?}"),
            204 => {
                assert!(method != "GET", "{name}: {answer:?}");
                match (path, body["state"].as_str()) {
                    ("/actions", _) if is_start => state = "Running",
                    ("/vm", Some("Paused")) => state = "Paused",
                    ("/vm", Some("Resumed")) => state = "Running",
                    _ => {}
                }
            }
            400 => assert!(!answer.fault().is_empty(), "{name}: {answer:?}"),
            other => panic!("{name}: status {other}"),
        }
        if answer.status != 204 && !is_start {
            assert_eq!(config, before, "{name}: {answer:?}");
        }
        assert_eq!(api.get("/").body["state"], state, "{name}: {answer:?}");
        statuses[usize::from(answer.status != 200) + usize::from(answer.status == 400)] += 1;
    }
    assert!(statuses.iter().all(|count| *count > 50), "{statuses:?}");
    running.signal(Signal::SIGTERM);
    running.signal(Signal::SIGINT);
    let outcome = running.end();
    // The log's level is one of the things that were changed; what it may not tell of is a fault of our own.
    assert_eq!(outcome.status, Some(5), "{}", outcome.errors);
    let faults = ["ERROR", "panicked"].map(|word| outcome.errors.contains(word));
    assert_eq!(faults, [false; 2], "{}", outcome.errors);
}
