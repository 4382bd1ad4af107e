use std::path::PathBuf;

use super::*;
use crate::cli::{self, Command};
use crate::facts::Hierarchy;
use crate::options::CgroupVersion;

fn hierarchy(mount: &str) -> Hierarchy {
    Hierarchy {
        mount: mount.into(),
        home: PathBuf::from(mount).join("home"),
    }
}

/// A host with all devices, and both kinds of cgroups.
fn facts() -> Facts {
    let cpu = hierarchy("/cg/cpu");
    let number = |device: &Device| (*device, device.fixed_number().unwrap_or((10, 126)));
    Facts {
        devices: Device::ALL.iter().map(number).collect(),
        unified: Some(hierarchy("/cg/unified")),
        controllers: BTreeMap::from([
            ("cpu".into(), cpu.clone()),
            ("cpuacct".into(), cpu),
            ("memory".into(), hierarchy("/cg/memory")),
        ]),
    }
}

fn options(more: &str) -> Options {
    let line =
        format!("--id a-1 --exec-file /bin/vmm --uid 900000 --gid 900001 --chroot-base-dir /jails {more}");
    match cli::parse(line.split_whitespace()) {
        Ok(Command::Run(options)) => *options,
        other => panic!("{line}: {other:?}"),
    }
}

fn planned(more: &str) -> Plan {
    plan(&options(more), &facts()).unwrap()
}

/// Every combination of these choices, each with a word that none of the others has.
fn all() -> impl Iterator<Item = String> {
    const CHOICES: [&[&str]; 8] = [
        &["", "--new-pid-ns"],
        &["", "--daemonize"],
        &["", "--netns /run/netns/n"],
        &[
            "",
            "--cgroup memory.max=1 --cgroup cpu.weight=2 --cgroup-version 2",
            "--cgroup memory.limit_in_bytes=1 --cgroup cpu.shares=2 --cgroup cpuacct.x=3 --cgroup-version 1",
            "--cgroup-version 2 --parent-cgroup s.slice/p",
        ],
        &["", "--file /host/kernel:k --file /host/disk:d:rw"],
        &["", "--device tun --device userfaultfd"],
        &["", "--resource-limit no-file=64 --resource-limit fsize=1"],
        &["", "--keep-fd 7 -- --config-file /vm.json"],
    ];
    let count: usize = CHOICES.iter().map(|choice| choice.len()).product();
    (0..count).map(|mut number| {
        let picked = CHOICES.iter().map(|choice| {
            let word = choice[number % choice.len()];
            number /= choice.len();
            word
        });
        picked.collect::<Vec<_>>().join(" ")
    })
}

/// The place of the one step that this is true of.
fn place(plan: &Plan, what: impl Fn(&Step) -> bool) -> usize {
    let mut found = (0..plan.steps.len()).filter(|index| what(&plan.steps[*index]));
    let place = found.next().unwrap_or_else(|| panic!("not there:\n{plan}"));
    assert_eq!(found.next(), None, "there twice:\n{plan}");
    place
}

/// Holds for every plan: where it is done, in which order rights go, and that nothing is left to chance.
#[test]
fn rights_are_given_up_after_all_that_needs_them_and_before_the_program() {
    for line in all() {
        let plan = planned(&line);
        let at = |what: fn(&Step) -> bool| place(&plan, what);
        assert!(
            plan.steps.is_sorted_by_key(Step::stage),
            "stages are mixed:\n{plan}"
        );
        let order = [
            at(|step| matches!(step, Step::CloseDescriptors { .. })),
            at(|step| matches!(step, Step::NewNamespaces { .. })),
            at(|step| matches!(step, Step::PrivateMounts)),
            at(|step| matches!(step, Step::MountRoot)),
            at(|step| matches!(step, Step::MountDevices { .. })),
            at(|step| matches!(step, Step::EnterRoot)),
            at(|step| matches!(step, Step::DetachHost)),
            at(|step| matches!(step, Step::NewCgroupNamespace)),
            at(|step| matches!(step, Step::DropBoundingSet)),
            at(|step| matches!(step, Step::SetGroup { gid: 900_001 })),
            at(|step| matches!(step, Step::SetUser { uid: 900_000 })),
            at(|step| matches!(step, Step::DropCapabilities)),
            at(|step| matches!(step, Step::NoNewPrivileges)),
            at(|step| matches!(step, Step::Exec { .. })),
        ];
        assert!(order.is_sorted(), "{order:?}:\n{plan}");
        assert_eq!(order.last(), Some(&(plan.steps.len() - 1)));
        let user = at(|step| matches!(step, Step::SetUser { .. }));
        for step in &plan.steps[user + 1..] {
            assert!(
                matches!(
                    step,
                    Step::DropCapabilities | Step::NoNewPrivileges | Step::Daemonize | Step::Exec { .. }
                ),
                "{step} after the user is set:\n{plan}"
            );
        }
    }
}

#[test]
fn the_program_is_told_of_no_path_of_the_host() {
    for line in all() {
        let plan = planned(&line);
        let Some(Step::Exec { program, arguments }) = plan.steps.last() else {
            panic!("{plan}")
        };
        assert_eq!(program, "/vmm");
        for text in arguments.iter().map(|argument| argument.to_string_lossy()) {
            for host in ["/bin", "/host", "/jails", "/run", "/cg"] {
                assert!(!text.contains(host), "{text}:\n{plan}");
            }
        }
        // What is done once the root is left names nothing of it either, but what is held as a descriptor.
        let entered = place(&plan, |step| matches!(step, Step::EnterRoot));
        for step in &plan.steps[entered + 1..] {
            let held = matches!(step, Step::Spawn { .. } | Step::JoinCgroup { .. });
            assert!(held || !step.to_string().contains("/host"), "{step}");
        }
    }
}

#[test]
fn every_file_is_opened_has_a_place_and_is_mounted_once() {
    for line in all() {
        let plan = planned(&line);
        let closed = place(&plan, |step| matches!(step, Step::CloseDescriptors { .. }));
        let mut files = 0;
        for (index, step) in plan.steps.iter().enumerate() {
            if let Step::OpenFile {
                name,
                access,
                uid,
                gid,
                ..
            } = step
            {
                files += 1;
                assert_eq!((*uid, *gid), (900_000, 900_001));
                let made = place(
                    &plan,
                    |step| matches!(step, Step::MakePlace { name: made, folder: false } if made == name.as_str()),
                );
                let mounted = place(
                    &plan,
                    |step| matches!(step, Step::MountFile { name: mounted, access: how } if mounted == name && how == access),
                );
                assert!(closed < index && index < made && made < mounted, "{plan}");
            }
        }
        let mounts = plan
            .steps
            .iter()
            .filter(|step| matches!(step, Step::MountFile { .. }));
        assert_eq!(mounts.count(), files);
        assert_eq!(files, if line.contains("--file") { 3 } else { 1 });
    }
}

#[test]
fn a_network_is_joined_or_new() {
    for line in all() {
        let plan = planned(&line);
        let new = plan
            .steps
            .iter()
            .any(|step| matches!(step, Step::NewNamespaces { kinds } if kinds.contains(&Namespace::Network)));
        let joined = plan
            .steps
            .iter()
            .any(|step| matches!(step, Step::JoinNetwork { .. }));
        assert_eq!(
            (new, joined),
            if line.contains("--netns") {
                (false, true)
            } else {
                (true, false)
            }
        );
    }
}

#[test]
fn a_cgroup_is_set_before_it_is_joined_and_joined_before_it_is_the_root() {
    for line in all() {
        let plan = planned(&line);
        let namespace = place(&plan, |step| matches!(step, Step::NewCgroupNamespace));
        let made = |step: &Step| matches!(step, Step::MakeCgroup(_) | Step::SetCgroup { .. });
        let joins = |step: &Step| {
            matches!(
                step,
                Step::JoinCgroup { .. } | Step::Spawn { cgroup: Some(_), .. }
            )
        };
        let last_set = plan.steps.iter().rposition(made);
        let first_join = plan.steps.iter().position(joins);
        assert_eq!(last_set.is_some(), line.contains("cgroup"), "{plan}");
        assert_eq!(last_set.is_some(), first_join.is_some(), "{plan}");
        assert!(last_set < first_join || last_set.is_none());
        assert!(
            plan.steps
                .iter()
                .rposition(joins)
                .is_none_or(|join| join < namespace)
        );
        let cgroups = plan
            .steps
            .iter()
            .filter(|step| matches!(step, Step::MakeCgroup(_)));
        assert_eq!(
            cgroups.count(),
            plan.steps.iter().filter(|step| joins(step)).count()
        );
    }
}

#[test]
fn the_process_id_is_written_down_before_the_program_runs() {
    for line in all() {
        let plan = planned(&line);
        let spawned = line.contains("--new-pid-ns");
        let recorded = place(&plan, |step| {
            matches!(step, Step::RecordPid { path } | Step::Spawn { pid_file: path, .. }
                if path.to_str() == Some("/jails/vmm/a-1/vmm.pid"))
        });
        assert_eq!(matches!(plan.steps[recorded], Step::Spawn { .. }), spawned);
        // Where the process is this one, that is known and undone on the host.
        assert_eq!(
            plan.steps[recorded].stage(),
            if spawned { Stage::Jail } else { Stage::Host }
        );
    }
}

#[test]
fn there_is_always_a_limit_for_descriptors_and_core_dumps() {
    for line in all() {
        let plan = planned(&line);
        let of = |wanted: Limit| {
            plan.steps.iter().find_map(|step| match step {
                Step::SetLimit { limit, value } if *limit == wanted => Some(*value),
                _ => None,
            })
        };
        let given = line.contains("--resource-limit");
        assert_eq!(of(Limit::Core), Some(0));
        assert_eq!(of(Limit::NoFile), Some(if given { 64 } else { 2048 }));
        assert_eq!(of(Limit::Fsize), given.then_some(1));
    }
}

#[test]
fn every_plan_can_be_printed_both_ways() {
    for line in all() {
        let plan = planned(&line);
        let text = plan.to_string();
        assert_eq!(text.lines().count(), plan.steps.len() + 4, "{text}");
        let json: serde_json::Value = serde_json::to_value(&plan).unwrap();
        let steps = json["steps"].as_array().unwrap();
        assert_eq!(steps.len(), plan.steps.len());
        assert!(steps.iter().all(|step| step["step"].is_string()), "{json}");
    }
}

#[test]
fn the_name_is_the_first_argument_unless_the_caller_gives_one() {
    let arguments = |more: &str| match planned(more).steps.pop() {
        Some(Step::Exec { arguments, .. }) => arguments,
        other => panic!("{other:?}"),
    };
    assert_eq!(arguments(""), ["--id", "a-1"]);
    assert_eq!(arguments("-- --no-api"), ["--id", "a-1", "--no-api"]);
    assert_eq!(arguments("-- --no-api --id b"), ["--no-api", "--id", "b"]);
    assert_eq!(arguments("-- --id=b"), ["--id=b"]);
}

fn made(plan: &Plan) -> Vec<(CgroupVersion, String, Vec<&str>)> {
    let mut made = Vec::new();
    for step in &plan.steps {
        if let Step::MakeCgroup(cgroup) = step {
            let controllers = cgroup.controllers.iter().map(String::as_str).collect();
            made.push((cgroup.version, cgroup.folder().display().to_string(), controllers));
        }
    }
    made
}

#[test]
fn one_cgroup_is_made_in_each_hierarchy_that_is_needed() {
    let v2 =
        planned("--cgroup memory.max=1 --cgroup cpu.max=2 --cgroup cgroup.max.depth=0 --cgroup-version 2");
    assert_eq!(
        made(&v2),
        [(
            CgroupVersion::V2,
            "/cg/unified/vmm/a-1".into(),
            vec!["cpu", "memory"]
        )]
    );
    // Two controllers of one hierarchy share a cgroup. Without --cgroup-version, hierarchies of version 1 decide.
    let v1 = planned("--cgroup cpu.shares=1 --cgroup memory.x=2 --cgroup cpuacct.y=3 --parent-cgroup p/q");
    assert_eq!(
        made(&v1),
        [
            (
                CgroupVersion::V1,
                "/cg/cpu/p/q/a-1".into(),
                vec!["cpu", "cpuacct"]
            ),
            (CgroupVersion::V1, "/cg/memory/p/q/a-1".into(), vec!["memory"])
        ]
    );
    let mut unified = facts();
    unified.controllers.clear();
    let alone = plan(&options("--parent-cgroup p"), &unified).unwrap();
    assert_eq!(
        made(&alone),
        [(CgroupVersion::V2, "/cg/unified/p/a-1".into(), vec![])]
    );
    assert_eq!(made(&planned("")), []);
}

#[test]
fn what_the_host_has_not_is_named() {
    let error = |more: &str, facts: &Facts| plan(&options(more), facts).unwrap_err().to_string();
    let bare = Facts::default();
    assert!(error("", &bare).starts_with("/dev/kvm: not on this host; load"));
    let mut none = facts();
    (none.unified, none.controllers) = (None, BTreeMap::new());
    for (more, expected) in [
        (
            "--cgroup memory.max=1",
            "--cgroup-version 2: no cgroup2 file system is mounted",
        ),
        (
            "--cgroup memory.max=1 --cgroup-version 1",
            "--cgroup memory.max: no hierarchy of version 1 has its controller",
        ),
        (
            "--parent-cgroup p --cgroup-version 1",
            "--parent-cgroup: with cgroups of version 1",
        ),
        (
            "--cgroup cgroup.max.depth=1 --cgroup-version 1",
            "--cgroup cgroup.max.depth: no hierarchy of version 1",
        ),
    ] {
        let message = error(more, &none);
        assert!(message.starts_with(expected), "{more}: {message}");
    }
}
