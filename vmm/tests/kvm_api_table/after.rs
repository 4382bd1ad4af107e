//! After the start, and at any time.

use serde_json::{Value, json};

use super::common::Machine;
use super::row::Expected::{Refused, Taken, Told};
use super::row::{Row, limits};

/// What is refused at any time.
pub(crate) fn absent() -> Vec<Row> {
    let rows = [
        ("PUT", "/snapshot/create", "a snapshot"),
        ("PUT", "/snapshot/load", "a snapshot"),
        (
            "PUT",
            "/balloon/hinting/start",
            "/balloon/hinting/start: there is no such request",
        ),
        (
            "GET",
            "/balloon/hinting",
            "/balloon/hinting: there is no such request",
        ),
        (
            "DELETE",
            "/drives/disk",
            "drives.disk: devices come and go on a PCI bus only",
        ),
        (
            "DELETE",
            "/network-interfaces/n",
            "devices come and go on a PCI bus only; start with --enable-pci",
        ),
        ("DELETE", "/pmem/p", "a disk of /pmem that is taken away"),
        (
            "DELETE",
            "/hotplug/memory",
            "/hotplug/memory: there is no such request",
        ),
        ("PATCH", "/pmem/p", "/pmem/p: there is no such request"),
        ("DELETE", "/", "/: there is no such request"),
        ("POST", "/actions", "/actions: there is no such request"),
        ("GET", "/actions", "/actions: there is no such request"),
        ("PATCH", "/metrics", "/metrics: there is no such request"),
        ("GET", "/nothing", "/nothing: there is no such request"),
        ("PUT", "/vm", "/vm: there is no such request"),
        ("PATCH", "/vsock", "/vsock: there is no such request"),
    ];
    let row = |(method, path, fault): (&'static str, &str, &'static str)| {
        (method, path.to_owned(), Value::Null, Refused(fault))
    };
    rows.map(row).into()
}

/// The metadata, which is there at any time. The first of these rows are to come first.
pub(crate) fn metadata() -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut row = |method, body, expected| rows.push((method, "/mmds".to_owned(), body, expected));
    row("PUT", json!({ "a": { "b": 1, "c": "d" } }), Taken("", json!({})));
    row("GET", Value::Null, Told(json!({ "a": { "b": 1, "c": "d" } })));
    row(
        "PATCH",
        json!({ "a": { "b": null, "e": [] } }),
        Taken("", json!({})),
    );
    row("GET", Value::Null, Told(json!({ "a": { "c": "d", "e": [] } })));
    row("PUT", Value::Null, Refused("EOF while parsing a value"));
    row("DELETE", Value::Null, Refused("/mmds: there is no such request"));
    rows
}

/// Everything after the start.
pub(crate) fn after(machine: &Machine) -> Vec<Row> {
    let disk = machine.folder.join("disk");
    let mut rows: Vec<Row> = Vec::new();
    let mut row = |method, path: &str, body, expected| rows.push((method, path.to_owned(), body, expected));
    row("GET", "/", Value::Null, Told(json!({ "state": "Running" })));
    row("GET", "/version", Value::Null, Told(json!({})));
    row(
        "GET",
        "/machine-config",
        Value::Null,
        Told(json!({ "vcpu_count": 2 })),
    );
    row("GET", "/balloon", Value::Null, Told(json!({ "amount_mib": 1 })));
    let path = "/hotplug/memory";
    for requested in [256, 2, 0] {
        let requested = json!({ "requested_size_mib": requested });
        row(
            "PATCH",
            path,
            requested.clone(),
            Taken("/memory-hotplug", json!({ "total_size_mib": 256 })),
        );
        row("GET", path, Value::Null, Told(requested));
    }
    row(
        "GET",
        path,
        Value::Null,
        Told(json!({ "total_size_mib": 256, "plugged_size_mib": 0 })),
    );
    for (body, fault) in [
        (
            json!({ "requested_size_mib": 258 }),
            "memory-hotplug.requested_size_mib: 258 MiB",
        ),
        (
            json!({ "requested_size_mib": 3 }),
            "memory-hotplug.requested_size_mib: 3 MiB",
        ),
        (json!({ "requested_size_mib": -1 }), "invalid value: integer `-1`"),
        (json!({ "size": 2 }), "unknown field `size`"),
        (json!({}), "missing field `requested_size_mib`"),
    ] {
        row("PATCH", path, body, Refused(fault));
    }
    row(
        "GET",
        "/balloon/statistics",
        Value::Null,
        Told(json!({ "target_pages": 256, "target_mib": 1, "actual_mib": 0 })),
    );
    row("GET", "/metrics", Value::Null, Told(json!({})));
    for (limit, outcome) in limits() {
        row(
            "PATCH",
            "/drives/disk",
            json!({ "drive_id": "disk", "rate_limiter": limit }),
            match outcome {
                Ok(limit) => Taken("/drives/0", json!({ "rate_limiter": limit })),
                Err(fault) => Refused(fault),
            },
        );
    }
    for (body, fault) in [
        (json!({ "drive_id": "disk" }), "nothing is to be changed"),
        (
            json!({ "drive_id": "other", "path_on_host": disk }),
            "the body is about \"other\"",
        ),
        (
            json!({ "drive_id": "disk", "path_on_host": "/nowhere" }),
            "drives.disk.path_on_host: disk /nowhere",
        ),
        (
            json!({ "drive_id": "disk", "is_read_only": true }),
            "unknown field `is_read_only`",
        ),
    ] {
        row("PATCH", "/drives/disk", body, Refused(fault));
    }
    row(
        "PATCH",
        "/drives/none",
        json!({ "drive_id": "none", "rate_limiter": {} }),
        Refused("drives.none: this machine has none"),
    );
    row(
        "PATCH",
        "/drives/disk",
        json!({ "drive_id": "disk", "path_on_host": disk }),
        Taken("/drives/0", json!({ "path_on_host": disk })),
    );
    row(
        "PATCH",
        "/network-interfaces/none",
        json!({ "iface_id": "none", "rx_rate_limiter": {} }),
        Refused("network-interfaces.none: this machine has none"),
    );
    row(
        "PATCH",
        "/network-interfaces/none",
        json!({ "iface_id": "none" }),
        Refused("nothing is to be changed"),
    );
    row(
        "PATCH",
        "/network-interfaces/none",
        json!({ "iface_id": "none", "mtu": 1 }),
        Refused("unknown field `mtu`"),
    );
    row(
        "PATCH",
        "/balloon",
        json!({ "amount_mib": 2 }),
        Taken("/balloon", json!({ "amount_mib": 2 })),
    );
    row(
        "GET",
        "/balloon/statistics",
        Value::Null,
        Told(json!({ "target_pages": 512 })),
    );
    row(
        "PATCH",
        "/balloon",
        json!({ "amount_mib": 65 }),
        Refused("balloon.amount_mib: 65 MiB, the machine has 64"),
    );
    row(
        "PATCH",
        "/balloon",
        json!({}),
        Refused("missing field `amount_mib`"),
    );
    row(
        "PATCH",
        "/balloon",
        json!({ "amount_mib": 1, "deflate_on_oom": true }),
        Refused("unknown field `deflate_on_oom`"),
    );
    let interval = |seconds| json!({ "stats_polling_interval_s": seconds });
    row(
        "PATCH",
        "/balloon/statistics",
        interval(3),
        Taken("/balloon", interval(3)),
    );
    row(
        "PATCH",
        "/balloon/statistics",
        interval(0),
        Refused("statistics cannot be switched on or off"),
    );
    let hinting = "/balloon/hinting";
    let status = |command: u32| Told(json!({ "host_cmd": command }));
    row("GET", &format!("{hinting}/status"), Value::Null, status(0));
    for (body, command) in [
        (Value::Null, 2),
        (json!({}), 3),
        (json!({ "acknowledge_on_stop": false }), 4),
    ] {
        row("PATCH", &format!("{hinting}/start"), body, Taken("", json!({})));
        row("GET", &format!("{hinting}/status"), Value::Null, status(command));
    }
    row(
        "PATCH",
        &format!("{hinting}/start"),
        json!({ "acknowledge_on_stop": 1 }),
        Refused("invalid type: integer `1`"),
    );
    row(
        "PATCH",
        &format!("{hinting}/start"),
        json!({ "now": true }),
        Refused("unknown field `now`"),
    );
    row(
        "PATCH",
        &format!("{hinting}/stop"),
        Value::Null,
        Taken("", json!({})),
    );
    row("GET", &format!("{hinting}/status"), Value::Null, status(1));
    for (state, told) in [
        ("Paused", "Paused"),
        ("Paused", "Paused"),
        ("Resumed", "Running"),
        ("Resumed", "Running"),
    ] {
        row("PATCH", "/vm", json!({ "state": state }), Taken("", json!({})));
        row("GET", "/", Value::Null, Told(json!({ "state": told })));
    }
    row(
        "PATCH",
        "/vm",
        json!({ "state": "Halted" }),
        Refused("unknown variant `Halted`"),
    );
    row("PATCH", "/vm", json!({}), Refused("missing field `state`"));
    for action in ["FlushMetrics", "SendCtrlAltDel"] {
        row(
            "PUT",
            "/actions",
            json!({ "action_type": action }),
            Taken("", json!({})),
        );
    }
    row(
        "PUT",
        "/actions",
        json!({ "action_type": "InstanceStart" }),
        Refused("not possible while the machine is running"),
    );
    row(
        "PUT",
        "/actions",
        json!({ "action_type": "Dance" }),
        Refused("unknown variant `Dance`"),
    );
    row(
        "PUT",
        "/actions",
        json!({ "action_type": "FlushMetrics", "payload": "" }),
        Refused("unknown field `payload`"),
    );
    rows.extend(metadata());
    rows.extend(absent());
    rows
}
