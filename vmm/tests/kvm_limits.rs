//! Limits in real time: what a guest that is always busy gets of its disk and its console in ten seconds, and how soon a
//! change tells. What the buckets themselves do is proved on a clock of their own, in `secovia-devices`.

mod common;

use std::time::{Duration, Instant};

use common::api::Api;
use common::{Machine, Running, kvm};
use secovia_stub_guests as stubs;
use serde_json::{Value, json};

const TIME: Duration = Duration::from_secs(10);

/// A bucket that fills up in a second: a host that does not let the device run for less than that takes nothing away.
struct Bucket {
    size: u64,
    burst: u64,
}

impl Bucket {
    fn json(&self) -> Value {
        json!({ "size": self.size, "one_time_burst": self.burst, "refill_time": 1000 })
    }

    /// What it lets through in a time.
    fn expected(&self, time: Duration) -> f64 {
        (self.size + self.burst) as f64 + self.size as f64 * time.as_secs_f64()
    }
}

/// A machine that runs, and where it counts what moves.
struct Subject {
    machine: Machine,
    running: Running,
    api: Api,
    /// When it began to move something.
    since: Instant,
}

impl Subject {
    fn start(machine: Machine) -> Self {
        let metrics = machine.folder.join("metrics");
        let machine = machine.argument(&format!("--metrics-path {}", metrics.display()));
        let since = Instant::now();
        let (mut running, api) = machine.start_served();
        running.wait_for("ready\n");
        // For each line the guest reads once more as often as it does.
        running.type_in(&"\n".repeat(1000));
        Self {
            machine,
            running,
            api,
            since,
        }
    }

    /// What was counted there since the start.
    fn count(&self, pointer: &str) -> u64 {
        self.api.set("/actions", r#"{"action_type": "FlushMetrics"}"#);
        let text = std::fs::read_to_string(self.machine.folder.join("metrics")).unwrap();
        let line = |line| -> u64 {
            let value: Value = serde_json::from_str(line).unwrap();
            value.pointer(pointer).and_then(Value::as_u64).unwrap()
        };
        text.lines().map(line).sum()
    }
}

/// Between what the bucket gives at the least, and at the most.
fn check(what: &str, bucket: &Bucket, count: impl FnOnce() -> u64, since: Instant) {
    let (least, found) = (bucket.expected(since.elapsed()), count());
    let most = bucket.expected(since.elapsed());
    assert!(
        found as f64 >= least * 0.95 && found as f64 <= most * 1.05,
        "{what}: {found}, not {least} to {most}"
    );
}

#[test]
fn what_a_disk_and_a_console_move_in_ten_seconds_is_what_the_limits_say() {
    if !kvm() {
        return;
    }
    let (operations, bytes, console) = (
        Bucket {
            size: 100,
            burst: 500,
        },
        Bucket {
            size: 100 << 9,
            burst: 300 << 9,
        },
        Bucket {
            size: 2000,
            burst: 1000,
        },
    );
    let disk = |limit: Value| Machine::stub(stubs::DISK_ROUNDS).with("/drives/0/rate_limiter", limit);
    // All at once, for a limit is one whatever else the host does.
    let by_operations = Subject::start(disk(json!({ "ops": operations.json() })));
    let by_bytes = Subject::start(disk(json!({ "bandwidth": bytes.json() })));
    let machine = Machine::stub(stubs::SERIAL_FLOOD);
    let path = machine.folder.join("console");
    let metrics = format!("--metrics-path {}", machine.folder.join("metrics").display());
    let machine = machine
        .with(
            "/serial",
            json!({ "serial_out_path": path, "rate_limiter": console.json() }),
        )
        .argument(&metrics);
    let since = Instant::now();
    let (running, api) = machine.start_served();
    let flood = Subject {
        machine,
        running,
        api,
        since,
    };
    std::thread::sleep(TIME);
    check(
        "operations",
        &operations,
        || by_operations.count("/block/read_count"),
        by_operations.since,
    );
    check(
        "bytes",
        &bytes,
        || by_bytes.count("/block/read_bytes"),
        by_bytes.since,
    );
    let length = || std::fs::metadata(&path).unwrap().len();
    check("console", &console, length, flood.since);
    assert!(flood.count("/uart/rate_limiter_dropped_bytes") > 0);
}

#[test]
fn a_change_of_a_limit_tells_within_a_tenth_of_a_second() {
    if !kvm() {
        return;
    }
    let nothing = json!({ "ops": { "size": 1, "refill_time": 3_600_000 } });
    let machine = Machine::stub(stubs::DISK_ROUNDS);
    let subject = Subject::start(machine);
    let patch = |limit: &Value| {
        let patch = json!({ "drive_id": "disk", "rate_limiter": limit });
        assert_eq!(subject.api.patch("/drives/disk", patch).status, 204);
    };
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        // From everything to nothing: one more, and what was under way.
        let read = subject.count("/block/read_count");
        patch(&nothing);
        let held = subject.count("/block/read_count");
        std::thread::sleep(Duration::from_millis(50));
        // The one that the new bucket holds, and the one that had begun under the old limit.
        let later = subject.count("/block/read_count");
        assert!(later <= held + 2, "reads go on: {held} and then {later}");
        assert!(held >= read);
        // And from nothing to little, of which the first is there at once.
        let before = subject.count("/block/read_count");
        let changed = Instant::now();
        patch(&json!({ "ops": { "size": 10, "refill_time": 100 } }));
        while subject.count("/block/read_count") == before {
            assert!(changed.elapsed() < Duration::from_secs(10), "nothing is read");
        }
        fastest = fastest.min(changed.elapsed());
        patch(&json!({ "ops": { "size": 0, "refill_time": 0 } }));
    }
    // The best of five: what makes it longer on a busy host is the host.
    assert!(fastest < Duration::from_millis(100), "{fastest:?}");
    drop(subject.running);
}
