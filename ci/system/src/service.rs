//! A host with a systemd of its own: namespaces and a control group, as a container has them, with this tree's agent
//! installed as the package would.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::given;

/// The unit under test.
const UNIT: &str = include_str!("../../../agent/secovia-agent.service");
const SYSTEMD: &str = "/lib/systemd/systemd";
const CGROUPS: &str = "/sys/fs/cgroup";
/// Process 1 of a new PID namespace joins the control group alone, since a group that has processes of its own can hand
/// nothing down, and makes it the root of its own; then it becomes systemd. What is read-only tells that systemd that the
/// host's devices are not its own.
const MAKE: &str = "exec unshare --pid --fork --kill-child sh -ec '
    echo 0 >\"$0/cgroup.procs\"
    exec unshare --cgroup --mount --ipc --propagation private sh -ec \"
        mount -t proc proc /proc
        umount /sys/fs/cgroup
        mount -o remount,bind,ro /sys
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
        mount -t tmpfs tmpfs /run
        exec env -i container=secovia-test /lib/systemd/systemd --unit=basic.target --show-status=no
    \"' \"$0\"";
/// Long enough for an emulated host that is busy.
const PATIENCE: Duration = Duration::from_secs(90);

/// Why there can be none here; `None` where there can.
pub fn missing() -> Option<&'static str> {
    if std::env::var_os("SECOVIA_LAB").is_none() {
        Some("it installs programs and a unit: only in the lab")
    } else if !Path::new(SYSTEMD).exists() {
        Some("there is no systemd")
    } else if !Path::new(CGROUPS).join("cgroup.controllers").exists() {
        Some("there are no control groups of version 2")
    } else {
        None
    }
}

/// The host. Everything that runs in it ends with it.
#[derive(Debug)]
pub struct Host {
    outer: Child,
    /// Its process 1, as this host sees it.
    init: u32,
    cgroup: PathBuf,
}

impl Host {
    /// Installs the agent and boots.
    pub fn boot() -> Self {
        install().expect("install the agent");
        let cgroup = Path::new(CGROUPS).join("secovia-test-host");
        fs::create_dir_all(&cgroup).expect("make a control group");
        let mut outer = Command::new("sh")
            .args(["-c", MAKE])
            .arg(&cgroup)
            .stdin(Stdio::null())
            .spawn()
            .expect("run sh");
        let begun = Instant::now();
        let init = loop {
            let pid = outer.id();
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            let child = children
                .unwrap_or_default()
                .split_whitespace()
                .find_map(|child| child.parse::<u32>().ok());
            if let Some(child) = child
                && fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|name| name == "systemd\n")
            {
                break child;
            }
            assert!(begun.elapsed() < PATIENCE, "no systemd, {:?}", outer.try_wait());
            thread::sleep(Duration::from_millis(50));
        };
        let host = Self { outer, init, cgroup };
        while !host
            .run("systemctl", &["is-active", "basic.target"])
            .status
            .success()
        {
            assert!(
                begun.elapsed() < PATIENCE,
                "{:?}",
                host.run("systemctl", &["list-jobs"])
            );
            thread::sleep(Duration::from_millis(200));
        }
        host
    }

    /// Runs a command in it, as root.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Output {
        Command::new("nsenter")
            .args(["--target", &self.init.to_string()])
            .args(["--cgroup", "--mount", "--pid", "--ipc", "--", program])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("run nsenter")
    }

    /// The output of a command that has to succeed.
    pub fn must(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.run(program, arguments);
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {output:?}\n{}",
            self.journal()
        );
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// What the unit said of late.
    pub fn journal(&self) -> String {
        let arguments = ["--unit=secovia-agent", "--no-pager", "--lines=60", "--output=cat"];
        String::from_utf8_lossy(&self.run("journalctl", &arguments).stdout).into_owned()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Process 1 takes all others with it.
        let _ = Command::new("kill")
            .args(["-KILL", &self.init.to_string()])
            .status();
        let _ = self.outer.wait();
        remove_groups(&self.cgroup);
    }
}

/// Empty control groups, the lowest first.
fn remove_groups(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_groups(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}

/// Puts everything where the package would.
fn install() -> io::Result<()> {
    let programs = [
        ("SECOVIA_AGENT", "secovia-agent"),
        ("SECOVIA_CLI", "secovia"),
        ("SECOVIA_VMM", "secovia-vmm"),
        ("SECOVIA_JAILER", "secovia-jailer"),
    ];
    for (variable, name) in programs {
        put(&given(variable), &Path::new("/usr/bin").join(name), 0o755)?;
    }
    let lib = Path::new("/usr/lib/secovia");
    fs::create_dir_all(lib)?;
    put(&given("SECOVIA_KERNEL"), &lib.join("vmlinux"), 0o644)?;
    put(&given("SECOVIA_INITRD"), &lib.join("initrd.cpio"), 0o644)?;
    fs::create_dir_all("/etc/secovia")?;
    fs::write("/etc/secovia/agent.toml", "socket_group = \"root\"\n")?;
    fs::write("/etc/systemd/system/secovia-agent.service", UNIT)
}

fn put(from: &Path, to: &Path, mode: u32) -> io::Result<()> {
    fs::copy(from, to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode))
}
