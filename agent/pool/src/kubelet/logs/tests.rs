use secovia_agent_api::{LogBytes, VmRun};
use serde_json::json;

use super::*;

fn vm(state: VmState, starts: u32, last: Option<(u64, u64)>) -> Vm {
    let mut vm: Vm = serde_json::from_value(json!({
        "id": "0123456789abcdef", "name": "v", "state": {"status": "running"}, "image": "i", "image_digest": "d",
        "command": [], "env": {}, "user": null, "working_dir": null, "cpus": 1, "memory_mib": 64, "disk_mib": null,
        "restart": {"policy": "always"}, "rm": false, "tty": false, "stdin": false, "created_at_ms": 1,
        "started_at_ms": 10_000, "ended_at_ms": null, "restarts": 0, "vmm_pid": null, "timing": null,
        "labels": {"secovia.pod/container": "main"}
    }))
    .unwrap();
    vm.state = state;
    vm.starts = starts;
    vm.last_run = last.map(|(started_ms, ended_at_ms)| VmRun {
        started_at_ms: Some(started_ms),
        ended_at_ms,
        code: Some(1),
        reason: None,
    });
    vm
}

fn back_off() -> VmState {
    VmState::BackOff {
        until_ms: 1,
        reason: String::new(),
    }
}

#[test]
fn a_run_is_found_by_its_times() {
    let exited = || VmState::Exited { code: 0 };
    let at = |from_ms, until_ms, live| {
        Some(Span {
            from_ms,
            until_ms,
            live,
        })
    };
    for (state, starts, last, previous, found) in [
        (VmState::Running, 1, None, false, at(0, None, true)),
        (VmState::Running, 1, None, true, None),
        (
            VmState::Running,
            2,
            Some((5_000, 6_000)),
            false,
            at(6_001, None, true),
        ),
        (
            VmState::Running,
            2,
            Some((5_000, 6_000)),
            true,
            at(4_980, Some(6_000), false),
        ),
        (back_off(), 1, Some((5_000, 6_000)), false, at(0, None, false)),
        (back_off(), 3, Some((5_000, 6_000)), false, at(4_980, None, false)),
        (
            back_off(),
            3,
            Some((5_000, 6_000)),
            true,
            at(4_980, Some(6_000), false),
        ),
        (exited(), 1, Some((5_000, 6_000)), false, at(0, None, false)),
        (exited(), 1, Some((5_000, 6_000)), true, None),
    ] {
        let vm = vm(state, starts, last);
        assert_eq!(
            Runs::of(&vm, "main").unwrap().span(previous),
            found,
            "{:?} {previous}",
            vm.state
        );
    }
    let mut starting = vm(VmState::Starting, 1, None);
    starting.started_at_ms = None;
    let runs = Runs::of(&starting, "main").unwrap();
    assert_eq!(runs.span(false), None);
    assert_eq!(Runs::of(&starting, "other"), None);
}

#[test]
fn each_of_several_containers_has_runs_of_its_own() {
    let mut several = vm(VmState::Running, 1, None);
    let container = |name: &str, state: serde_json::Value, last: serde_json::Value, restarts: u32| {
        json!({"name": name, "init": false, "image": "i", "image_digest": "d", "state": state, "last": last,
            "restarts": restarts, "ready": true, "started": true})
    };
    let end = json!({"code": 1, "reason": null, "started_at_ms": 5_000, "ended_at_ms": 6_000});
    several.containers = serde_json::from_value(json!([
        container(
            "runs",
            json!({"status": "running", "since_ms": 7_000}),
            end.clone(),
            1
        ),
        container("waits", json!({"status": "waiting"}), json!(null), 0),
    ]))
    .unwrap();
    let runs = |name: &str| Runs::of(&several, name);
    let live = runs("runs").unwrap();
    assert_eq!((live.number, live.span(false).unwrap().from_ms), ((1, 1), 6_001));
    assert_eq!(live.span(true).unwrap().until_ms, Some(6_000));
    assert_eq!(runs("waits").unwrap().span(false), None);
    assert_eq!(
        runs("main"),
        None,
        "the label is not asked where there are several"
    );
}

fn options(query: Query) -> Result<Options, String> {
    query.parse(1_000_000)
}

#[test]
fn what_is_asked_for_is_parsed_whole_or_refused_by_name() {
    let good = options(Query {
        follow: Some("true".into()),
        tail_lines: Some(3),
        since_seconds: Some(60),
        ..Query::default()
    });
    let good = good.unwrap();
    assert!(good.follow && !good.previous && !good.timestamps);
    assert_eq!((good.tail, good.since_ms), (Some(3), 940_000));
    let since = |text: &str| {
        options(Query {
            since_time: Some(text.into()),
            ..Query::default()
        })
    };
    assert_eq!(since("1970-01-01T00:00:10+00:00").unwrap().since_ms, 10_000);
    assert!(since("yesterday").unwrap_err().contains("sinceTime"));
    for (query, word) in [
        (json!({"sinceSeconds": 0}), "sinceSeconds"),
        (
            json!({"sinceSeconds": 1, "sinceTime": "1970-01-01T00:00:10Z"}),
            "sinceTime",
        ),
        (json!({"limitBytes": 0}), "limitBytes"),
        (json!({"follow": "maybe"}), "follow"),
        (json!({"stream": "Both"}), "stream"),
        (json!({"stream": "Stdout", "tailLines": 1}), "tailLines"),
    ] {
        let error = options(serde_json::from_value(query).unwrap()).unwrap_err();
        assert!(error.contains(word), "{error}");
    }
    assert!(serde_json::from_value::<Query>(json!({"color": "blue"})).is_err());
}

fn record(at_ms: u64, text: &str) -> LogRecord {
    LogRecord {
        at_ms,
        event: LogEvent::Stdout(LogBytes::from_bytes(text.as_bytes())),
    }
}

fn shaped(options: Options, until_ms: Option<u64>, skip: u64, records: &[LogRecord]) -> String {
    let span = Span {
        from_ms: 0,
        until_ms,
        live: false,
    };
    let mut shape = Shape::new(&options, span);
    shape.skip = skip;
    let mut all = Vec::new();
    for record in records {
        shape.add(record.clone(), &mut all);
    }
    String::from_utf8(all).unwrap()
}

#[test]
fn records_become_lines_with_their_times_within_the_limits() {
    let all = options(Query::default()).unwrap();
    let stderr = LogRecord {
        at_ms: 1_500,
        event: LogEvent::Stderr(LogBytes::Base64("ZXJyCg==".into())),
    };
    let gap = LogRecord {
        at_ms: 1_600,
        event: LogEvent::Gap(7),
    };
    let records = [
        record(1_000, "a\nb"),
        record(1_250, "c\n"),
        stderr,
        gap,
        record(2_000, "d\n"),
    ];
    assert_eq!(shaped(all.clone(), None, 0, &records), "a\nbc\nerr\nd\n");
    assert_eq!(shaped(all.clone(), Some(1_500), 0, &records), "a\nbc\nerr\n");
    assert_eq!(shaped(all.clone(), Some(1_500), 2, &records), "err\n");
    let with = |change: fn(&mut Options)| {
        let mut options = all.clone();
        change(&mut options);
        shaped(options, None, 0, &records)
    };
    assert_eq!(with(|options| options.limit = Some(4)), "a\nbc");
    assert_eq!(with(|options| options.streams = Streams::Stderr), "err\n");
    assert_eq!(
        with(|options| options.timestamps = true),
        "1970-01-01T00:00:01.000000000Z a\n1970-01-01T00:00:01.000000000Z bc\n\
         1970-01-01T00:00:01.500000000Z err\n1970-01-01T00:00:02.000000000Z d\n"
    );
}
