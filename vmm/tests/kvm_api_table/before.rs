//! Before the start.

use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use super::after::{absent, metadata};
use super::common::Machine;
use super::row::Expected::{Refused, Taken, Told};
use super::row::{Row, buckets, limits};

/// Everything before the start. What is taken last is what the machine starts with.
#[allow(clippy::too_many_lines, reason = "a table")]
pub(crate) fn before(machine: &Machine) -> Vec<Row> {
    let kernel = machine.folder.join("kernel");
    let disk = machine.folder.join("disk");
    let folder = &machine.folder;
    let mut rows: Vec<Row> = Vec::new();
    let mut row = |method, path: &str, body, expected| rows.push((method, path.to_owned(), body, expected));
    row(
        "GET",
        "/",
        Value::Null,
        Told(json!({ "id": "anonymous", "state": "Not started", "app_name": "Secovia" })),
    );
    row(
        "GET",
        "/version",
        Value::Null,
        Told(json!({ "firecracker_version": env!("CARGO_PKG_VERSION") })),
    );
    row(
        "GET",
        "/vm/config",
        Value::Null,
        Told(json!({ "drives": [], "network-interfaces": [] })),
    );

    // /boot-source
    let source = |field: &str, value: Value| {
        let mut source = json!({ "kernel_image_path": kernel });
        source[field] = value;
        source
    };
    let path = "/boot-source";
    let place = "/boot-source";
    row(
        "PUT",
        path,
        json!({}),
        Refused("missing field `kernel_image_path`"),
    );
    row(
        "PUT",
        path,
        source("kernel_image_path", json!(7)),
        Refused("invalid type: integer `7`"),
    );
    row(
        "PUT",
        path,
        source("kernel_image_path", json!("/nowhere")),
        Refused("boot-source.kernel_image_path: /nowhere: No such file"),
    );
    row(
        "PUT",
        path,
        source("kernel_image_path", json!(folder)),
        Refused("not a regular file"),
    );
    row(
        "PUT",
        path,
        source("initrd_path", json!("/nowhere")),
        Refused("boot-source.initrd_path: /nowhere: No such file"),
    );
    row(
        "PUT",
        path,
        source("boot_args", json!("a\nb")),
        Refused("boot-source.boot_args: has a line break"),
    );
    row(
        "PUT",
        path,
        source("boot_args", json!("x".repeat(4000))),
        Refused("boot-source.boot_args: 4000 bytes"),
    );
    row(
        "PUT",
        path,
        source("kernel", json!("x")),
        Refused("unknown field `kernel`"),
    );
    for (field, value) in [("initrd_path", json!(disk)), ("boot_args", json!("quiet"))] {
        row(
            "PUT",
            path,
            source(field, value.clone()),
            Taken(place, json!({ field: value })),
        );
    }
    row(
        "PUT",
        path,
        source("boot_args", Value::Null),
        Taken(place, json!({ "kernel_image_path": kernel })),
    );

    // /machine-config
    let path = "/machine-config";
    let cpus = |field: &str, value: Value| {
        let mut config = json!({ "vcpu_count": 2, "mem_size_mib": 64 });
        config[field] = value;
        config
    };
    row(
        "GET",
        path,
        Value::Null,
        Told(json!({ "vcpu_count": 1, "mem_size_mib": 128, "smt": false,
        "track_dirty_pages": false, "huge_pages": "Transparent" })),
    );
    for (field, value, fault) in [
        (
            "vcpu_count",
            json!(0),
            "machine-config.vcpu_count: 0; give 1 to 32",
        ),
        (
            "vcpu_count",
            json!(33),
            "machine-config.vcpu_count: 33; give 1 to 32",
        ),
        ("vcpu_count", json!(256), "invalid value: integer `256`"),
        (
            "mem_size_mib",
            json!(63),
            "machine-config.mem_size_mib: 63 MiB; give at least 64",
        ),
        (
            "mem_size_mib",
            json!(1_u64 << 40),
            "machine-config.mem_size_mib: 1099511627776 MiB, this host has",
        ),
        (
            "smt",
            json!("yes"),
            "invalid type: string \"yes\", expected a boolean",
        ),
        (
            "track_dirty_pages",
            json!(true),
            "machine-config.track_dirty_pages: not there yet",
        ),
        ("huge_pages", json!("1G"), "unknown variant `1G`"),
        (
            "cpu_template",
            json!("T2"),
            "machine-config.cpu_template: not there yet",
        ),
        ("ht_enabled", json!(true), "unknown field `ht_enabled`"),
    ] {
        row("PUT", path, cpus(field, value.clone()), Refused(fault));
        row("PATCH", path, json!({ field: value }), Refused(fault));
    }
    row(
        "PUT",
        path,
        json!({ "vcpu_count": 2 }),
        Refused("missing field `mem_size_mib`"),
    );
    row("PATCH", path, json!({}), Refused("nothing is to be changed"));
    for (field, value) in [
        ("smt", json!(true)),
        ("track_dirty_pages", json!(false)),
        ("huge_pages", json!("2M")),
        ("huge_pages", json!("None")),
        ("huge_pages", json!("Transparent")),
        ("cpu_template", json!("None")),
        ("mem_size_mib", json!(65)),
        ("vcpu_count", json!(4)),
    ] {
        row(
            "PUT",
            path,
            cpus(field, value.clone()),
            Taken(path, json!({ field: value })),
        );
        row(
            "PATCH",
            path,
            json!({ field: value }),
            Taken(path, json!({ field: value })),
        );
    }
    row(
        "PATCH",
        path,
        json!({ "vcpu_count": 3, "smt": true }),
        Refused("3 vCPUs do not pair up"),
    );
    row(
        "PUT",
        path,
        cpus("smt", json!(false)),
        Taken(path, json!({ "vcpu_count": 2, "mem_size_mib": 64, "smt": false })),
    );

    // /drives/{id}
    let path = "/drives/disk";
    let drive = |field: &str, value: Value| {
        let mut drive = json!({ "drive_id": "disk", "path_on_host": disk, "is_root_device": false });
        drive[field] = value;
        drive
    };
    for (field, value, fault) in [
        (
            "drive_id",
            json!("other"),
            "/drives/disk: the body is about \"other\"",
        ),
        ("drive_id", Value::Null, "invalid type: null"),
        ("is_root_device", json!(1), "invalid type: integer `1`"),
        (
            "path_on_host",
            json!("/nowhere"),
            "drives.disk.path_on_host: /nowhere: No such file",
        ),
        ("path_on_host", json!(folder), "drives.disk.path_on_host: "),
        ("is_read_only", json!("no"), "invalid type: string"),
        (
            "partuuid",
            json!("1-2"),
            "drives.disk.partuuid: only of use with is_root_device true",
        ),
        (
            "cache_type",
            json!("Writethrough"),
            "unknown variant `Writethrough`",
        ),
        ("io_engine", json!("Fast"), "unknown variant `Fast`"),
        (
            "socket",
            json!("/v"),
            "drives.disk: path_on_host and socket are both given",
        ),
        ("readonly", json!(true), "unknown field `readonly`"),
    ] {
        row("PUT", path, drive(field, value), Refused(fault));
    }
    row(
        "PUT",
        path,
        json!({ "drive_id": "disk" }),
        Refused("missing field `is_root_device`"),
    );
    row(
        "PUT",
        "/drives",
        drive("drive_id", json!("")),
        Refused("/drives: there is no such request"),
    );
    row(
        "PUT",
        "/drives/a%41",
        drive("drive_id", json!("a%41")),
        Refused("no name for a device"),
    );
    for (limit, outcome) in limits() {
        row(
            "PUT",
            path,
            drive("rate_limiter", limit),
            match outcome {
                Ok(limit) => Taken("/drives/0", json!({ "rate_limiter": limit })),
                Err(fault) => Refused(fault),
            },
        );
    }
    for (field, value) in [
        ("cache_type", json!("Writeback")),
        ("cache_type", json!("Unsafe")),
        ("io_engine", json!("Sync")),
        ("io_engine", json!("Async")),
        ("is_read_only", json!(true)),
    ] {
        row(
            "PUT",
            path,
            drive(field, value.clone()),
            Taken("/drives/0", json!({ field: value })),
        );
    }
    row(
        "PUT",
        path,
        json!({ "drive_id": "disk", "is_root_device": false }),
        Refused("drives.disk.path_on_host: missing; give a file, or the socket"),
    );
    let backend = folder.join("backend.sock");
    drop(UnixListener::bind(&backend));
    let served = |field: &str, value: Value| {
        let mut drive = json!({ "drive_id": "disk", "socket": backend, "is_root_device": false });
        drive[field] = value;
        drive
    };
    for (field, value, fault) in [
        (
            "is_read_only",
            json!(true),
            "drives.disk.is_read_only: with a socket",
        ),
        (
            "io_engine",
            json!("Async"),
            "drives.disk.io_engine: with a socket",
        ),
        (
            "rate_limiter",
            json!({}),
            "drives.disk.rate_limiter: with a socket",
        ),
        ("socket", json!(disk), "not a socket"),
        (
            "socket",
            json!("/nowhere"),
            "drives.disk.socket: /nowhere: No such file",
        ),
    ] {
        row("PUT", path, served(field, value), Refused(fault));
    }
    row(
        "PUT",
        path,
        served("cache_type", json!("Writeback")),
        Taken(
            "/drives/0",
            json!({ "socket": backend, "cache_type": "Writeback" }),
        ),
    );
    // Nobody serves it: the machine is to start later.
    row(
        "PUT",
        path,
        drive("is_read_only", json!(true)),
        Taken("/drives/0", json!({ "path_on_host": disk })),
    );
    let root = |id: &str, partuuid: &str| {
        json!({ "drive_id": id, "path_on_host": disk, "is_root_device": true,
        "is_read_only": true, "partuuid": partuuid })
    };
    row(
        "PUT",
        "/drives/root",
        root("root", "no"),
        Refused("drives.root.partuuid: \"no\" is no UUID"),
    );
    row(
        "PUT",
        "/drives/root",
        root("root", "0a-1"),
        Taken("/drives/1", json!({ "drive_id": "root", "partuuid": "0a-1" })),
    );
    row(
        "PUT",
        "/drives/two",
        root("two", "0a-1"),
        Refused("are both said to be the root device"),
    );

    // /pmem/{id}
    let path = "/pmem/p";
    let pmem = |field: &str, value: Value| {
        let mut pmem = json!({ "id": "p", "path_on_host": disk });
        pmem[field] = value;
        pmem
    };
    for (field, value, fault) in [
        ("id", json!("q"), "/pmem/p: the body is about \"q\""),
        ("path_on_host", json!(7), "invalid type: integer `7`"),
        (
            "path_on_host",
            json!("/nowhere"),
            "pmem.p.path_on_host: /nowhere: No such file",
        ),
        (
            "path_on_host",
            json!(folder),
            "neither a regular file nor a block device",
        ),
        ("root_device", json!(true), "are both said to be the root device"),
        ("read_only", json!("yes"), "invalid type: string"),
        ("rate", json!(1), "unknown field `rate`"),
    ] {
        row("PUT", path, pmem(field, value), Refused(fault));
    }
    row(
        "PUT",
        path,
        json!({ "id": "p" }),
        Refused("missing field `path_on_host`"),
    );
    row(
        "PUT",
        path,
        pmem("read_only", json!(true)),
        Taken(
            "/pmem/0",
            json!({ "id": "p", "root_device": false, "read_only": true }),
        ),
    );

    // /network-interfaces/{id}: taps are looked for at the start only.
    let path = "/network-interfaces/n";
    let network = |field: &str, value: Value| {
        let mut network = json!({ "iface_id": "n", "host_dev_name": "no-such-tap" });
        network[field] = value;
        network
    };
    for (field, value, fault) in [
        (
            "iface_id",
            json!("m"),
            "/network-interfaces/n: the body is about \"m\"",
        ),
        (
            "host_dev_name",
            json!("sixteen-letters-"),
            "network-interfaces.n.host_dev_name: ",
        ),
        (
            "guest_mac",
            json!("06:00"),
            "network-interfaces.n.guest_mac: \"06:00\"",
        ),
        (
            "guest_mac",
            json!("01:00:00:00:00:01"),
            "network-interfaces.n.guest_mac: ",
        ),
        ("mtu", json!(67), "network-interfaces.n.mtu: 67; give at least 68"),
        ("mtu", json!(65536), "invalid value: integer `65536`"),
        (
            "allow_mmds_requests",
            json!(true),
            "unknown field `allow_mmds_requests`",
        ),
    ] {
        row("PUT", path, network(field, value), Refused(fault));
    }
    row(
        "PUT",
        path,
        json!({ "iface_id": "n" }),
        Refused("missing field `host_dev_name`"),
    );
    for field in ["rx_rate_limiter", "tx_rate_limiter"] {
        for (limit, outcome) in limits() {
            row(
                "PUT",
                path,
                network(field, limit),
                match outcome {
                    Ok(limit) => Taken("/network-interfaces/0", json!({ field: limit })),
                    Err(fault) => Refused(fault),
                },
            );
        }
    }
    for (field, value) in [("guest_mac", json!("06:00:ac:10:00:02")), ("mtu", json!(9000))] {
        row(
            "PUT",
            path,
            network(field, value.clone()),
            Taken("/network-interfaces/0", json!({ field: value })),
        );
    }

    // /vsock
    let path = "/vsock";
    let socket = folder.join("v.sock");
    let vsock = |cid: Value, path: Value| json!({ "guest_cid": cid, "uds_path": path });
    row(
        "PUT",
        path,
        vsock(json!(2), json!(socket)),
        Refused("vsock.guest_cid: 2 is reserved"),
    );
    row(
        "PUT",
        path,
        vsock(json!(-1), json!(socket)),
        Refused("invalid value: integer `-1`"),
    );
    row(
        "PUT",
        path,
        vsock(json!(3), json!(folder)),
        Refused("exists already"),
    );
    row(
        "PUT",
        path,
        vsock(json!(3), json!("x".repeat(108))),
        Refused("longer than 107 bytes"),
    );
    row(
        "PUT",
        path,
        vsock(json!(3), json!("")),
        Refused("vsock.uds_path:  is empty"),
    );
    row(
        "PUT",
        path,
        json!({ "guest_cid": 3 }),
        Refused("missing field `uds_path`"),
    );
    row("PUT", path, json!({ "cid": 3 }), Refused("unknown field `cid`"));
    row(
        "PUT",
        path,
        vsock(json!(4), json!(socket)),
        Taken(path, json!({ "guest_cid": 4, "uds_path": socket })),
    );
    let named = json!({ "vsock_id": "v", "guest_cid": 3, "uds_path": socket });
    row("PUT", path, named.clone(), Taken(path, named));

    // /entropy
    row(
        "PUT",
        "/entropy",
        json!({ "rate": 1 }),
        Refused("unknown field `rate`"),
    );
    for (limit, outcome) in limits() {
        row(
            "PUT",
            "/entropy",
            json!({ "rate_limiter": limit }),
            match outcome {
                Ok(limit) => Taken("/entropy", json!({ "rate_limiter": limit })),
                Err(fault) => Refused(fault),
            },
        );
    }
    row("PUT", "/entropy", json!({}), Taken("/entropy", json!({})));

    // /serial
    for (bucket, outcome) in buckets() {
        row(
            "PUT",
            "/serial",
            json!({ "rate_limiter": bucket }),
            match outcome {
                Ok(()) => Taken("/serial", json!({ "rate_limiter": bucket })),
                Err(fault) => Refused(fault),
            },
        );
    }
    row(
        "PUT",
        "/serial",
        json!({ "path": "x" }),
        Refused("unknown field `path`"),
    );
    row("PUT", "/serial", json!({}), Taken("/serial", json!({})));

    // /hotplug/memory
    let path = "/hotplug/memory";
    row(
        "GET",
        path,
        Value::Null,
        Refused("memory-hotplug: this machine has none"),
    );
    let hotplug = |field: &str, value: Value| {
        let mut hotplug = json!({ "total_size_mib": 256 });
        hotplug[field] = value;
        hotplug
    };
    for (field, value, fault) in [
        ("total_size_mib", json!(0), "memory-hotplug.total_size_mib: 0 MiB"),
        (
            "total_size_mib",
            json!(130),
            "memory-hotplug.total_size_mib: 130 MiB",
        ),
        (
            "total_size_mib",
            json!(1u64 << 50),
            "give at most what the host has",
        ),
        ("total_size_mib", json!("1"), "invalid type: string"),
        ("block_size_mib", json!(1), "memory-hotplug.block_size_mib: 1 MiB"),
        ("block_size_mib", json!(6), "memory-hotplug.block_size_mib: 6 MiB"),
        (
            "block_size_mib",
            json!(256),
            "memory-hotplug.slot_size_mib: 128 MiB",
        ),
        ("slot_size_mib", json!(64), "memory-hotplug.slot_size_mib: 64 MiB"),
        (
            "slot_size_mib",
            json!(129),
            "memory-hotplug.slot_size_mib: 129 MiB",
        ),
        (
            "requested_size_mib",
            json!(2),
            "unknown field `requested_size_mib`",
        ),
    ] {
        row("PUT", path, hotplug(field, value), Refused(fault));
    }
    row("PUT", path, json!({}), Refused("missing field `total_size_mib`"));
    for (field, value) in [
        ("total_size_mib", json!(128)),
        ("block_size_mib", json!(4)),
        ("slot_size_mib", json!(256)),
        ("total_size_mib", json!(256)),
    ] {
        row(
            "PUT",
            path,
            hotplug(field, value.clone()),
            Taken("/memory-hotplug", json!({ field: value })),
        );
    }
    row(
        "GET",
        path,
        Value::Null,
        Told(
            json!({ "total_size_mib": 256, "block_size_mib": 2, "slot_size_mib": 128,
            "plugged_size_mib": 0, "requested_size_mib": 0 }),
        ),
    );

    // /balloon
    let path = "/balloon";
    let balloon = |field: &str, value: Value| {
        let mut balloon = json!({ "amount_mib": 0, "deflate_on_oom": false, "stats_polling_interval_s": 1,
            "free_page_hinting": true });
        balloon[field] = value;
        balloon
    };
    row(
        "GET",
        path,
        Value::Null,
        Refused("balloon: this machine has none"),
    );
    for (field, value, fault) in [
        (
            "amount_mib",
            json!(65),
            "balloon.amount_mib: 65 MiB, the machine has 64",
        ),
        ("amount_mib", json!(-1), "invalid value: integer `-1`"),
        ("deflate_on_oom", Value::Null, "invalid type: null"),
        (
            "stats_polling_interval_s",
            json!(65536),
            "invalid value: integer `65536`",
        ),
        ("free_page_hinting", json!("yes"), "invalid type: string"),
        ("free_page_reporting", json!(0), "invalid type: integer `0`"),
        ("size", json!(1), "unknown field `size`"),
    ] {
        row("PUT", path, balloon(field, value), Refused(fault));
    }
    row(
        "PUT",
        path,
        json!({ "amount_mib": 1 }),
        Refused("missing field `deflate_on_oom`"),
    );
    for (field, value) in [
        ("deflate_on_oom", json!(true)),
        ("free_page_reporting", json!(true)),
        ("free_page_hinting", json!(false)),
        ("stats_polling_interval_s", json!(0)),
        ("amount_mib", json!(64)),
        ("amount_mib", json!(1)),
    ] {
        row(
            "PUT",
            path,
            balloon(field, value.clone()),
            Taken(path, json!({ field: value })),
        );
    }
    row(
        "GET",
        path,
        Value::Null,
        Told(json!({ "amount_mib": 1, "stats_polling_interval_s": 1 })),
    );

    // /cpu-config
    let leaf = |field: &str, value: Value| {
        let mut leaf = json!({ "leaf": "0x7", "subleaf": "0x0", "flags": 1,
            "modifiers": [{ "register": "ebx", "bitmap": "0bx" }] });
        leaf[field] = value;
        json!({ "cpuid_modifiers": [leaf] })
    };
    let msr = |field: &str, value: Value| {
        let mut msr = json!({ "addr": "0xc0000102", "bitmap": "0b0" });
        msr[field] = value;
        json!({ "msr_modifiers": [msr] })
    };
    let register = |register: Value, bitmap: Value| {
        leaf("modifiers", json!([{ "register": register, "bitmap": bitmap }]))
    };
    for (body, fault) in [
        (
            json!({ "kvm_capabilities": ["x"] }),
            "cpu-config.kvm_capabilities.0: \"x\"",
        ),
        (json!({ "kvm_capabilities": [1] }), "invalid type: integer `1`"),
        (
            leaf("leaf", json!("x")),
            "cpu-config.cpuid_modifiers.0.leaf: \"x\"",
        ),
        (
            leaf("subleaf", json!("0x")),
            "cpu-config.cpuid_modifiers.0.subleaf",
        ),
        (leaf("flags", json!("1")), "invalid type: string"),
        (leaf("mask", json!(1)), "unknown field `mask`"),
        (register(json!("rax"), json!("0b1")), "unknown variant `rax`"),
        (
            register(json!("eax"), json!("1")),
            "cpu-config.cpuid_modifiers.0.modifiers: \"1\"",
        ),
        (msr("addr", json!("x")), "cpu-config.msr_modifiers.0.addr: \"x\""),
        (
            msr("bitmap", json!("0b3")),
            "cpu-config.msr_modifiers.0.bitmap: \"0b3\"",
        ),
        (json!({ "reg_modifiers": [] }), "unknown field `reg_modifiers`"),
    ] {
        row("PUT", "/cpu-config", body, Refused(fault));
    }
    for body in [
        json!({}),
        json!({ "kvm_capabilities": ["!56", "0"] }),
        register(json!("edx"), json!("0bx")),
        msr("bitmap", json!("0b0")),
    ] {
        row("PUT", "/cpu-config", body.clone(), Taken("/cpu-config", body));
    }

    // /mmds/config
    let path = "/mmds/config";
    let config = |field: &str, value: Value| {
        let mut config = json!({ "network_interfaces": ["n"] });
        config[field] = value;
        config
    };
    for (field, value, fault) in [
        (
            "network_interfaces",
            json!([]),
            "mmds-config.network_interfaces: empty",
        ),
        (
            "network_interfaces",
            json!(["x"]),
            "this machine has no interface \"x\"",
        ),
        ("network_interfaces", Value::Null, "invalid type: null"),
        ("version", json!("V3"), "unknown variant `V3`"),
        (
            "ipv4_address",
            json!("10.0.0.1"),
            "mmds-config.ipv4_address: 10.0.0.1; give one from 169.254.1.0",
        ),
        (
            "ipv4_address",
            json!("169.254.255.1"),
            "mmds-config.ipv4_address: 169.254.255.1",
        ),
        ("ipv4_address", json!("x"), "invalid IPv4 address"),
        ("imds_compat", json!(1), "invalid type: integer `1`"),
        ("token", json!(1), "unknown field `token`"),
    ] {
        row("PUT", path, config(field, value), Refused(fault));
    }
    row(
        "PUT",
        path,
        json!({}),
        Refused("missing field `network_interfaces`"),
    );
    for (field, value) in [
        ("version", json!("V2")),
        ("version", json!("V1")),
        ("ipv4_address", json!("169.254.170.2")),
        ("imds_compat", json!(true)),
    ] {
        row(
            "PUT",
            path,
            config(field, value.clone()),
            Taken("/mmds-config", json!({ field: value })),
        );
    }

    // /logger and /metrics
    for (body, fault) in [
        (json!({ "level": "Loud" }), "unknown variant `Loud`"),
        (
            json!({ "log_path": "/nowhere/log" }),
            "logger.log_path: /nowhere/log: No such file",
        ),
        (json!({ "show_level": 1 }), "invalid type: integer `1`"),
        (json!({ "log_fifo": "x" }), "unknown field `log_fifo`"),
    ] {
        row("PUT", "/logger", body, Refused(fault));
    }
    for level in ["Off", "Trace", "Debug", "Info", "Error", "Warning"] {
        row(
            "PUT",
            "/logger",
            json!({ "level": level }),
            Taken("/logger", json!({ "level": level })),
        );
    }
    for field in ["show_level", "show_log_origin"] {
        row(
            "PUT",
            "/logger",
            json!({ field: false }),
            Taken("/logger", json!({ field: false })),
        );
    }
    row(
        "PUT",
        "/metrics",
        json!({}),
        Refused("missing field `metrics_path`"),
    );
    row(
        "PUT",
        "/metrics",
        json!({ "metrics_path": "/nowhere/m" }),
        Refused("metrics.metrics_path: /nowhere/m: No such file"),
    );
    let metrics = json!({ "metrics_path": folder.join("metrics") });
    row(
        "PUT",
        "/metrics",
        metrics.clone(),
        Taken("/metrics", metrics.clone()),
    );
    row(
        "PUT",
        "/metrics",
        metrics,
        Refused("metrics have their file already"),
    );
    rows.extend(metadata());
    rows.extend(absent());
    rows
}
