use std::path::PathBuf;
use std::time::Duration;

use secovia_vmm_api::{
    BalloonSpec, BootSourceSpec, CacheType, DriveSpec, EntropySpec, HugePages, IoEngine, MachineSpec,
    MemoryHotplugSpec, MmdsConfigSpec, NetworkInterfaceSpec, PmemSpec, RateLimiterSpec, TokenBucketSpec,
    VsockSpec,
};

use super::*;

const HOST: u64 = 4 << 30;

/// A file that is surely there: this test program itself.
fn any_file() -> PathBuf {
    std::env::current_exe().unwrap()
}

fn drive(id: &str) -> DriveSpec {
    DriveSpec {
        drive_id: id.into(),
        path_on_host: Some(any_file()),
        is_root_device: false,
        is_read_only: true,
        ..DriveSpec::default()
    }
}

fn spec() -> VmSpec {
    VmSpec {
        boot_source: Some(BootSourceSpec {
            kernel_image_path: any_file(),
            initrd_path: None,
            boot_args: None,
        }),
        drives: vec![drive("data")],
        machine_config: MachineSpec {
            vcpu_count: 2,
            mem_size_mib: 128,
            ..MachineSpec::default()
        },
        vsock: Some(VsockSpec {
            guest_cid: 3,
            uds_path: "/nonexistent/v.sock".into(),
            ..VsockSpec::default()
        }),
        entropy: Some(EntropySpec::default()),
        ..VmSpec::default()
    }
}

fn pmem(id: &str) -> PmemSpec {
    PmemSpec {
        id: id.into(),
        path_on_host: any_file(),
        ..PmemSpec::default()
    }
}

fn file(disk: &DiskConfig) -> &BlockConfig {
    match disk {
        DiskConfig::File(disk) => disk,
        DiskConfig::Backend(_) => panic!("{disk:?}"),
    }
}

#[test]
fn a_drive_is_a_file_or_a_backends() {
    let folder = std::env::temp_dir().join(format!("secovia-backend-{}", std::process::id()));
    let _ = std::fs::remove_file(&folder);
    let _listener = std::os::unix::net::UnixListener::bind(&folder).unwrap();
    let mut spec = spec();
    let backend = |drive: &mut DriveSpec| {
        drive.path_on_host = None;
        drive.is_read_only = false;
        drive.socket = Some(folder.clone());
    };
    assert_eq!(VmConfig::new(spec.clone(), HOST).unwrap().owner, Owner::Us);
    backend(&mut spec.drives[0]);
    spec.drives[0].cache_type = CacheType::Writeback;
    let config = VmConfig::new(spec.clone(), HOST).unwrap();
    assert_eq!(config.owner, Owner::Shared);
    let DiskConfig::Backend(disk) = &config.disks[0] else {
        panic!("{:?}", config.disks)
    };
    assert_eq!((disk.id.as_str(), &disk.socket), ("data", &folder));
    type Change = fn(&mut VmSpec);
    for (change, fault) in [
        (
            (|s| s.drives[0].is_read_only = true) as Change,
            "drives.data.is_read_only: with a socket",
        ),
        (
            |s| s.drives[0].rate_limiter = Some(RateLimiterSpec::default()),
            "drives.data.rate_limiter: with a socket",
        ),
        (
            |s| s.drives[0].io_engine = IoEngine::Async,
            "drives.data.io_engine: with a socket",
        ),
        (
            |s| s.drives[0].socket = None,
            "drives.data.path_on_host: missing; give a file, or the socket",
        ),
        (
            |s| s.drives[0].socket = Some("/nowhere".into()),
            "drives.data.socket: /nowhere: No such file",
        ),
        (
            |s| s.drives[0].socket = Some("/".into()),
            "drives.data.socket: /: not a socket",
        ),
        (
            |s| s.machine_config.huge_pages = HugePages::TwoMebibytes,
            "drives.data.socket: pages of the host's pool",
        ),
    ] {
        let mut spec = spec.clone();
        change(&mut spec);
        let error = VmConfig::new(spec, HOST).unwrap_err().to_string();
        assert!(error.starts_with(fault), "{error}");
    }
    std::fs::remove_file(&folder).unwrap();
}

fn boot(spec: &mut VmSpec) -> &mut BootSourceSpec {
    spec.boot_source.as_mut().unwrap()
}

#[test]
fn a_good_specification_becomes_a_configuration() {
    let config = VmConfig::new(spec(), HOST).unwrap();
    assert_eq!(config.topology.vcpus(), 2);
    assert_eq!(config.memory, 128 << 20);
    assert_eq!(config.boot.command_line, DEFAULT_BOOT_ARGS);
    assert_eq!(file(&config.disks[0]).id, "data");
    assert!(config.entropy.is_some() && config.vsock.is_some());
}

#[test]
fn the_root_device_comes_first_and_joins_the_command_line() {
    let mut spec = spec();
    boot(&mut spec).boot_args = Some("quiet".into());
    spec.drives.push(DriveSpec {
        is_root_device: true,
        ..drive("root")
    });
    spec.drives.push(drive("more"));
    let config = VmConfig::new(spec.clone(), HOST).unwrap();
    let ids: Vec<_> = config.disks.iter().map(|disk| file(disk).id.as_str()).collect();
    assert_eq!(ids, ["root", "data", "more"]);
    assert_eq!(config.boot.command_line, "quiet root=/dev/vda ro");

    spec.drives[1].is_read_only = false;
    spec.drives[1].partuuid = Some("0eaa91a0-01".into());
    let config = VmConfig::new(spec, HOST).unwrap();
    assert_eq!(config.boot.command_line, "quiet root=PARTUUID=0eaa91a0-01 rw");
}

#[test]
fn what_is_wrong_is_named_with_its_remedy() {
    type Change = fn(&mut VmSpec);
    let cases: [(Change, &str); 33] = [
        (|s| s.boot_source = None, "boot-source: missing; name a kernel"),
        (
            |s| s.machine_config.track_dirty_pages = true,
            "machine-config.track_dirty_pages: not there yet",
        ),
        (
            |s| {
                s.machine_config.huge_pages = HugePages::TwoMebibytes;
                s.machine_config.mem_size_mib = 129;
            },
            "machine-config.mem_size_mib: 129 MiB is no whole number of huge pages",
        ),
        (
            |s| {
                s.machine_config.huge_pages = HugePages::TwoMebibytes;
                s.balloon = Some(BalloonSpec::default());
            },
            "balloon: pages of the host's pool",
        ),
        (
            |s| s.machine_config.cpu_template = Some("T2".into()),
            "machine-config.cpu_template: not there yet",
        ),
        (
            |s| s.drives[0].socket = Some("/s".into()),
            "drives.data: path_on_host and socket are both given",
        ),
        (
            |s| s.mmds_config = Some(MmdsConfigSpec::default()),
            "mmds-config.network_interfaces: empty",
        ),
        (
            |s| {
                s.mmds_config = Some(MmdsConfigSpec {
                    network_interfaces: vec!["none".into()],
                    ..MmdsConfigSpec::default()
                });
            },
            "mmds-config.network_interfaces: this machine has no interface \"none\"",
        ),
        (
            |s| {
                s.balloon = Some(BalloonSpec {
                    amount_mib: 129,
                    ..BalloonSpec::default()
                });
            },
            "balloon.amount_mib: 129 MiB, the machine has 128; give less",
        ),
        (
            |s| s.machine_config.vcpu_count = 0,
            "machine-config.vcpu_count: 0; give 1 to 32",
        ),
        (
            |s| s.machine_config.vcpu_count = 33,
            "machine-config.vcpu_count: 33; give 1 to 32",
        ),
        (
            |s| (s.machine_config.vcpu_count, s.machine_config.smt) = (3, true),
            "machine-config.smt: 3 vCPUs do not pair up",
        ),
        (
            |s| s.machine_config.mem_size_mib = 63,
            "machine-config.mem_size_mib: 63 MiB; give at least 64",
        ),
        (
            |s| s.machine_config.mem_size_mib = 4097,
            "machine-config.mem_size_mib: 4097 MiB, this host has 4096; give less",
        ),
        (
            |s| s.machine_config.mem_size_mib = u64::MAX,
            "this host has 4096; give less",
        ),
        (
            |s| boot(s).kernel_image_path = "/nonexistent".into(),
            "boot-source.kernel_image_path: /nonexistent: No such file or directory (os error 2); create it",
        ),
        (
            |s| boot(s).kernel_image_path = "/".into(),
            "boot-source.kernel_image_path: /: not a regular file",
        ),
        (
            |s| boot(s).initrd_path = Some("/nonexistent".into()),
            "boot-source.initrd_path: /nonexistent: No such file",
        ),
        (
            |s| boot(s).boot_args = Some("a\0b".into()),
            "boot-source.boot_args: has a line break",
        ),
        (
            |s| boot(s).boot_args = Some("x".repeat(2048)),
            "boot-source.boot_args: 2048 bytes",
        ),
        (
            |s| s.drives[0].drive_id = String::new(),
            "drives: entry 0 has an empty drive_id",
        ),
        (
            |s| s.drives.push(drive("data")),
            "drives: drive_id \"data\" is there twice",
        ),
        (
            |s| {
                s.drives[0].is_root_device = true;
                s.drives.push(DriveSpec {
                    is_root_device: true,
                    ..drive("other")
                });
            },
            "drives, pmem: \"data\" and \"other\" are both said to be the root device",
        ),
        (
            |s| s.drives[0].path_on_host = Some("/nonexistent".into()),
            "drives.data.path_on_host: /nonexistent: No such file",
        ),
        (
            |s| s.drives[0].path_on_host = Some("/".into()),
            "drives.data.path_on_host: /: neither a regular file nor a block",
        ),
        (
            |s| s.drives[0].partuuid = Some("1".into()),
            "drives.data.partuuid: only of use with is_root_device",
        ),
        (
            |s| (s.drives[0].is_root_device, s.drives[0].partuuid) = (true, Some("x y".into())),
            "drives.data.partuuid: \"x y\" is no UUID",
        ),
        (|s| s.pmem.push(pmem("")), "pmem: entry 0 has an empty id"),
        (
            |s| s.pmem = vec![pmem("p"), pmem("p")],
            "pmem: id \"p\" is there twice",
        ),
        (
            |s| {
                s.pmem.push(PmemSpec {
                    path_on_host: "/".into(),
                    ..pmem("p")
                });
            },
            "pmem.p.path_on_host: /: neither a regular file nor a block",
        ),
        (
            |s| {
                s.drives[0].is_root_device = true;
                s.pmem.push(PmemSpec {
                    root_device: true,
                    ..pmem("p")
                });
            },
            "drives, pmem: \"data\" and \"p\" are both said to be the root device",
        ),
        (
            |s| s.vsock.as_mut().unwrap().guest_cid = 2,
            "vsock.guest_cid: 2 is reserved; give 3",
        ),
        (
            |s| s.vsock.as_mut().unwrap().uds_path = "/".into(),
            "vsock.uds_path: / exists already; remove it",
        ),
    ];
    for (change, expected) in cases {
        let mut spec = spec();
        change(&mut spec);
        let message = VmConfig::new(spec, HOST).unwrap_err().to_string();
        assert!(
            message.contains(expected),
            "{message}\nshould contain: {expected}"
        );
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn the_root_device_is_the_first_of_the_disks_that_are_memory() {
    for (read_only, args) in [(true, "root=/dev/pmem0 ro"), (false, "root=/dev/pmem0 rw")] {
        let mut spec = spec();
        let root = PmemSpec {
            root_device: true,
            read_only,
            ..pmem("root")
        };
        spec.pmem = vec![pmem("data"), root];
        let config = VmConfig::new(spec, HOST).unwrap();
        let ids: Vec<_> = config.pmem.iter().map(|disk| disk.id.as_str()).collect();
        assert_eq!(ids, ["root", "data"]);
        assert_eq!(config.pmem[0].read_only, read_only);
        assert!(
            config.boot.command_line.ends_with(args),
            "{}",
            config.boot.command_line
        );
    }
}

#[test]
fn more_devices_than_fit_are_refused() {
    let mut spec = spec();
    spec.pmem.push(pmem("p"));
    spec.drives = (0..62).map(|number| drive(&number.to_string())).collect();
    let message = VmConfig::new(spec, HOST).unwrap_err().to_string();
    assert_eq!(
        message,
        "drives, pmem, network-interfaces, memory-hotplug, balloon, vsock, entropy: 65 devices; at most 64 fit"
    );
}

#[test]
fn a_socket_path_that_no_socket_can_have_is_refused() {
    let mut spec = spec();
    spec.vsock.as_mut().unwrap().uds_path = PathBuf::from("/tmp").join("x".repeat(108));
    let message = VmConfig::new(spec, HOST).unwrap_err().to_string();
    assert!(message.contains("longer than 107 bytes"), "{message}");
}

fn network(id: &str) -> NetworkInterfaceSpec {
    NetworkInterfaceSpec {
        iface_id: id.into(),
        host_dev_name: format!("tap-{id}"),
        ..NetworkInterfaceSpec::default()
    }
}

#[test]
fn network_interfaces_keep_their_order_and_settings() {
    let mut spec = spec();
    let limit = RateLimiterSpec {
        bandwidth: Some(TokenBucketSpec {
            size: 1 << 20,
            one_time_burst: Some(5),
            refill_time: 100,
        }),
        ops: None,
    };
    spec.network_interfaces = vec![
        NetworkInterfaceSpec {
            guest_mac: Some("06:00:AC:10:00:fe".into()),
            mtu: Some(9000),
            tx_rate_limiter: Some(limit),
            ..network("b")
        },
        network("a"),
    ];
    spec.entropy.as_mut().unwrap().rate_limiter = Some(limit);
    spec.drives[0].rate_limiter = Some(limit);
    let config = VmConfig::new(spec, HOST).unwrap();
    let [first, second] = config.networks.as_slice() else {
        panic!("{:?}", config.networks);
    };
    assert_eq!((first.id.as_str(), first.tap.as_str()), ("b", "tap-b"));
    assert_eq!(
        (first.mac, first.mtu),
        (Some([6, 0, 0xac, 0x10, 0, 0xfe]), Some(9000))
    );
    assert_eq!((second.id.as_str(), second.mac, second.mtu), ("a", None, None));
    assert_eq!(second.tx_limit, LimiterConfig::default());
    let bucket = first.tx_limit.bandwidth.unwrap();
    assert_eq!(
        (bucket.size, bucket.one_time_burst, bucket.refill_time),
        (1 << 20, 5, 100)
    );
    assert_eq!(first.rx_limit, LimiterConfig::default());
    assert_eq!(file(&config.disks[0]).limit, first.tx_limit);
    assert_eq!(config.entropy, Some(first.tx_limit));
}

#[test]
fn what_is_wrong_with_a_network_interface_is_named() {
    let with = |change: &dyn Fn(&mut NetworkInterfaceSpec)| {
        let mut spec = spec();
        let mut second = network("b");
        change(&mut second);
        spec.network_interfaces = vec![
            NetworkInterfaceSpec {
                guest_mac: Some("02:00:00:00:00:01".into()),
                ..network("a")
            },
            second,
        ];
        VmConfig::new(spec, HOST).unwrap_err().to_string()
    };
    let check = |change: &dyn Fn(&mut NetworkInterfaceSpec), expected: &str| {
        let message = with(change);
        assert!(
            message.contains(expected),
            "{message}\nshould contain: {expected}"
        );
    };
    check(
        &|s| s.iface_id.clear(),
        "network-interfaces: entry 1 has an empty iface_id; name it",
    );
    check(&|s| s.iface_id = "a".into(), "iface_id \"a\" is there twice");
    for name in ["", "sixteen-letters-", "a/b", "tap%d", "a b", "..", "t\u{e4}p"] {
        check(
            &|s| s.host_dev_name = name.into(),
            "network-interfaces.b.host_dev_name: ",
        );
    }
    check(
        &|s| s.host_dev_name = "tap-a".into(),
        "\"tap-a\" is another interface's too",
    );
    for mac in [
        "",
        "06:00:ac:10:00",
        "06:00:ac:10:00:02:03",
        "6:0:ac:10:0:2",
        "06:00:ac:10:00:0g",
        "+6:00:ac:10:00:02",
        "01:00:5e:00:00:01",
        "00:00:00:00:00:00",
    ] {
        check(
            &|s| s.guest_mac = Some(mac.into()),
            "is no address of one interface; give one like 06:00:ac:10:00:02",
        );
    }
    check(
        &|s| s.guest_mac = Some("02:00:00:00:00:01".into()),
        "network-interfaces.b.guest_mac: \"02:00:00:00:00:01\" is another interface's too",
    );
    check(
        &|s| s.mtu = Some(67),
        "network-interfaces.b.mtu: 67; give at least 68",
    );
}

#[test]
fn a_balloon_may_take_all_there_is() {
    let mut spec = spec();
    spec.balloon = Some(BalloonSpec {
        amount_mib: 128,
        deflate_on_oom: true,
        stats_polling_interval_s: 3,
        free_page_reporting: true,
        free_page_hinting: true,
    });
    let expected = BalloonConfig {
        pages: 32768,
        deflate_on_oom: true,
        statistics_interval: Some(Duration::from_secs(3)),
        hinting: true,
        reporting: true,
    };
    assert_eq!(VmConfig::new(spec.clone(), HOST).unwrap().balloon, Some(expected));
    spec.balloon.as_mut().unwrap().stats_polling_interval_s = 0;
    let balloon = VmConfig::new(spec, HOST).unwrap().balloon.unwrap();
    assert_eq!(balloon.statistics_interval, None);
}

#[test]
fn what_firecracker_writes_for_nothing_is_nothing() {
    let text = r#"{ "boot-source": { "kernel_image_path": "k" }, "cpu-config": null, "mmds-config": null,
        "memory-hotplug": null, "vsock": null, "logger": { "level": "Warning" } }"#;
    let spec: VmSpec = serde_json::from_str(text).unwrap();
    assert!(spec.memory_hotplug.is_none() && spec.cpu_config.is_none());
}

#[test]
fn memory_that_can_be_added_lies_behind_all_other() {
    let mut spec = spec();
    let hotplug = |total, block, slot| MemoryHotplugSpec {
        total_size_mib: total,
        block_size_mib: block,
        slot_size_mib: slot,
    };
    for (mib, total, block, slot, start) in [
        (256, 1024, 2, 128, 4 << 30),
        (3072, 128, 128, 128, 4 << 30),
        (3328, 512, 512, 512, (4 << 30) + (512 << 20)),
    ] {
        spec.machine_config.mem_size_mib = mib;
        spec.memory_hotplug = Some(hotplug(total, block, slot));
        let config = VmConfig::new(spec.clone(), HOST).unwrap().hotplug.unwrap();
        assert_eq!(
            (config.start, config.length, config.block),
            (start, total << 20, block << 20)
        );
    }
}

#[test]
fn parts_are_checked_by_themselves() {
    let empty = VmSpec::default();
    for part in [
        Part::Machine,
        Part::Drives,
        Part::Pmem,
        Part::Networks,
        Part::Balloon,
        Part::Vsock,
        Part::Serial,
    ] {
        part.check(&empty, HOST).unwrap();
    }
    assert!(matches!(
        Part::BootSource.check(&empty, HOST),
        Err(ConfigError::NoBootSource)
    ));
    // Less memory than the balloon takes is no machine either.
    let mut spec = spec();
    spec.balloon = Some(BalloonSpec {
        amount_mib: 128,
        ..BalloonSpec::default()
    });
    Part::Machine.check(&spec, HOST).unwrap();
    spec.machine_config.mem_size_mib = 64;
    assert!(matches!(
        Part::Machine.check(&spec, HOST),
        Err(ConfigError::LargeBalloon { .. })
    ));
}
