//! What a VM's process is and has, once the jailer has locked it in, as the host sees it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use secovia_agent_api::{Vm, VmCreate, VmState, WaitUntil};
use secovia_agent_harness::{Programs, Settings, Testbed, exec, scenarios, sh};

const WAITS: &str = "while :; do sleep 0.05; done";

fn programs() -> Programs {
    Programs::fake(
        env!("CARGO_BIN_EXE_agent-under-test"),
        env!("CARGO_BIN_EXE_fake-vmm"),
        env!("CARGO_BIN_EXE_jailer-under-test"),
    )
}

async fn bed() -> Testbed {
    Testbed::with_image(&programs(), &Settings::default()).await
}

/// What the kernel says of a process, by the line's name.
fn status(vm: &Vm, name: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{}/status", vm.vmm_pid.unwrap())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':')
        .split_whitespace()
        .map(String::from)
        .collect()
}

fn user(vm: &Vm) -> u32 {
    status(vm, "Uid")[0].parse().unwrap()
}

/// The directory that is a VM's root, as the host sees it.
fn root(bed: &Testbed, vm: &Vm) -> PathBuf {
    bed.path("run/jail/fake-vmm").join(&vm.id).join("root")
}

/// Each VM is a user of its own, without rights, alone in its namespaces, with the files that it was given and no others.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_vm_is_locked_in() {
    let bed = bed().await;
    let client = bed.client();
    let mut create = sh("one", WAITS);
    create.disk_mib = Some(16);
    client.create_vm(&create).await.unwrap();
    client.create_vm(&sh("two", WAITS)).await.unwrap();
    let vms = [bed.running("one").await, bed.running("two").await];
    assert_ne!(user(&vms[0]), user(&vms[1]), "no two VMs are one user");
    let mut seen = BTreeSet::new();
    for vm in &vms {
        let uid = user(vm);
        assert!(bed.uids().contains(&uid));
        let ids = vec![uid.to_string(); 4];
        assert_eq!((status(vm, "Uid"), status(vm, "Gid")), (ids.clone(), ids));
        assert!(status(vm, "Groups").is_empty());
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status(vm, set), ["0000000000000000"], "{set}");
        }
        assert_eq!(status(vm, "NoNewPrivs"), ["1"]);
        assert_eq!(
            status(vm, "NSpid").last().unwrap(),
            "1",
            "it is alone in its namespace"
        );
        let proc = PathBuf::from(format!("/proc/{}", vm.vmm_pid.unwrap()));
        for kind in ["mnt", "ipc", "uts", "net", "pid", "cgroup"] {
            let own = fs::read_link(proc.join("ns").join(kind)).unwrap();
            assert_ne!(
                own,
                fs::read_link(Path::new("/proc/self/ns").join(kind)).unwrap(),
                "{kind}"
            );
            assert!(seen.insert(own), "{kind}: shared by two VMs");
        }
        let network = fs::read_to_string(proc.join("net/dev")).unwrap();
        assert!(
            network.lines().skip(2).all(|line| line.trim().starts_with("lo:")),
            "{network}"
        );
        assert_eq!(fs::read(proc.join("environ")).unwrap(), b"");
        let line = fs::read(proc.join("cmdline")).unwrap();
        let line = String::from_utf8(line).unwrap().replace('\0', " ");
        assert_eq!(
            line,
            format!(
                "/fake-vmm --config-file /vm.json --no-api --id {} --console-limit 1048576 ",
                vm.id
            )
        );

        let disk = (vm.name == "one").then_some("disk");
        let given = ["dev", "fake-vmm", "initrd", "rootfs", "vm.json", "vmlinux"];
        // What it made itself.
        let made = ["tmp", "vsock.sock"];
        let expected: BTreeSet<_> = given
            .into_iter()
            .chain(made)
            .chain(disk)
            .map(String::from)
            .collect();
        let inside = fs::read_dir(proc.join("root")).unwrap();
        let inside: BTreeSet<_> = inside
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(inside, expected);
        let devices = fs::read_dir(proc.join("root/dev")).unwrap();
        let devices: BTreeSet<_> = devices
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(devices, ["kvm", "urandom"].map(String::from).into());
        let mounts = fs::read_to_string(proc.join("mountinfo")).unwrap();
        for mount in mounts.lines() {
            let mut words = mount.split(' ').skip(4);
            let (at, options) = (words.next().unwrap(), words.next().unwrap());
            let options: Vec<&str> = options.split(',').collect();
            let has = |option| options.contains(&option);
            assert!(has("nosuid"), "{mount}");
            assert_eq!(has("noexec"), at != "/fake-vmm", "{mount}");
            assert_eq!(has("nodev"), at != "/dev", "{mount}");
            assert_eq!(has("rw"), ["/", "/disk"].contains(&at), "{mount}");
        }
        let limits = fs::read_to_string(proc.join("limits")).unwrap();
        for (limit, value) in [
            ("Max open files", "1024"),
            ("Max file size", "67108864"),
            ("Max core file size", "0"),
        ] {
            let line = limits.lines().find(|line| line.starts_with(limit)).unwrap();
            assert_eq!(
                line.split_whitespace().filter(|word| *word == value).count(),
                2,
                "{line}"
            );
        }
        let descriptors = fs::read_dir(proc.join("fd")).unwrap();
        for descriptor in descriptors {
            let path = fs::read_link(descriptor.unwrap().path()).unwrap();
            let known = ["/dev/null", "pipe:", "socket:", "anon_inode:"];
            let path = path.display().to_string();
            assert!(
                path.starts_with(bed.path("run/vms").to_str().unwrap())
                    || known.iter().any(|known| path.starts_with(known)),
                "{path}"
            );
        }
        let owner = |path: &Path| {
            let metadata = fs::symlink_metadata(path).unwrap();
            (
                metadata.uid(),
                metadata.gid(),
                metadata.permissions().mode() & 0o7777,
            )
        };
        let jail = root(&bed, vm);
        assert_eq!(owner(&jail), (uid, uid, 0o700));
        let folder = jail.parent().unwrap();
        assert_eq!(owner(folder), (0, 0, 0o700));
        assert_eq!(owner(&folder.join("vmm.pid")), (0, 0, 0o600));
        if disk.is_some() {
            let disk = bed.path("state/vms").join(&vm.id).join("disk.ext4");
            assert_eq!(owner(&disk), (uid, uid, 0o600));
        }
    }
    for vm in &vms {
        client.delete_vm(&vm.id, true).await.unwrap();
    }
    bed.assert_nothing_runs();
}

/// Nobody but root gets at what agent and VMs keep, and what VMs read is not theirs to write.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_kept_is_private() {
    let bed = bed().await;
    let mut create = sh("x", WAITS);
    create.disk_mib = Some(16);
    bed.client().create_vm(&create).await.unwrap();
    let vm = bed.running("x").await;
    let uid = user(&vm);
    let mut folders = vec![bed.path("state"), bed.path("run/vms"), bed.path("run/jail")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        let mode = fs::metadata(&folder).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o700, "{}", folder.display());
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            // What is in its root is the VM's own doing.
            if metadata.is_dir() && metadata.uid() != uid {
                folders.push(path);
            } else if metadata.is_file() {
                files += 1;
                let mode = metadata.permissions().mode() & 0o7777;
                let read_by_vms =
                    ["rootfs.erofs", "vm.json"].contains(&path.file_name().unwrap().to_str().unwrap());
                let expected = if read_by_vms { 0o444 } else { 0o600 };
                assert_eq!(mode, expected, "{}", path.display());
            }
        }
    }
    assert!(files >= 8, "{files}");
}

/// A user is a VM's as long as there is its record, over restarts of VM and agent, and then another's at the earliest when
/// all others have been used.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_vm_keeps_its_user() {
    let mut bed = bed().await;
    let client = bed.client();
    client.create_vm(&sh("x", WAITS)).await.unwrap();
    let first = user(&bed.running("x").await);
    client.kill_vm("x", &Default::default()).await.unwrap();
    bed.kill_agent();
    bed.start().await;
    client.create_vm(&sh("y", WAITS)).await.unwrap();
    assert_ne!(user(&bed.running("y").await), first, "x still has it");
    client.start_vm("x").await.unwrap();
    assert_eq!(user(&bed.running("x").await), first);

    let create = |name: String| VmCreate {
        start: false,
        ..sh(&name, "true")
    };
    for number in 2..bed.uids().len() {
        client.create_vm(&create(format!("vm-{number}"))).await.unwrap();
    }
    let error = client
        .create_vm(&create("more".into()))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("`vm_uids`") && error.contains("taken"), "{error}");
    client.delete_vm("x", true).await.unwrap();
    client.create_vm(&sh("more", WAITS)).await.unwrap();
    assert_eq!(user(&bed.running("more").await), first, "the only one left");
}

/// A guest that took its VMM over lays links in its root: they lead the agent nowhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn links_in_a_jail_lead_the_agent_nowhere() {
    let bed = bed().await;
    let client = bed.client();
    client.create_vm(&sh("bad", WAITS)).await.unwrap();
    let vm = bed.running("bad").await;
    let secret = UnixListener::bind(bed.path("secret.sock")).unwrap();
    secret.set_nonblocking(true).unwrap();
    fs::create_dir(bed.path("keep")).unwrap();
    fs::write(bed.path("keep/me"), "").unwrap();
    let root = root(&bed, &vm);
    fs::remove_file(root.join("vsock.sock")).unwrap();
    symlink(bed.path("secret.sock"), root.join("vsock.sock")).unwrap();
    symlink(bed.path("keep"), root.join("folder")).unwrap();
    let error = client.exec("bad").await.unwrap_err().to_string();
    assert!(error.contains("is no socket"), "{error}");
    assert!(secret.accept().is_err(), "nobody called");
    client.delete_vm("bad", true).await.unwrap();
    bed.assert_nothing_runs();
    assert!(bed.path("keep/me").exists());
}

/// Where the jailer cannot do its work the record says what it said, and nothing is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_jail_that_cannot_be_made_is_explained() {
    let bed = bed().await;
    let client = bed.client();
    let create = VmCreate {
        start: false,
        disk_mib: Some(16),
        ..sh("x", "true")
    };
    let vm = client.create_vm(&create).await.unwrap();
    // A disk with another name is what somebody could be made to write to.
    let state = bed.path("state/vms").join(&vm.id);
    fs::create_dir_all(&state).unwrap();
    fs::write(bed.path("precious"), "").unwrap();
    fs::hard_link(bed.path("precious"), state.join("disk.ext4")).unwrap();
    client.start_vm("x").await.unwrap();
    let vm = client.wait_vm("x", WaitUntil::Ended).await.unwrap();
    assert!(
        matches!(&vm.state, VmState::Failed { reason, .. }
            if reason.contains("the jailer failed") && reason.contains("disk.ext4")),
        "{vm:?}"
    );
    bed.assert_nothing_runs();
    assert_eq!(
        fs::metadata(bed.path("precious")).unwrap().uid(),
        0,
        "nobody was given it"
    );
}

/// kill -9 of the jailer at any moment of its work leaves nothing, and the record says what happened.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_moment_is_a_bad_one_for_a_jailer_to_die() {
    let programs = Programs {
        jailer: env!("CARGO_BIN_EXE_mortal-jailer").into(),
        ..programs()
    };
    scenarios::no_moment_is_a_bad_one_for_a_jailer_to_die(&programs, 60).await;
}

/// kill -9 of the VMM in the first moments of its life leaves nothing either.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_vmm_may_die_as_soon_as_it_is_one() {
    scenarios::a_vmm_may_die_as_soon_as_it_is_one(&programs(), 25).await;
}

/// A VMM is known by what the kernel says of it, not by files that somebody may have removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_vm_whose_directory_was_removed_is_still_known() {
    let mut bed = bed().await;
    bed.client().create_vm(&sh("x", WAITS)).await.unwrap();
    let before = bed.running("x").await;
    assert_eq!(
        exec(&bed.client(), "x", &["sh", "-c", "echo a"]).await.stdout,
        "a\n"
    );
    bed.kill_agent();
    fs::remove_dir_all(bed.path("run/jail")).unwrap();
    fs::remove_dir_all(bed.path("run/vms")).unwrap();
    bed.start().await;
    assert_eq!(bed.client().vm("x").await.unwrap().vmm_pid, before.vmm_pid);
    bed.client().delete_vm("x", true).await.unwrap();
    bed.assert_nothing_runs();
}
