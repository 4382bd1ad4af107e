//! Cgroups of version 2 with their controllers, which need a host that has them. Needs root.

mod common;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use common::{Host, Jailed, Outcome, skip};

const MOUNT: &str = "/sys/fs/cgroup";

fn main() -> ExitCode {
    common::main(&[
        (
            "limits_are_set_before_the_first_process_is_in",
            limits_are_set_before_the_first_process_is_in,
        ),
        (
            "what_cannot_be_set_is_named_and_undone",
            what_cannot_be_set_is_named_and_undone,
        ),
    ])
}

/// Whether the hierarchy is the unified one and has what is needed.
fn unified(name: &str) -> bool {
    let controllers = fs::read_to_string(Path::new(MOUNT).join("cgroup.controllers")).unwrap_or_default();
    let there = ["memory", "pids", "cpu"]
        .iter()
        .all(|wanted| controllers.split_whitespace().any(|known| known == *wanted));
    if !there {
        skip(
            name,
            "no cgroup2 file system with memory, pids and cpu on /sys/fs/cgroup",
        );
    }
    there
}

fn limits_are_set_before_the_first_process_is_in() -> Outcome {
    if !unified("limits_are_set_before_the_first_process_is_in") {
        return Ok(());
    }
    for way in [&[][..], &["--new-pid-ns"]] {
        let host = Host::new();
        let settings = ["memory.max=268435456", "pids.max=64", "cpu.weight=50"];
        let mut words = vec!["--parent-cgroup", "secovia.test/vms"];
        for setting in settings {
            words.extend(["--cgroup", setting]);
        }
        words.extend(way);
        let jail = Jailed::start(&host, &words);
        let folder = Path::new(MOUNT).join("secovia.test/vms/m-1");
        for setting in settings {
            let (file, value) = setting.split_once('=').unwrap_or_default();
            assert_eq!(fs::read_to_string(folder.join(file))?.trim_end(), value, "{file}");
        }
        assert_eq!(jail.proc("cgroup"), "0::/secovia.test/vms/m-1\n");
        assert_eq!(
            fs::read_to_string(folder.join("cgroup.procs"))?,
            format!("{}\n", jail.pid)
        );
        // What it has was counted from its first page on.
        let current: u64 = fs::read_to_string(folder.join("memory.current"))?
            .trim_end()
            .parse()?;
        assert!(current > 0);
        jail.end();
        fs::remove_dir(&folder)?;
    }
    fs::remove_dir(Path::new(MOUNT).join("secovia.test/vms"))?;
    fs::remove_dir(Path::new(MOUNT).join("secovia.test"))?;
    Ok(())
}

fn what_cannot_be_set_is_named_and_undone() -> Outcome {
    if !unified("what_cannot_be_set_is_named_and_undone") {
        return Ok(());
    }
    for (setting, expected) in [
        (
            "memory.max=lots",
            "write \"lots\" to /sys/fs/cgroup/secovia.wrong/m-1/memory.max: Invalid argument",
        ),
        ("memory.nothing=1", "no such file"),
        ("nothing.max=1", "controller nothing:"),
    ] {
        for way in [&[][..], &["--new-pid-ns"]] {
            let host = Host::new();
            let before = host.snapshot();
            let output = host
                .command()
                .args(["--parent-cgroup", "secovia.wrong", "--cgroup", setting])
                .args(way)
                .output()?;
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{errors}");
            assert!(errors.contains(expected), "{setting}: {errors}");
            assert_eq!(host.snapshot(), before);
            assert!(!Path::new(MOUNT).join("secovia.wrong").exists(), "{setting}");
        }
    }
    Ok(())
}
