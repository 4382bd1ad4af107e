//! What a program finds in the jail, as it says itself and as the host sees it. Needs root.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsRawFd;
use std::process::{ExitCode, Stdio};

use common::{GID, Host, Jailed, Outcome, UID, WITNESS, program_name, reap, skip, witness};
use rustix::thread::CapabilitySet;
use secovia_jailer::sys;
use serde_json::{Value, json};

fn main() -> ExitCode {
    common::main(&[
        (
            "there_is_nothing_but_what_was_named",
            there_is_nothing_but_what_was_named,
        ),
        ("there_are_no_rights", there_are_no_rights),
        ("nothing_works_that_must_not", nothing_works_that_must_not),
        ("the_host_sees_the_same", the_host_sees_the_same),
        ("the_namespaces_are_its_own", the_namespaces_are_its_own),
        (
            "a_process_of_its_own_is_the_callers_child",
            a_process_of_its_own_is_the_callers_child,
        ),
        (
            "only_kept_descriptors_come_through",
            only_kept_descriptors_come_through,
        ),
        ("a_demon_has_no_terminal", a_demon_has_no_terminal),
        (
            "a_network_namespace_can_be_given",
            a_network_namespace_can_be_given,
        ),
        ("devices_can_be_added", devices_can_be_added),
        ("limits_hold", limits_hold),
        ("a_machine_runs_once", a_machine_runs_once),
        ("few_capabilities_are_enough", few_capabilities_are_enough),
        ("a_jail_can_be_used_again", a_jail_can_be_used_again),
        (
            "killed_at_any_moment_it_starts_the_next_time",
            killed_at_any_moment_it_starts_the_next_time,
        ),
        ("a_dry_run_touches_nothing", a_dry_run_touches_nothing),
        (
            "a_cgroup_of_version_1_is_joined_and_undone",
            a_cgroup_of_version_1_is_joined_and_undone,
        ),
        (
            "a_cgroup_of_version_2_is_joined_and_undone",
            a_cgroup_of_version_2_is_joined_and_undone,
        ),
    ])
}

/// Both ways to start: in the jailer's place, and as a process of its own.
const WAYS: [&[&str]; 2] = [&[], &["--new-pid-ns"]];

/// The machine with a kernel that is read and a disk that is written.
fn start(host: &Host, words: &[&str]) -> Jailed {
    let mut command = host.command();
    command
        .args(host.grant("kernel", "kernel"))
        .args(host.grant("disk", "disk:rw"))
        .args(words);
    Jailed::run(host, command, &[])
}

fn there_is_nothing_but_what_was_named() -> Outcome {
    for words in WAYS {
        let host = Host::new();
        let jail = start(&host, words);
        let program = format!("/{}", program_name());
        assert_eq!(jail.seen["arguments"], json!([program, "--id", "m-1", WITNESS]));
        assert_eq!(jail.seen["environment"], json!([]));
        assert_eq!(jail.seen["folder"], "/");
        assert_eq!(
            (&jail.seen["host"], &jail.seen["domain"]),
            (&json!("m-1"), &json!(""))
        );
        assert_eq!(jail.seen["descriptors"], json!([0, 1, 2]));
        let files: BTreeMap<String, Value> = serde_json::from_value(jail.seen["files"].clone())?;
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["/dev", "/dev/kvm", "/dev/urandom", "/disk", &program, "/kernel"]
        );
        assert_eq!(files["/disk"], json!(["file", UID, GID, "0644"]));
        assert_eq!(files["/kernel"], json!(["file", 0, 0, "0644"]));
        assert_eq!(files["/dev/kvm"], json!(["device", UID, GID, "0600"]));
        assert_eq!(files["/dev/urandom"], json!(["device", UID, GID, "0600"]));
        // What it was to write is what the host has.
        assert_eq!(fs::read_to_string(host.path("disk"))?, "written in the jail");
        assert_eq!(fs::read_to_string(host.path("kernel"))?, "a kernel");
        assert_eq!(jail.end().1, Some(witness::HEARD.into()));
    }
    Ok(())
}

fn there_are_no_rights() -> Outcome {
    for words in WAYS {
        let host = Host::new();
        let jail = start(&host, words);
        let identity = &jail.seen["identity"];
        assert_eq!(identity["user"], json!([UID, UID]));
        assert_eq!(identity["group"], json!([GID, GID]));
        assert_eq!(identity["groups"], 0);
        assert_eq!(identity["capabilities"], json!([0, 0, 0]));
        assert_eq!(identity["bounding"], json!([]));
        assert_eq!(identity["no_new_privs"], true);
        assert_eq!(identity["umask"], 0o077);
        jail.end();
    }
    Ok(())
}

fn nothing_works_that_must_not() -> Outcome {
    for words in WAYS {
        let host = Host::new();
        let jail = start(&host, words);
        let first = !words.is_empty();
        let expected = json!({
            "read /etc/shadow": "NotFound",
            "read /../etc/shadow": "NotFound",
            "read /proc": "NotFound",
            "write /kernel": "ReadOnlyFilesystem",
            "write the program": "PermissionDenied",
            "remove /kernel": "ResourceBusy",
            "rename over /kernel": "ResourceBusy",
            "write /disk": null,
            "make a device": "PermissionDenied",
            "make a file in /dev": "ReadOnlyFilesystem",
            "make a link and follow it": "FilesystemLoop",
            "run what it wrote": "PermissionDenied",
            "open /dev/kvm": null,
            "read /dev/urandom": null,
            "mount": "PermissionDenied",
            "leave the root": "PermissionDenied",
            "become root": "PermissionDenied",
            "leave the group": "PermissionDenied",
            "raise a limit": "PermissionDenied",
            "rename the host": "PermissionDenied",
            // Process 1 of its own namespace is itself, which a default action does not end.
            "signal process 1 of the host": if first { Value::Null } else { json!("PermissionDenied") },
            "reach out": "NetworkUnreachable",
            "reach itself": "NetworkUnreachable",
        });
        assert_eq!(jail.seen["tries"], expected);
        jail.end();
    }
    Ok(())
}

fn the_host_sees_the_same() -> Outcome {
    for words in WAYS {
        let host = Host::new();
        let jail = start(&host, words);
        assert_eq!(jail.status("Uid"), format!("{UID} {UID} {UID} {UID}"));
        assert_eq!(jail.status("Gid"), format!("{GID} {GID} {GID} {GID}"));
        assert_eq!(jail.status("Groups"), "");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(jail.status(set), "0000000000000000", "{set}");
        }
        assert_eq!(jail.status("NoNewPrivs"), "1");
        assert_eq!(jail.status("SigBlk"), "0000000000000000");
        assert_eq!(jail.proc("environ"), "");
        // Its mounts: nothing of the host's.
        let mounts = jail.proc("mountinfo");
        let mounts: BTreeMap<&str, &str> = mounts
            .lines()
            .map(|line| {
                let mut parts = line.split(' ').skip(4);
                (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
            })
            .collect();
        let program = format!("/{}", program_name());
        for (at, options) in [
            ("/", "rw,nosuid,nodev,noexec,relatime,nosymfollow"),
            ("/dev", "ro,nosuid,noexec,relatime"),
            ("/disk", "rw,nosuid,nodev,noexec,relatime,nosymfollow"),
            ("/kernel", "ro,nosuid,nodev,noexec,relatime,nosymfollow"),
            (&program, "ro,nosuid,nodev,relatime"),
        ] {
            assert_eq!(mounts.get(at), Some(&options), "{at} of {mounts:?}");
        }
        assert_eq!(mounts.len(), 5, "{mounts:?}");
        // The host sees nothing of them.
        assert!(!fs::read_to_string("/proc/self/mountinfo")?.contains("secovia-jailer-"));
        jail.end();
    }
    Ok(())
}

fn the_namespaces_are_its_own() -> Outcome {
    for words in WAYS {
        let host = Host::new();
        let jail = start(&host, words);
        for kind in ["mnt", "ipc", "uts", "net", "cgroup", "pid", "user"] {
            let own = fs::read_link(format!("/proc/self/ns/{kind}"))?
                .display()
                .to_string();
            let shared = kind == "user" || kind == "pid" && words.is_empty();
            assert_eq!(jail.link(&format!("ns/{kind}")) == own, shared, "{kind}");
        }
        let pid = if words.is_empty() { jail.pid } else { 1 };
        assert_eq!(jail.seen["identity"]["pid"], pid);
        // Of the network there is the loop device, and it is down.
        let devices = jail.proc("net/dev");
        assert_eq!(devices.lines().skip(2).count(), 1, "{devices}");
        jail.end();
    }
    Ok(())
}

fn a_process_of_its_own_is_the_callers_child() -> Outcome {
    let host = Host::new();
    let jail = start(&host, &["--new-pid-ns"]);
    assert_eq!(jail.status("PPid"), std::process::id().to_string());
    assert_eq!(jail.status("NSpid"), format!("{} 1", jail.pid));
    assert_eq!(jail.end(), (Some(0), Some(witness::HEARD.into())));
    Ok(())
}

fn only_kept_descriptors_come_through() -> Outcome {
    for words in WAYS {
        let host = Host::new();
        let file = fs::File::open(host.path("kernel"))?;
        // Two that outlive exec; the first is kept, the second is not.
        let (kept, lost) = (rustix::io::dup(&file)?, rustix::io::dup(&file)?);
        let mut command = host.command();
        command
            .args(words)
            .args(["--keep-fd", &kept.as_raw_fd().to_string()]);
        let jail = Jailed::run(&host, command, &[]);
        assert_eq!(jail.seen["descriptors"], json!([0, 1, 2, kept.as_raw_fd()]));
        jail.end();
        drop((kept, lost));
        let output = host.command().args(["--keep-fd", "999"]).output()?;
        assert_eq!(output.status.code(), Some(1));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            errors.contains("descriptor 999 is not open; hand it to the jailer open"),
            "{errors}"
        );
    }
    Ok(())
}

fn a_demon_has_no_terminal() -> Outcome {
    for words in WAYS {
        let host = Host::new();
        let mut child = host
            .command()
            .args(words)
            .args(["--daemonize", "--", WITNESS, witness::LINGER])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let pid: i32 = loop {
            // There whole or not at all.
            match fs::read_to_string(host.machine().join("vmm.pid")) {
                Ok(text) => break text.trim_end().parse()?,
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(2)),
            }
        };
        // The streams of the jailer end when the VMM has let go of them, while it lingers.
        let output = std::io::read_to_string(child.stdout.take().ok_or("no output")?)?;
        let errors = std::io::read_to_string(child.stderr.take().ok_or("no errors")?)?;
        assert_eq!((output.as_str(), errors.as_str()), ("", ""));
        for fd in 0..3 {
            let link = fs::read_link(format!("/proc/{pid}/fd/{fd}"))?;
            assert_eq!(link.to_str(), Some("/dev/null"), "{fd}");
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let session = stat
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().nth(3));
        assert_eq!(session, Some(pid.to_string().as_str()), "{stat}");
        let target = rustix::process::Pid::from_raw(pid).ok_or("no process")?;
        rustix::process::kill_process(target, rustix::process::Signal::KILL)?;
        child.wait()?;
        if !words.is_empty() {
            reap(pid);
        }
    }
    Ok(())
}

fn a_network_namespace_can_be_given() -> Outcome {
    let (say, hear) = std::sync::mpsc::channel();
    let (let_go, wait) = std::sync::mpsc::channel::<()>();
    // A thread of its own has the namespace.
    let holder = std::thread::spawn(move || {
        sys::unshare(libc::CLONE_NEWNET).unwrap();
        say.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
        let _ = wait.recv();
    });
    let path = format!("/proc/{}/task/{}/ns/net", std::process::id(), hear.recv()?);
    for words in WAYS {
        let host = Host::new();
        let jail = start(&host, &[&["--netns", &path], words].concat());
        assert_eq!(jail.link("ns/net"), fs::read_link(&path)?.display().to_string());
        jail.end();
    }
    let _ = let_go.send(());
    let _ = holder.join();
    for (file, expected) in [
        ("/proc/self/ns/uts", "give the file of a network namespace"),
        ("/etc/hostname", "it is no namespace"),
        ("/no/such", "No such file or directory"),
    ] {
        let host = Host::new();
        let before = host.snapshot();
        let output = host.command().args(["--netns", file]).output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains(expected), "{file}: {errors}");
        assert_eq!(host.snapshot(), before);
    }
    Ok(())
}

fn devices_can_be_added() -> Outcome {
    let there = |path: &&str| fs::metadata(path).is_ok();
    let [tun, faults] = ["/dev/net/tun", "/dev/userfaultfd"];
    if ![tun, faults].iter().all(there) {
        skip(
            "devices_can_be_added",
            "the host has no /dev/net/tun or no /dev/userfaultfd",
        );
        return Ok(());
    }
    let host = Host::new();
    let jail = start(&host, &["--device", "tun", "--device", "userfaultfd"]);
    for path in [tun, faults] {
        assert_eq!(
            jail.seen["files"][path],
            json!(["device", UID, GID, "0600"]),
            "{path}"
        );
    }
    assert_eq!(jail.seen["files"]["/dev/net"], json!(["folder", 0, 0, "0755"]));
    jail.end();
    Ok(())
}

fn limits_hold() -> Outcome {
    for words in WAYS {
        let host = Host::new();
        let jail = start(&host, words);
        assert_eq!(jail.seen["limits"]["no-file"], json!([2048, 2048]));
        assert_eq!(jail.seen["limits"]["core"], json!([0, 0]));
        jail.end();
        let limits = [
            "--resource-limit",
            "no-file=64",
            "--resource-limit",
            "fsize=1048576",
        ];
        let jail = start(&Host::new(), &[&limits, words].concat());
        assert_eq!(jail.seen["limits"]["no-file"], json!([64, 64]));
        assert_eq!(jail.seen["limits"]["fsize"], json!([1_048_576, 1_048_576]));
        jail.end();
    }
    Ok(())
}

fn a_machine_runs_once() -> Outcome {
    for words in WAYS {
        let host = Host::new();
        let jail = start(&host, words);
        let before = host.snapshot();
        let output = host.command().output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        let expected = format!("process {} runs in this jail; end it first", jail.pid);
        assert!(errors.contains(&expected), "{errors}");
        assert_eq!(host.snapshot(), before);
        jail.end();
    }
    Ok(())
}

/// What a confined caller needs to have: these, and no others.
fn few_capabilities_are_enough() -> Outcome {
    let few = CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FOWNER
        | CapabilitySet::MKNOD
        | CapabilitySet::SETGID
        | CapabilitySet::SETPCAP
        | CapabilitySet::SETUID
        | CapabilitySet::SYS_ADMIN;
    // A thread's bounding set is its own, and its children's.
    let confined = std::thread::spawn(move || {
        for bit in 0..64 {
            let one = CapabilitySet::from_bits_retain(1 << bit);
            if !few.contains(one) {
                let _ = rustix::thread::remove_capability_from_bounding_set(one);
            }
        }
        there_is_nothing_but_what_was_named()?;
        a_machine_runs_once()
    });
    confined.join().map_err(|_| "see above")?
}

fn a_jail_can_be_used_again() -> Outcome {
    let host = Host::new();
    for words in [WAYS, WAYS].concat() {
        // What the one before has left in its root stays, but is data and no more.
        fs::remove_file(host.machine().join("root/link")).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        let jail = start(&host, words);
        assert_eq!(jail.seen["tries"]["run what it wrote"], "PermissionDenied");
        jail.end();
    }
    Ok(())
}

/// A jailer that is killed can undo nothing; what it leaves must not be in the way.
fn killed_at_any_moment_it_starts_the_next_time() -> Outcome {
    for words in WAYS {
        let host = Host::new();
        // From before its first step to after its last, which takes some milliseconds.
        for step in 0..40 {
            let mut command = host.command();
            command
                .args(host.grant("kernel", "kernel"))
                .args(host.grant("disk", "disk:rw"))
                .args(words)
                .args(["--", WITNESS, witness::LINGER])
                .stdout(Stdio::null());
            let mut child = command.spawn()?;
            std::thread::sleep(std::time::Duration::from_micros(150 * step));
            child.kill()?;
            child.wait()?;
            // A process of its own ends with its jailer, unless it was let go; then it is the caller's.
            let recorded = host.machine().join("vmm.pid");
            let text = fs::read_to_string(&recorded).unwrap_or_default();
            // Read once: after that the number may be another process's.
            let _ = fs::remove_file(recorded);
            if let (false, Ok(pid)) = (words.is_empty(), text.trim_end().parse())
                && pid != child.id() as i32
                && let Some(target) = rustix::process::Pid::from_raw(pid)
                && rustix::process::kill_process(target, rustix::process::Signal::KILL).is_ok()
            {
                reap(pid);
            }
        }
        let _ = fs::remove_file(host.machine().join("root/link"));
        let jail = start(&host, words);
        assert_eq!(jail.seen["identity"]["user"], json!([UID, UID]));
        jail.end();
    }
    Ok(())
}

fn a_dry_run_touches_nothing() -> Outcome {
    let host = Host::new();
    let before = host.snapshot();
    for (words, start) in [
        (&["--dry-run"][..], "in this process"),
        (&["--dry-run", "--json"], "{"),
    ] {
        let output = host.command().args(words).output()?;
        assert_eq!(output.status.code(), Some(0));
        let text = String::from_utf8(output.stdout)?;
        assert!(text.starts_with(start), "{text}");
        assert!(text.contains(&*host.machine().to_string_lossy()), "{text}");
    }
    assert_eq!(host.snapshot(), before);
    Ok(())
}

fn a_cgroup_of_version_1_is_joined_and_undone() -> Outcome {
    let name = "a_cgroup_of_version_1_is_joined_and_undone";
    let mount = std::path::Path::new("/sys/fs/cgroup/pids");
    if !mount.join("cgroup.procs").exists() {
        skip(name, "no cgroup hierarchy of version 1 with pids");
        return Ok(());
    }
    let words = ["--cgroup", "pids.max=77", "--cgroup-version", "1"];
    cgroup(mount, "pids.max=77", &words)
}

fn a_cgroup_of_version_2_is_joined_and_undone() -> Outcome {
    let name = "a_cgroup_of_version_2_is_joined_and_undone";
    let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(std::path::Path::new);
    let Some(mount) = mounts
        .into_iter()
        .find(|mount| mount.join("cgroup.controllers").exists())
    else {
        skip(name, "no cgroup2 file system is mounted");
        return Ok(());
    };
    // A setting of the cgroup itself: the hierarchy may have no controllers.
    let words = ["--cgroup", "cgroup.max.depth=3", "--cgroup-version", "2"];
    cgroup(mount, "cgroup.max.depth=3", &words)
}

/// A machine's cgroup below `mount`: there with its setting while the machine is, and gone where a start fails.
fn cgroup(mount: &std::path::Path, setting: &str, words: &[&str]) -> Outcome {
    let parent = format!("secovia-test-{}", std::process::id());
    let words = [words, &["--parent-cgroup", &parent]].concat();
    let folder = mount.join(&parent).join("m-1");
    let (file, value) = setting.split_once('=').ok_or("no setting")?;
    let home = fs::read_to_string("/proc/self/cgroup")?;
    for way in WAYS {
        let host = Host::new();
        let jail = start(&host, &[&words, way].concat());
        assert_eq!(fs::read_to_string(folder.join(file))?.trim_end(), value);
        let inside = fs::read_to_string(folder.join("cgroup.procs"))?;
        assert_eq!(inside, format!("{}\n", jail.pid));
        // Twice is refused, by what is in it.
        let output = Host::new().command().args(&words).output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            errors.contains("processes or cgroups are in it; end them first"),
            "{errors}"
        );
        jail.end();
        assert!(folder.exists());
        // The next one takes it anew, and what fails late leaves nothing.
        let host = Host::new();
        let before = host.snapshot();
        let output = host
            .command()
            .args([&words, way].concat())
            .args(["--resource-limit", "no-file=4611686018427387904"])
            .output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            errors.contains("limit no-file to 4611686018427387904"),
            "{errors}"
        );
        assert!(!errors.contains("left behind"), "{errors}");
        assert_eq!(host.snapshot(), before);
        assert!(!folder.exists());
    }
    assert_eq!(fs::read_to_string("/proc/self/cgroup")?, home);
    fs::remove_dir(mount.join(parent))?;
    Ok(())
}
