use super::*;
use crate::options::Access;

/// The words without which there is nothing to start.
const LEAST: &str = "--id a-1 --exec-file /usr/bin/vmm --uid 900000 --gid 900001";

fn read(line: &str) -> Result<Command, CliError> {
    parse(line.split_whitespace())
}

fn options(more: &str) -> Options {
    match read(&format!("{LEAST} {more}")) {
        Ok(Command::Run(options)) => *options,
        other => panic!("{more}: {other:?}"),
    }
}

#[test]
fn the_least_has_defaults() {
    let options = options("");
    assert_eq!(options.id.as_str(), "a-1");
    assert_eq!((options.uid, options.gid), (900_000, 900_001));
    assert_eq!(options.exec_name.as_str(), "vmm");
    assert_eq!(options.chroot_base, PathBuf::from("/srv/jailer"));
    assert_eq!(options.devices, BTreeSet::from([Device::Kvm, Device::Urandom]));
    assert_eq!((options.new_pid_ns, options.daemonize), (false, false));
    assert!(options.files.is_empty() && options.cgroups.is_empty() && options.vmm_args.is_empty());
}

#[test]
fn all_words_are_understood() {
    let options = options(
        "--chroot-base-dir /j --netns /run/netns/n --cgroup memory.max=1 --cgroup io.max=8:0 \
         --cgroup-version 2 --parent-cgroup a.slice/b --resource-limit fsize=1 --resource-limit no-file=2 \
         --new-pid-ns --daemonize --file /d/k:kernel --file=/d/a:b:disk:rw --device tun --device kvm --keep-fd 5 \
         --keep-fd 3 -- --config-file /vm.json -- --id x",
    );
    assert_eq!(options.netns, Some("/run/netns/n".into()));
    assert_eq!(
        options
            .cgroups
            .iter()
            .map(|c| (c.file.as_str(), c.value.as_str()))
            .collect::<Vec<_>>(),
        [("memory.max", "1"), ("io.max", "8:0")]
    );
    assert_eq!(options.parent_cgroup, Some("a.slice/b".into()));
    assert_eq!(options.limits, [(Limit::Fsize, 1), (Limit::NoFile, 2)]);
    assert!(options.new_pid_ns && options.daemonize);
    let [kernel, disk] = &options.files[..] else {
        panic!()
    };
    assert_eq!((kernel.name.as_str(), kernel.access), ("kernel", Access::Read));
    assert_eq!(
        (disk.source.to_str(), disk.name.as_str(), disk.access),
        (Some("/d/a:b"), "disk", Access::Write)
    );
    assert_eq!(options.keep_fds, BTreeSet::from([3, 5]));
    assert_eq!(
        options.devices,
        BTreeSet::from([Device::Kvm, Device::Tun, Device::Urandom])
    );
    // Only the first `--` is the jailer's own.
    assert_eq!(options.vmm_args, ["--config-file", "/vm.json", "--", "--id", "x"]);
}

#[test]
fn a_plan_can_be_asked_for() {
    let shown = |more: &str| match read(&format!("{LEAST} {more}")) {
        Ok(Command::Show(_, format)) => format,
        other => panic!("{other:?}"),
    };
    assert_eq!(shown("--dry-run"), Format::Text);
    assert_eq!(shown("--json --dry-run"), Format::Json);
}

#[test]
fn help_and_version_come_before_all() {
    assert_eq!(read("--help").unwrap(), Command::Help);
    assert_eq!(read("-h").unwrap(), Command::Help);
    assert_eq!(read("--uid 5 --version").unwrap(), Command::Version);
}

#[test]
fn help_names_every_word() {
    for word in WORDS {
        assert!(HELP.contains(word), "{word}");
    }
    for (name, _) in Limit::NAMES {
        assert!(HELP.contains(name), "{name}");
    }
}

#[test]
fn what_is_missing_is_named() {
    for word in ["--id", "--exec-file", "--uid", "--gid"] {
        let line: Vec<&str> = LEAST.split(' ').collect();
        let rest = line.chunks(2).filter(|pair| pair[0] != word).flatten();
        let message = parse(rest).unwrap_err().to_string();
        assert_eq!(message, format!("{word} is missing; see secovia-jailer --help"));
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (more, expected) in [
        ("--no-such", "invalid option '--no-such'"),
        ("-x", "invalid option '-x'"),
        ("extra", "unexpected argument \"extra\""),
        ("--netns", "missing argument"),
        ("--daemonize=yes", "unexpected argument for option '--daemonize'"),
        ("--id b", "--id is there twice"),
        ("--uid 7", "--uid is there twice"),
        ("--exec-file /x", "--exec-file is there twice"),
        ("--daemonize --daemonize", "--daemonize is there twice"),
        ("--keep-fd 4 --keep-fd 4", "--keep-fd 4 is there twice"),
        (
            "--resource-limit core=1 --resource-limit core=2",
            "--resource-limit core is there twice",
        ),
        ("--file /a:x --file /b:x", "/x of --file is there twice"),
        ("--file /a:vmm", "/vmm of --file is there twice"),
        ("--json", "--json means nothing without --dry-run"),
        ("--cgroup-version 3", "--cgroup-version: \"3\": give 1 or 2"),
        ("--keep-fd 2", "--keep-fd: \"2\": give the number"),
        (
            "--chroot-base-dir jails",
            "--chroot-base-dir: \"jails\": give a path from /",
        ),
        ("--device null", "--device: \"null\": give kvm"),
        ("--parent-cgroup /a", "--parent-cgroup: \"/a\": give a path below"),
    ] {
        let message = read(&format!("{LEAST} {more}")).unwrap_err().to_string();
        assert!(message.contains(expected), "{more}: {message}");
    }
}
