use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use secovia_vmm_api::{BootSourceSpec, VmSpec};

use super::*;
use crate::records::VmId;

const LIMITS: Limits = Limits {
    cpus: 2,
    memory_mib: 64,
};

fn spec() -> VmSpec {
    VmSpec {
        boot_source: BootSourceSpec {
            kernel_image_path: "/k".into(),
            ..BootSourceSpec::default()
        },
        ..VmSpec::default()
    }
}

/// A program with the name of our own that ignores its arguments and does `what`.
struct Host {
    dir: tempfile::TempDir,
    cgroups: Cgroups,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cgroups = Cgroups::at(&dir.path().join("none"));
        Self { dir, cgroups }
    }

    fn script(&self, what: &str) -> PathBuf {
        let path = self.dir.path().join("vmm.sh");
        fs::write(&path, format!("#!/bin/sh\n{what}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn place(&self, id: VmId) -> Place {
        Place::new(self.dir.path(), &self.dir.path().join("state"), id)
    }

    fn launch(&self, program: &Path, id: VmId) -> Result<Vmm, LaunchError> {
        launch(program, id, &self.place(id), &spec(), &self.cgroups, LIMITS)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_vmm_is_started_alone_and_its_end_is_told() {
    let host = Host::new();
    let id = VmId::random().unwrap();
    let program = host
        .script("echo out; echo err >&2; ls /proc/self/fd | tr '\\n' ' '; cat /proc/$$/stat; pwd; exit 4");
    let vmm = host.launch(&program, id).unwrap();
    let pid = vmm.pid();
    assert_eq!(vmm.wait().await.unwrap(), Ended::Exited(4));
    let place = host.place(id);
    assert_eq!(fs::read_to_string(place.pid()).unwrap(), format!("{pid}\n"));
    assert_eq!(fs::read_to_string(place.errors()).unwrap(), "err\n");
    let console = fs::read_to_string(place.console()).unwrap();
    let lines: Vec<&str> = console.lines().collect();
    assert_eq!(lines[0], "out");
    assert_eq!(
        lines[1].split(' ').take(4).collect::<Vec<_>>(),
        ["0", "1", "2", "3"],
        "nothing leaks: {console}"
    );
    let stat: Vec<&str> = lines[1].rsplit_once(") ").unwrap().1.split(' ').collect();
    assert_eq!(stat[3].parse(), Ok(pid), "leads its own session");
    assert_eq!(lines[2], "/");
    assert_eq!(
        fs::metadata(&place.runtime).unwrap().permissions().mode() & 0o777,
        0o700
    );
    assert_eq!(
        serde_json::from_slice::<VmSpec>(&fs::read(place.config()).unwrap()).unwrap(),
        spec()
    );
    place.clear_runtime().unwrap();
    place.clear_runtime().unwrap();
    assert!(!place.runtime.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_kill_is_seen_at_once() {
    let host = Host::new();
    let vmm = host
        .launch(&host.script("exec sleep 60"), VmId::random().unwrap())
        .unwrap();
    let begun = Instant::now();
    vmm.kill().unwrap();
    assert_eq!(vmm.wait().await.unwrap(), Ended::Signaled(9));
    assert!(begun.elapsed() < Duration::from_secs(1));
    vmm.kill().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_program_that_is_none_is_named() {
    let host = Host::new();
    let id = VmId::random().unwrap();
    let error = host
        .launch(&host.dir.path().join("missing"), id)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("missing") && error.contains("check `vmm`"),
        "{error}"
    );
}

#[test]
fn every_end_has_words() {
    for (ended, words) in [
        (Ended::Exited(0), "powered off"),
        (Ended::Exited(1), "VMM failed"),
        (Ended::Exited(2), "refused its configuration"),
        (Ended::Exited(3), "reset"),
        (Ended::Exited(4), "panicked"),
        (Ended::Exited(5), "in time"),
        (Ended::Exited(77), "status 77"),
        (Ended::Signaled(9), "signal 9 (SIGKILL)"),
        (Ended::Signaled(64), "signal 64"),
        (Ended::Unknown, "earlier agent"),
    ] {
        assert!(
            ended.describe().contains(words),
            "{ended:?}: {}",
            ended.describe()
        );
    }
}

/// `sleep` plays the VMM: its words are on the command line, behind a number that it takes for a time.
fn sleeper(name: &Path, words: &[&str]) -> std::process::Child {
    // The shell keeps the words; `exec -a` is not everywhere, a linked busybox neither.
    Command::new(name)
        .args(["-c", "read x", "sh"])
        .args(words)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn only_processes_that_are_the_vmm_are_believed() {
    let host = Host::new();
    let runtime = host.dir.path();
    let vmm = host.dir.path().join("the-vmm");
    fs::copy("/bin/sh", &vmm).unwrap();
    let other = host.dir.path().join("other");
    fs::copy("/bin/sh", &other).unwrap();
    let ids: Vec<VmId> = (0..4).map(|_| VmId::random().unwrap()).collect();
    let config = |id: VmId| host.place(id).config().display().to_string();
    let mut children = vec![
        sleeper(
            &vmm,
            &[
                "--config-file",
                &config(ids[0]),
                "--no-api",
                "--id",
                &ids[0].to_string(),
            ],
        ),
        // Another program, another identifier, another agent's configuration.
        sleeper(
            &other,
            &["--config-file", &config(ids[1]), "--id", &ids[1].to_string()],
        ),
        sleeper(
            &vmm,
            &["--config-file", &config(ids[2]), "--id", &ids[0].to_string()],
        ),
        sleeper(
            &vmm,
            &["--config-file", "/elsewhere/vm.json", "--id", &ids[3].to_string()],
        ),
    ];
    for (id, child) in ids.iter().zip(&children) {
        fs::create_dir_all(host.place(*id).runtime).unwrap();
        fs::write(host.place(*id).pid(), format!("{}\n", child.id())).unwrap();
    }
    // The children are programs of their own by now: spawn returns after exec.
    let expected = [Found {
        id: ids[0],
        pid: children[0].id(),
    }];
    assert_eq!(find_by_pid_files(&vmm, runtime).unwrap(), expected);
    assert_eq!(find_by_scan(&vmm, runtime).unwrap(), expected);
    // An upgrade replaced the program's file.
    fs::remove_file(&vmm).unwrap();
    assert_eq!(find_by_pid_files(&vmm, runtime).unwrap(), expected);
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(find_by_pid_files(&vmm, runtime).unwrap(), []);
    assert_eq!(find_by_scan(&vmm, runtime).unwrap(), []);
}

/// A process between fork and exec holds the lock: whoever looks waits for its number.
#[test]
fn a_pid_file_is_read_only_when_it_is_final() {
    let host = Host::new();
    let id = VmId::random().unwrap();
    let place = host.place(id);
    let vmm = host.dir.path().join("the-vmm");
    fs::copy("/bin/sh", &vmm).unwrap();
    fs::create_dir_all(&place.runtime).unwrap();
    fs::write(place.pid(), "").unwrap();
    let file = fs::OpenOptions::new().write(true).open(place.pid()).unwrap();
    let lock = Flock::lock(file, FlockArg::LockExclusive).unwrap();
    let config = place.config().display().to_string();
    let writer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        let child = sleeper(&vmm, &["--config-file", &config, "--id", &id.to_string()]);
        fs::write(place.pid(), format!("{}\n", child.id())).unwrap();
        drop(lock);
        child
    });
    let found = find_by_pid_files(Path::new("the-vmm"), host.dir.path()).unwrap();
    let mut child = writer.join().unwrap();
    assert_eq!(found, [Found { id, pid: child.id() }]);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn control_groups_are_used_where_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let id = VmId::random().unwrap();
    fs::write(dir.path().join("cgroup.controllers"), "cpuset io").unwrap();
    assert!(
        Cgroups::at(dir.path()).create(id, LIMITS).is_none(),
        "without the controllers"
    );
    assert!(!dir.path().join("secovia.slice").exists());

    fs::write(dir.path().join("cgroup.controllers"), "cpuset cpu io memory").unwrap();
    let cgroups = Cgroups::at(dir.path());
    assert_eq!(
        fs::read_to_string(dir.path().join("cgroup.subtree_control")).unwrap(),
        "+cpu +memory"
    );
    let group = dir.path().join("secovia.slice").join(id.to_string());
    fs::create_dir(&group).unwrap();
    fs::write(group.join("cgroup.procs"), "").unwrap();
    assert!(cgroups.create(id, LIMITS).is_some());
    assert_eq!(
        fs::read_to_string(group.join("memory.max")).unwrap(),
        (128u64 << 20).to_string()
    );
    assert_eq!(fs::read_to_string(group.join("cpu.weight")).unwrap(), "200");
    assert_eq!(cgroups.list(), [id]);
}

#[test]
fn links_do_not_lead_out_of_a_place() {
    let host = Host::new();
    let id = VmId::random().unwrap();
    let place = host.place(id);
    let outside = host.dir.path().join("outside");
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("keep"), "").unwrap();
    fs::create_dir_all(&place.runtime).unwrap();
    symlink(&outside, place.runtime.join("link")).unwrap();
    place.clear_runtime().unwrap();
    assert!(outside.join("keep").exists());
}
