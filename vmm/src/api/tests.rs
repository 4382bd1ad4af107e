//! Requests by their words, on a model, with hands that note what they are asked to do.

use secovia_vmm_api::{InstanceState, VmSpec};
use serde_json::{Value, json};

use super::http::Method;
use super::*;
use crate::mmds::SharedMmds;

/// Notes effects, and fails where it is told to.
#[derive(Default)]
struct Notes {
    seen: Vec<String>,
    fail: bool,
}

impl Hands for Notes {
    fn act(&mut self, effect: Effect, _: &RequestCounts) -> Result<Option<String>, String> {
        self.seen.push(format!("{effect:?}"));
        if self.fail {
            Err("it failed".into())
        } else {
            Ok(None)
        }
    }
}

struct Bench {
    clerk: Clerk,
    notes: Notes,
}

impl Bench {
    fn new(state: InstanceState) -> Self {
        let file = std::env::current_exe().unwrap();
        let spec = json!({
            "boot-source": { "kernel_image_path": file },
            "drives": [{ "drive_id": "d", "path_on_host": file, "is_root_device": false, "is_read_only": true }],
            "network-interfaces": [{ "iface_id": "n", "host_dev_name": "tap-n" }],
            "balloon": { "amount_mib": 1, "deflate_on_oom": true, "stats_polling_interval_s": 1 },
            "memory-hotplug": { "total_size_mib": 128 },
        });
        let spec: VmSpec = serde_json::from_value(spec).unwrap();
        let mut clerk = Clerk::new(
            Model::new("a".into(), spec.clone(), 4 << 30, false),
            SharedMmds::new(51200).unwrap(),
        );
        if state != InstanceState::NotStarted {
            clerk.begin_with(spec);
        }
        let notes = Notes::default();
        let mut bench = Self { clerk, notes };
        if state == InstanceState::Paused {
            bench.done("PATCH", "/vm", json!({ "state": "Paused" }));
            bench.notes.seen.clear();
        }
        bench
    }

    fn call(&mut self, method: &str, path: &str, body: &Value) -> Reply {
        let method = match method {
            "GET" => Method::Get,
            "PUT" => Method::Put,
            "PATCH" => Method::Patch,
            _ => Method::Delete,
        };
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        match route(Some(method), path, body.as_bytes()) {
            Ok(request) => self.clerk.serve(request, &mut self.notes),
            Err(refusal) => Reply::Refused(refusal.to_string()),
        }
    }

    fn done(&mut self, method: &str, path: &str, body: Value) {
        let reply = self.call(method, path, &body);
        assert!(matches!(reply, Reply::Done), "{method} {path} {body}: {reply:?}");
    }

    fn json(&mut self, path: &str) -> Value {
        match self.call("GET", path, &Value::Null) {
            Reply::Json(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("{path}: {other:?}"),
        }
    }

    fn refused(&mut self, method: &str, path: &str, body: Value) -> String {
        let before = self.clerk.spec().clone();
        match self.call(method, path, &body) {
            Reply::Refused(message) => {
                assert_eq!(
                    self.clerk.spec(),
                    &before,
                    "{method} {path} {body} changed something"
                );
                assert!(!message.contains('\n'), "{message}");
                message
            }
            other => panic!("{method} {path} {body}: {other:?}"),
        }
    }
}

/// Each request that is good in itself, and whether it is served before the start and after it.
fn seasons() -> Vec<(&'static str, &'static str, Value, bool, bool)> {
    let file = std::env::current_exe().unwrap();
    let drive = json!({ "drive_id": "d", "path_on_host": file, "is_root_device": false });
    let network = json!({ "iface_id": "n", "host_dev_name": "tap-n" });
    let limit = json!({ "ops": { "size": 1, "refill_time": 1 } });
    vec![
        ("GET", "/", Value::Null, true, true),
        ("GET", "/version", Value::Null, true, true),
        ("GET", "/vm/config", Value::Null, true, true),
        ("GET", "/machine-config", Value::Null, true, true),
        ("GET", "/balloon", Value::Null, true, true),
        ("GET", "/balloon/statistics", Value::Null, false, true),
        ("GET", "/hotplug/memory", Value::Null, true, true),
        (
            "PUT",
            "/hotplug/memory",
            json!({ "total_size_mib": 256 }),
            true,
            false,
        ),
        (
            "PATCH",
            "/hotplug/memory",
            json!({ "requested_size_mib": 128 }),
            false,
            true,
        ),
        (
            "PUT",
            "/boot-source",
            json!({ "kernel_image_path": file }),
            true,
            false,
        ),
        (
            "PUT",
            "/machine-config",
            json!({ "vcpu_count": 1, "mem_size_mib": 64 }),
            true,
            false,
        ),
        (
            "PATCH",
            "/machine-config",
            json!({ "vcpu_count": 2 }),
            true,
            false,
        ),
        ("PUT", "/drives/d", drive, true, false),
        (
            "PATCH",
            "/drives/d",
            json!({ "drive_id": "d", "rate_limiter": limit }),
            false,
            true,
        ),
        ("PUT", "/network-interfaces/n", network, true, false),
        (
            "PATCH",
            "/network-interfaces/n",
            json!({ "iface_id": "n", "rx_rate_limiter": limit }),
            false,
            true,
        ),
        (
            "PUT",
            "/vsock",
            json!({ "guest_cid": 3, "uds_path": "/nowhere/v" }),
            true,
            false,
        ),
        ("PUT", "/entropy", json!({}), true, false),
        (
            "PUT",
            "/serial",
            json!({ "serial_out_path": "/nowhere/s" }),
            true,
            false,
        ),
        (
            "PUT",
            "/balloon",
            json!({ "amount_mib": 1, "deflate_on_oom": true }),
            true,
            false,
        ),
        ("PATCH", "/balloon", json!({ "amount_mib": 2 }), false, true),
        (
            "PATCH",
            "/balloon/statistics",
            json!({ "stats_polling_interval_s": 2 }),
            false,
            true,
        ),
        ("PUT", "/logger", json!({ "level": "Info" }), true, false),
        ("PUT", "/metrics", json!({ "metrics_path": "m" }), true, false),
        (
            "PUT",
            "/actions",
            json!({ "action_type": "SendCtrlAltDel" }),
            false,
            true,
        ),
        (
            "PUT",
            "/actions",
            json!({ "action_type": "FlushMetrics" }),
            false,
            true,
        ),
        ("PATCH", "/vm", json!({ "state": "Paused" }), false, true),
        ("PATCH", "/vm", json!({ "state": "Resumed" }), false, true),
        (
            "PUT",
            "/actions",
            json!({ "action_type": "InstanceStart" }),
            true,
            false,
        ),
    ]
}

#[test]
fn each_request_has_its_season() {
    for state in [
        InstanceState::NotStarted,
        InstanceState::Running,
        InstanceState::Paused,
    ] {
        for (method, path, body, before, after) in seasons() {
            let mut bench = Bench::new(state);
            let good = if state == InstanceState::NotStarted {
                before
            } else {
                after
            };
            if good {
                let reply = bench.call(method, path, &body);
                assert!(
                    !matches!(reply, Reply::Refused(_)),
                    "{state:?} {method} {path} {body}: {reply:?}"
                );
            } else {
                let message = bench.refused(method, path, body);
                assert!(message.contains("not possible while the machine is"), "{message}");
                assert_eq!(bench.notes.seen, [""; 0], "{method} {path}");
            }
        }
    }
}

#[test]
fn what_fails_is_not_taken_down() {
    for (method, path, body, _, after) in seasons() {
        let mut bench = Bench::new(InstanceState::Running);
        bench.notes.fail = true;
        let reply = bench.call(method, path, &body);
        if after && !bench.notes.seen.is_empty() {
            assert!(
                matches!(&reply, Reply::Refused(message) if message == "it failed"),
                "{path}: {reply:?}"
            );
            assert_eq!(
                bench.clerk.spec(),
                Bench::new(InstanceState::Running).clerk.spec(),
                "{path}"
            );
        }
    }
    let mut bench = Bench::new(InstanceState::NotStarted);
    bench.notes.fail = true;
    bench.refused("PUT", "/actions", json!({ "action_type": "InstanceStart" }));
    assert_eq!(bench.json("/")["state"], "Not started");
}

#[test]
fn the_state_is_told() {
    let mut bench = Bench::new(InstanceState::NotStarted);
    let info = json!({ "app_name": "Secovia", "id": "a", "state": "Not started",
        "vmm_version": env!("CARGO_PKG_VERSION") });
    assert_eq!(bench.json("/"), info);
    bench.done("PUT", "/actions", json!({ "action_type": "InstanceStart" }));
    assert_eq!(bench.json("/")["state"], "Running");
    bench.done("PATCH", "/vm", json!({ "state": "Paused" }));
    assert_eq!(bench.json("/")["state"], "Paused");
    bench.done("PATCH", "/vm", json!({ "state": "Resumed" }));
    assert_eq!(bench.json("/")["state"], "Running");
    assert_eq!(bench.notes.seen.len(), 3);
}

#[test]
fn limits_are_changed_bucket_by_bucket() {
    let mut bench = Bench::new(InstanceState::Running);
    let bucket = |size: u64| json!({ "size": size, "refill_time": 100 });
    let mut change = |limit: Value| {
        bench.done(
            "PATCH",
            "/drives/d",
            json!({ "drive_id": "d", "rate_limiter": limit }),
        );
        bench.json("/vm/config")["drives"][0]["rate_limiter"].clone()
    };
    assert_eq!(change(json!({ "ops": bucket(5) })), json!({ "ops": bucket(5) }));
    assert_eq!(
        change(json!({ "bandwidth": bucket(7) })),
        json!({ "ops": bucket(5), "bandwidth": bucket(7) })
    );
    assert_eq!(
        change(json!({ "ops": bucket(0) })),
        json!({ "bandwidth": bucket(7) })
    );
    assert_eq!(change(json!({ "bandwidth": bucket(0) })), Value::Null);
}

#[test]
fn a_drive_comes_although_anothers_file_is_gone() {
    let mut bench = Bench::new(InstanceState::Running);
    let gone = json!({ "drives": [{ "drive_id": "gone", "path_on_host": "/nowhere/gone", "is_root_device": false }] });
    let model = Model::new("a".into(), serde_json::from_value(gone).unwrap(), 4 << 30, true);
    bench.clerk = Clerk::new(
        Model {
            state: InstanceState::Running,
            ..model
        },
        SharedMmds::new(51200).unwrap(),
    );
    let put = |path: &std::path::Path| json!({ "drive_id": "late", "path_on_host": path, "is_root_device": false, "is_read_only": true });
    let reply = bench.call("PUT", "/drives/late", &put(&std::env::current_exe().unwrap()));
    assert!(matches!(reply, Reply::Open(_)), "{reply:?}");
    let reply = bench.call("PUT", "/drives/late", &put("/nowhere/late".as_ref()));
    assert!(
        matches!(&reply, Reply::Refused(text) if text.contains("/nowhere/late")),
        "{reply:?}"
    );
}

#[test]
fn another_disk_is_opened_by_whoever_may() {
    let mut bench = Bench::new(InstanceState::Running);
    let body = json!({ "drive_id": "d", "path_on_host": "/nowhere/else" });
    let Reply::Open(wanted) = bench.call("PATCH", "/drives/d", &body) else {
        panic!()
    };
    let ToOpen::Other { config, patch, same } = *wanted else {
        panic!()
    };
    assert!(config.path.as_os_str() == "/nowhere/else" && config.read_only && !same);
    assert_eq!(bench.notes.seen, [""; 0]);
    let reply = bench.clerk.serve(
        Request::PatchDrive(patch, Some(NewDisk::Same(8))),
        &mut bench.notes,
    );
    assert!(matches!(reply, Reply::Done), "{reply:?}");
    assert_eq!(
        bench.json("/vm/config")["drives"][0]["path_on_host"],
        "/nowhere/else"
    );
}

#[test]
fn a_drive_that_a_backend_serves_is_looked_at_anew_and_not_changed() {
    let mut bench = Bench::new(InstanceState::Running);
    let mut spec = bench.clerk.spec().clone();
    spec.drives[0].path_on_host = None;
    spec.drives[0].socket = Some("/b".into());
    bench.clerk.begin_with(spec);
    bench.done("PATCH", "/drives/d", json!({ "drive_id": "d" }));
    assert_eq!(bench.notes.seen, ["RefreshDrive(\"d\")"]);
    for (field, value) in [("path_on_host", json!("/")), ("rate_limiter", json!({}))] {
        let fault = bench.refused("PATCH", "/drives/d", json!({ "drive_id": "d", field: value }));
        assert!(fault.starts_with("drives.d: with a socket"), "{fault}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    use InstanceState::{NotStarted, Running};
    let cases = [
        (
            NotStarted,
            "GET",
            "/nothing",
            Value::Null,
            "/nothing: there is no such request",
        ),
        (
            NotStarted,
            "PUT",
            "/version",
            json!({}),
            "/version: there is no such request",
        ),
        (
            NotStarted,
            "PUT",
            "/drives",
            json!({}),
            "/drives: there is no such request",
        ),
        (
            NotStarted,
            "PUT",
            "/drives/a/b",
            json!({}),
            "there is no such request",
        ),
        (
            NotStarted,
            "GET",
            "/version",
            json!({}),
            "a GET request has no body",
        ),
        (
            NotStarted,
            "PATCH",
            "/mmds",
            json!({}),
            "there is no metadata yet; PUT it first",
        ),
        (
            NotStarted,
            "PUT",
            "/mmds/config",
            json!({ "network_interfaces": ["none"] }),
            "this machine has no interface \"none\"",
        ),
        (
            NotStarted,
            "PUT",
            "/pmem/a",
            json!({ "id": "b", "path_on_host": "/" }),
            "/pmem/a: the body is about \"b\"",
        ),
        (
            NotStarted,
            "PUT",
            "/hotplug/memory",
            json!({}),
            "missing field `total_size_mib`",
        ),
        (
            NotStarted,
            "PUT",
            "/snapshot/load",
            json!({}),
            "a snapshot (/snapshot/create, /snapshot/load) is not",
        ),
        (
            Running,
            "PATCH",
            "/balloon/hinting/start",
            json!({}),
            "balloon: the guest names no free pages; set free_page_hinting",
        ),
        (
            Running,
            "DELETE",
            "/drives/d",
            Value::Null,
            "drives.d: devices come and go on a PCI bus only; start with --enable-pci",
        ),
        (
            NotStarted,
            "PUT",
            "/actions",
            Value::Null,
            "/actions: EOF while parsing",
        ),
        (
            NotStarted,
            "PUT",
            "/actions",
            json!({ "action_type": "Dance" }),
            "unknown variant `Dance`",
        ),
        (
            NotStarted,
            "PUT",
            "/boot-source",
            json!({ "kernel": "x" }),
            "unknown field `kernel`",
        ),
        (
            NotStarted,
            "PUT",
            "/boot-source",
            json!({}),
            "missing field `kernel_image_path`",
        ),
        (
            NotStarted,
            "PUT",
            "/machine-config",
            json!({ "vcpu_count": 1 }),
            "missing field `mem_size_mib`",
        ),
        (
            NotStarted,
            "PATCH",
            "/machine-config",
            json!({}),
            "nothing is to be changed",
        ),
        (
            NotStarted,
            "PUT",
            "/drives/x",
            json!({ "drive_id": "y", "path_on_host": "/", "is_root_device": false }),
            "/drives/x: the body is about \"y\"",
        ),
        (
            NotStarted,
            "PUT",
            "/drives/a%20b",
            json!({ "drive_id": "a%20b", "path_on_host": "/", "is_root_device": false }),
            "no name for a device",
        ),
        (
            Running,
            "PATCH",
            "/drives/z",
            json!({ "drive_id": "z", "path_on_host": "/" }),
            "drives.z: this machine has none",
        ),
        (
            Running,
            "PATCH",
            "/drives/d",
            json!({ "drive_id": "d" }),
            "nothing is to be changed",
        ),
        (
            Running,
            "PATCH",
            "/network-interfaces/z",
            json!({ "iface_id": "z", "tx_rate_limiter": {} }),
            "network-interfaces.z: this machine has none",
        ),
        (
            Running,
            "PATCH",
            "/balloon",
            json!({ "amount_mib": 4096 }),
            "balloon.amount_mib: 4096 MiB, the machine has 128",
        ),
        (
            Running,
            "PATCH",
            "/balloon/statistics",
            json!({ "stats_polling_interval_s": 0 }),
            "statistics cannot be switched on or off",
        ),
        (
            Running,
            "PATCH",
            "/vm",
            json!({ "state": "Halted" }),
            "unknown variant `Halted`",
        ),
    ];
    for (state, method, path, body, expected) in cases {
        let message = Bench::new(state).refused(method, path, body);
        assert!(
            message.contains(expected),
            "{method} {path}: {message}\nshould contain: {expected}"
        );
    }
    let message = route(None, "/", b"").unwrap_err().to_string();
    assert!(message.contains("no such request"), "{message}");
}

#[test]
fn requests_and_refusals_are_counted() {
    let mut bench = Bench::new(InstanceState::NotStarted);
    bench.json("/");
    bench.refused("PATCH", "/vm", json!({ "state": "Paused" }));
    assert_eq!(
        bench.clerk.counts()[&("get_api_requests", "instance_info")],
        (1, 0)
    );
    assert_eq!(bench.clerk.counts()[&("patch_api_requests", "vm")], (1, 1));
}

#[test]
fn every_request_of_the_description_is_known_and_every_resource_is_in_it() {
    let text = include_str!("../../api/openapi.json");
    let description: Value = serde_json::from_str(text).unwrap();
    let paths = description["paths"].as_object().unwrap();
    for (path, methods) in paths {
        for method in methods.as_object().unwrap().keys() {
            let method = match method.as_str() {
                "get" => Method::Get,
                "put" => Method::Put,
                "patch" => Method::Patch,
                other => panic!("{path}: {other}"),
            };
            // Without the body that most want: it is refused for that, and not as unknown.
            let refusal = route(Some(method), &path.replace("{id}", "a"), b"").err();
            let text = refusal.map(|refusal| refusal.to_string()).unwrap_or_default();
            assert!(
                !text.contains("no such request") && !text.contains("not there yet"),
                "{method:?} {path}: {text}"
            );
        }
    }
    let known = description["components"]["schemas"]["VmSpec"]["properties"]
        .as_object()
        .unwrap();
    for key in known.keys() {
        let path = key
            .replace("mmds-config", "mmds/config")
            .replace("memory-hotplug", "hotplug/memory");
        assert!(
            paths.contains_key(&format!("/{path}")) || paths.contains_key(&format!("/{path}/{{id}}")),
            "{key}"
        );
    }
}
