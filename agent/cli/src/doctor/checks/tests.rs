use secovia_agent_api::{Health, HealthStatus};

use super::super::check::Status;
use super::super::facts::{Dir, Forwarding, NoAnswer, Socket, Tool, UserRange, Weakness};
use super::super::report::Report;
use super::*;

/// A host on which all is well.
fn good() -> Facts {
    let file = |key, path: &str| NamedFile {
        key,
        path: path.into(),
        state: FileState::Good,
    };
    Facts {
        root: true,
        config: Config::Read("/etc/secovia/agent.toml".into()),
        kvm: Access::Opened,
        cpu_flag: Some("vmx"),
        probe: Probe::Ran {
            hardware_speed: true,
            figures: "f".into(),
        },
        cgroup_controllers: Some(CONTROLLERS.map(str::to_string).to_vec()),
        tun: Access::Opened,
        tools: vec![Tool {
            name: "mkfs.ext4",
            purpose: "p",
            package: "e2fsprogs",
            found: true,
        }],
        files: [
            file("vmm", "/v"),
            file("jailer", "/j"),
            file("kernel", "/k"),
            file("initrd", "/i"),
        ],
        state_dir: Dir {
            path: "/s".into(),
            mode: Some(0o40700),
            free: Some(100 << 30),
        },
        socket: Socket {
            path: "/a.sock".into(),
            mode: Some(0o140660),
            answer: Ok((
                "0.1.0".into(),
                Health {
                    status: HealthStatus::Ok,
                    problems: vec![],
                    running: 2,
                },
            )),
        },
        memory: Some((24 << 30, 20 << 30)),
        ksm: Some(false),
        smt: Some(false),
        core_scheduling: false,
        weaknesses: vec![Weakness {
            name: "mds".into(),
            state: "Mitigation: Clear CPU buffers; SMT disabled".into(),
        }],
        users: UserRange {
            first: 900_000,
            count: 1_000,
            taken: vec![],
        },
        forwarding: None,
    }
}

#[test]
fn a_good_host_is_ready_without_a_word_to_do() {
    let report = Report::new(all(&good()));
    assert!(report.ready);
    assert!(report.checks.iter().all(|check| check.remedy.is_none()));
    assert!(
        report.text().ends_with("This host is ready.\n"),
        "{}",
        report.text()
    );
}

/// One thing that is wrong: how it got so, what it is called, how grave it is, and a word of what is told.
type Case = (fn(&mut Facts), &'static str, Status, &'static str);

#[test]
fn each_fault_is_found_alone_and_says_what_to_do() {
    let cases: &[Case] = &[
        (
            |f| f.kvm = Access::Missing,
            "kvm_device",
            Status::Fail,
            "modprobe kvm_intel",
        ),
        (
            |f| (f.kvm, f.cpu_flag) = (Access::Missing, Some("svm")),
            "kvm_device",
            Status::Fail,
            "modprobe kvm_amd",
        ),
        (
            |f| (f.kvm, f.cpu_flag) = (Access::Missing, None),
            "kvm_device",
            Status::Fail,
            "firmware",
        ),
        (
            |f| f.kvm = Access::Denied,
            "kvm_device",
            Status::Fail,
            "container",
        ),
        (
            |f| (f.kvm, f.root) = (Access::Denied, false),
            "kvm_device",
            Status::Warn,
            "sudo secovia doctor",
        ),
        (
            |f| f.kvm = Access::Failed("busy".into()),
            "kvm_device",
            Status::Fail,
            "dmesg",
        ),
        (
            |f| {
                f.probe = Probe::Ran {
                    hardware_speed: false,
                    figures: "slow".into(),
                }
            },
            "kvm_speed",
            Status::Fail,
            "nested virtualization",
        ),
        (
            |f| f.probe = Probe::NoVmm,
            "kvm_speed",
            Status::Fail,
            "install it",
        ),
        (
            |f| f.probe = Probe::Failed("x".into()),
            "kvm_speed",
            Status::Fail,
            "secovia-vmm --probe",
        ),
        (
            |f| f.memory = Some((1 << 30, 100 << 20)),
            "memory",
            Status::Fail,
            "64 MiB",
        ),
        (
            |f| f.memory = Some((1 << 30, 300 << 20)),
            "memory",
            Status::Warn,
            "few",
        ),
        (|f| f.memory = None, "memory", Status::Warn, "/proc"),
        (
            |f| f.config = Config::Absent("/c".into()),
            "config",
            Status::Warn,
            "--config",
        ),
        (
            |f| f.config = Config::Bad("/c".into(), "line 3".into()),
            "config",
            Status::Fail,
            "correct it",
        ),
        (
            |f| f.files[0].state = FileState::NotExecutable,
            "vmm",
            Status::Fail,
            "chmod 755 /v",
        ),
        (
            |f| f.files[1].state = FileState::ALink,
            "jailer",
            Status::Fail,
            "the program itself",
        ),
        (
            |f| f.files[2].state = FileState::NotReadable,
            "kernel",
            Status::Fail,
            "chmod 644 /k",
        ),
        (
            |f| f.files[2].state = FileState::NotAFile,
            "kernel",
            Status::Fail,
            "`kernel`",
        ),
        (
            |f| f.files[3].state = FileState::Unreadable("gone".into()),
            "initrd",
            Status::Fail,
            "`initrd`",
        ),
        (
            |f| f.state_dir.mode = Some(0o40777),
            "state_dir",
            Status::Fail,
            "chmod go-w /s",
        ),
        (
            |f| f.state_dir.free = Some(1),
            "disk_space",
            Status::Fail,
            "make room",
        ),
        (
            |f| f.state_dir.free = Some(1 << 30),
            "disk_space",
            Status::Warn,
            "make room",
        ),
        (
            |f| f.cgroup_controllers = None,
            "cgroups",
            Status::Warn,
            "cgroup_no_v1=all",
        ),
        (
            |f| f.cgroup_controllers = Some(vec!["cpu".into()]),
            "cgroups",
            Status::Warn,
            "unified_cgroup_hierarchy",
        ),
        (
            |f| f.users.taken = vec!["user x (900003)".into()],
            "vm_users",
            Status::Fail,
            "`vm_uids`",
        ),
        (
            |f| f.weaknesses[0].state = "Vulnerable".into(),
            "side_channels",
            Status::Warn,
            "microcode",
        ),
        (
            |f| {
                f.smt = Some(true);
                f.weaknesses[0].state = "Mitigation: Clear CPU buffers; SMT vulnerable".into();
            },
            "smt",
            Status::Warn,
            "core_scheduling",
        ),
        (|f| f.ksm = Some(true), "ksm", Status::Warn, "ksm/run"),
        (|f| f.tun = Access::Missing, "tun", Status::Warn, "modprobe tun"),
        (|f| f.tun = Access::Denied, "tun", Status::Warn, "sudo"),
        (
            |f| f.tools[0].found = false,
            "tool",
            Status::Warn,
            "apt-get install e2fsprogs",
        ),
        (
            |f| f.socket.mode = Some(0o140666),
            "socket",
            Status::Fail,
            "restart the agent",
        ),
        (
            |f| {
                f.socket.answer = Err(NoAnswer {
                    message: "m".into(),
                    denied: false,
                })
            },
            "agent",
            Status::Warn,
            "systemctl start secovia-agent",
        ),
        (
            |f| {
                f.socket.answer = Err(NoAnswer {
                    message: "m".into(),
                    denied: true,
                })
            },
            "agent",
            Status::Warn,
            "usermod -aG secovia",
        ),
    ];
    for (spoil, id, status, remedy) in cases {
        let mut facts = good();
        spoil(&mut facts);
        let report = Report::new(all(&facts));
        let faults: Vec<&Check> = report
            .checks
            .iter()
            .filter(|check| check.remedy.is_some())
            .collect();
        let [fault] = faults[..] else {
            panic!("{id}: {faults:?}");
        };
        assert_eq!((fault.id, fault.status), (*id, *status), "{fault:?}");
        assert!(fault.remedy.as_ref().unwrap().contains(remedy), "{fault:?}");
        assert_eq!(report.ready, *status != Status::Fail, "{id}");
        let line = format!("{} ", if *status == Status::Fail { "FAIL" } else { "WARN" });
        assert!(report.text().contains(&line), "{}", report.text());
    }
}

#[test]
fn what_an_unknown_user_cannot_see_is_no_failure() {
    let mut facts = good();
    facts.root = false;
    facts.kvm = Access::Denied;
    facts.probe = Probe::Failed("open /dev/kvm: permission denied".into());
    let checks = all(&facts);
    assert!(
        checks.iter().all(|check| check.status != Status::Fail),
        "{checks:?}"
    );
}

#[test]
fn json_has_stable_words() {
    let mut facts = good();
    facts.tun = Access::Missing;
    let json = serde_json::to_value(Report::new(all(&facts))).unwrap();
    assert_eq!(json["ready"], true);
    let tun = json["checks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|check| check["id"] == "tun")
        .unwrap();
    assert_eq!(tun["status"], "warn");
    assert!(tun["remedy"].is_string() && tun["message"].is_string());
}

#[test]
fn a_network_needs_a_host_that_routes() {
    let status = |v4, v6| {
        let facts = Facts {
            forwarding: Some(Forwarding { v4, v6 }),
            ..good()
        };
        let checks = all(&facts);
        let check = checks
            .into_iter()
            .find(|check| check.id == "network_forwarding")
            .unwrap();
        (check.status, check.remedy.unwrap_or_default())
    };
    assert_eq!(status(Some(true), Some(true)).0, Status::Ok);
    assert_eq!(status(Some(true), Some(false)).0, Status::Info);
    let (both, remedy) = status(Some(false), None);
    assert!(
        both == Status::Warn && remedy.contains("ip_forward=1") && remedy.contains("conf.all.forwarding")
    );
    let (v4, remedy) = status(None, Some(true));
    assert!(v4 == Status::Warn && !remedy.contains("ipv6"), "{remedy}");
}
