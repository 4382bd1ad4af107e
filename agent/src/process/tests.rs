use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use secovia_vmm_api::{BootSourceSpec, VmSpec};

use super::*;
use crate::records::VmId;

const LIMITS: Limits = Limits {
    cpus: 2,
    cpu_millis: 2_000,
    memory_mib: 64,
    io: IoLimits {
        read: None,
        write: None,
    },
};

const UID: u32 = 900_007;

fn machine() -> Machine {
    Machine {
        spec: VmSpec {
            boot_source: Some(BootSourceSpec {
                kernel_image_path: "/vmlinux".into(),
                ..BootSourceSpec::default()
            }),
            ..VmSpec::default()
        },
        netns: None,
        files: vec![JailFile::read_only("vmlinux", "/boot/k".into())],
    }
}

/// Where a script stands in for the jailer. What the real one does is tested with the whole agent.
struct Host {
    dir: tempfile::TempDir,
    launcher: Launcher,
}

impl Host {
    fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let jailer = dir.path().join("jailer.sh");
        fs::write(&jailer, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&jailer, fs::Permissions::from_mode(0o755)).unwrap();
        let vmm = dir.path().join("the-vmm");
        let launcher = Launcher {
            jailer,
            dirs: Dirs::new(&dir.path().join("run"), &dir.path().join("state"), &vmm),
            vmm,
            cgroups: Cgroups::at(&dir.path().join("none")),
            core_scheduling: false,
        };
        Self { dir, launcher }
    }

    fn launch(&self, id: VmId) -> Result<Vmm, LaunchError> {
        self.launcher.launch(id, UID, &machine(), LIMITS)
    }
}

/// Starts what plays the VMM and writes its number down, as the jailer does: `$10` is the base, `$2` the identifier.
const STARTS: &str = "jail=${10}/the-vmm/$2; mkdir -p $jail/root; sleep 60 & echo $! > $jail/vmm.pid";

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_jailer_gets_what_the_vm_needs_and_nothing_else() {
    let host = Host::new(&format!(
        "printf '%s\\n' \"$@\"; echo $$ >&2; ls /proc/self/fd | tr '\\n' ' ' >&2; env >&2\n{STARTS}"
    ));
    let id = VmId::random().unwrap();
    let vmm = host.launch(id).unwrap();
    let place = host.launcher.dirs.place(id);
    let words = fs::read_to_string(place.console()).unwrap();
    let at = |name: &str| host.dir.path().join(name).display().to_string();
    let expected = format!(
        "--id {id} --exec-file {} --uid {UID} --gid {UID} --chroot-base-dir {} --resource-limit no-file=1024 \
         --resource-limit fsize=67108864 --file {}:vm.json --file /boot/k:vmlinux --new-pid-ns -- \
         --config-file /vm.json --no-api --id {id} --console-limit 1048576",
        at("the-vmm"),
        at("run/jail"),
        place.config().display(),
    );
    assert_eq!(words.lines().collect::<Vec<_>>().join(" "), expected);
    let said = fs::read_to_string(place.errors()).unwrap();
    let said: Vec<&str> = said.lines().collect();
    assert_eq!(fs::read_to_string(place.jailer_pid()).unwrap().trim(), said[0]);
    // `ls` itself has the fourth open; the shell gives itself what else there is.
    let descriptors: Vec<&str> = said[1].split(' ').take(4).collect();
    assert_eq!(descriptors, ["0", "1", "2", "3"], "nothing leaks: {said:?}");
    assert!(
        said.iter()
            .all(|line| !line.contains("CARGO") && !line.contains("HOME")),
        "{said:?}"
    );
    let mode = |path: &PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&place.runtime), mode(&place.config())), (0o700, 0o444));
    assert_eq!(
        serde_json::from_slice::<VmSpec>(&fs::read(place.config()).unwrap()).unwrap(),
        machine().spec
    );

    let begun = Instant::now();
    vmm.kill().unwrap();
    vmm.wait().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1));
    vmm.kill().unwrap();
    place.clear_runtime().unwrap();
    place.clear_runtime().unwrap();
    assert!(!place.runtime.exists() && !place.jail.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_jailer_that_fails_is_quoted() {
    for (script, words) in [
        (
            "echo first >&2; echo 'jailer: mount /x: no' >&2; exit 1",
            "exit status: 1); it said: jailer: mount /x: no",
        ),
        ("kill -9 $$", "(signal: 9 (SIGKILL))"),
        ("true", "left no VMM"),
    ] {
        let error = Host::new(script)
            .launch(VmId::random().unwrap())
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{script}: {error}");
    }
    let host = Host::new("");
    fs::remove_file(&host.launcher.jailer).unwrap();
    let error = host.launch(VmId::random().unwrap()).unwrap_err().to_string();
    assert!(
        error.contains("run jailer") && error.contains("check `jailer`"),
        "{error}"
    );
}

/// What a jailer started that was killed over it is ended, and no zombie stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_killed_jailer_leaves_no_process() {
    let host = Host::new(&format!("{STARTS}\nkill -9 $$"));
    let id = VmId::random().unwrap();
    host.launch(id).unwrap_err();
    let pid = fs::read_to_string(host.launcher.dirs.place(id).vmm_pid()).unwrap();
    let begun = Instant::now();
    loop {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        // Its parent is whoever takes orphans here, which may be slow to reap.
        if stat.is_empty() || stat.contains(") Z ") {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{stat}");
        std::thread::sleep(Duration::from_millis(5));
    }
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

#[test]
fn control_groups_are_used_where_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let id = VmId::random().unwrap();
    fs::write(dir.path().join("cgroup.controllers"), "cpuset io cpu").unwrap();
    let without = Cgroups::at(dir.path()).create(id, LIMITS, dir.path());
    assert!(without.unwrap().is_none(), "without the controllers");
    assert!(!dir.path().join("secovia.slice").exists());

    fs::write(dir.path().join("cgroup.controllers"), "cpuset cpu io memory pids").unwrap();
    let cgroups = Cgroups::at(dir.path());
    assert_eq!(
        fs::read_to_string(dir.path().join("cgroup.subtree_control")).unwrap(),
        "+cpu +memory +pids +io"
    );
    let group = dir.path().join("secovia.slice").join(id.to_string());
    // A group whose files cannot be written holds nobody.
    let error = cgroups.create(id, LIMITS, dir.path()).unwrap_err().to_string();
    assert!(error.contains("cgroup.procs"), "{error}");

    fs::create_dir_all(&group).unwrap();
    fs::write(group.join("cgroup.procs"), "").unwrap();
    assert!(cgroups.create(id, LIMITS, dir.path()).unwrap().is_some());
    let text = |name: &str| fs::read_to_string(group.join(name)).unwrap();
    assert_eq!(text("memory.max"), (128u64 << 20).to_string());
    assert_eq!(
        (
            text("memory.oom.group").as_str(),
            text("cpu.weight").as_str(),
            text("pids.max").as_str()
        ),
        ("1", "200", "34")
    );
    assert!(!group.join("io.max").exists(), "nobody asked for it");
    assert_eq!(cgroups.list(), [id]);
}

#[test]
fn links_do_not_lead_out_of_a_place() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = Dirs::new(dir.path(), &dir.path().join("state"), "/usr/bin/the-vmm".as_ref());
    let place = dirs.place(VmId::random().unwrap());
    let outside = dir.path().join("outside");
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("keep"), "").unwrap();
    for dir in [&place.runtime, &place.jail] {
        fs::create_dir_all(dir).unwrap();
        symlink(&outside, dir.join("link")).unwrap();
    }
    place.clear_runtime().unwrap();
    assert!(outside.join("keep").exists() && !place.jail.exists());
}
