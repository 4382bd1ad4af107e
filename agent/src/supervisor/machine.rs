//! A VM's machine: what its record asks for, as the VMM takes it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use secovia_guest_protocol::{NetworkSetup, ProcessSpec, WindowSize, WorkloadSpec};
use secovia_vmm_api::{
    BootSourceSpec, CacheType, DriveSpec, EntropySpec, MachineSpec, NetworkInterfaceSpec, VmSpec, VsockSpec,
};

use crate::config::Config;
use crate::network::{GATEWAY6, Network, Port, TAP};
use crate::process::{JailFile, Machine, Place, SOCKET};
use crate::records::{PodSpec, Record, Spec};

/// Each VM has a vsock device of its own that ends in this process's sockets, so that all guests may have the same
/// number: the first that is not reserved.
const GUEST_CID: u32 = 3;

/// The only interface's name in the guest, and in the VMM's configuration.
const INTERFACE: &str = "eth0";

/// Why a VM does not get its files.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilesError {
    #[error("{operation} {path}: {source}")]
    File {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("run mkfs.ext4 for disk {path}: {source}; install e2fsprogs")]
    Run { path: PathBuf, source: io::Error },
    #[error("mkfs.ext4 for disk {path} failed: {message}")]
    Format { path: PathBuf, message: String },
}

/// What the VM runs with: the files that it gets, and the VMM's configuration that calls them as they are called in there.
pub(super) fn machine(
    config: &Config,
    place: &Place,
    spec: &Spec,
    images: Vec<PathBuf>,
) -> Result<Machine, FilesError> {
    let mut files = vec![
        JailFile::read_only("vmlinux", real_path(&config.kernel)?),
        JailFile::read_only("initrd", real_path(&config.initrd)?),
    ];
    let mut drives = Vec::new();
    let mut images = images.into_iter();
    if let Some(first) = images.next() {
        files.push(JailFile::read_only("rootfs", first));
        drives.push(drive("rootfs", true, CacheType::Unsafe));
    }
    if spec.disk_mib.is_some() {
        files.push(JailFile {
            source: place.disk(),
            name: "disk".into(),
            writable: true,
        });
        drives.push(drive("disk", false, CacheType::Writeback));
    }
    for (index, image) in images.enumerate() {
        let name = format!("image{}", index + 1);
        files.push(JailFile::read_only(&name, image));
        drives.push(drive(&name, true, CacheType::Unsafe));
    }
    let spec = VmSpec {
        boot_source: Some(BootSourceSpec {
            kernel_image_path: "/vmlinux".into(),
            initrd_path: Some("/initrd".into()),
            boot_args: Some(boot_args(spec)),
        }),
        drives,
        machine_config: MachineSpec {
            vcpu_count: spec.cpus,
            mem_size_mib: spec.memory_mib,
            ..MachineSpec::default()
        },
        vsock: Some(VsockSpec {
            guest_cid: GUEST_CID,
            uds_path: Path::new("/").join(SOCKET),
            ..VsockSpec::default()
        }),
        entropy: Some(EntropySpec::default()),
        ..VmSpec::default()
    };
    Ok(Machine {
        spec,
        files,
        netns: None,
    })
}

/// Gives the machine an interface on the tap that lies in `netns`.
pub(super) fn connect(machine: &mut Machine, port: &Port, netns: PathBuf) {
    machine.netns = Some(netns);
    machine.spec.network_interfaces.push(NetworkInterfaceSpec {
        iface_id: INTERFACE.into(),
        host_dev_name: TAP.into(),
        guest_mac: Some(port.lease.mac_text()),
        ..NetworkInterfaceSpec::default()
    });
}

/// The path without symbolic links, which the jailer does not follow.
fn real_path(path: &Path) -> Result<PathBuf, FilesError> {
    fs::canonicalize(path).map_err(|source| FilesError::File {
        operation: "look up",
        path: path.to_path_buf(),
        source,
    })
}

/// A drive whose file has its name in the jail.
fn drive(drive_id: &str, is_read_only: bool, cache_type: CacheType) -> DriveSpec {
    DriveSpec {
        drive_id: drive_id.into(),
        path_on_host: Some(Path::new("/").join(drive_id)),
        // The guest's PID 1 comes from the initrd and mounts by itself.
        is_root_device: false,
        is_read_only,
        cache_type,
        ..DriveSpec::default()
    }
}

/// `panic=1` turns a panic into a reset, which ends the VMM. A guest with one CPU is spared the code that would prepare
/// it for a second.
fn boot_args(spec: &Spec) -> String {
    let mut args = String::from("console=ttyS0 quiet panic=1");
    if spec.cpus == 1 {
        args.push_str(" noreplace-smp");
    }
    if spec.pod.is_some() {
        // PID 1 stays where it begins then, and makes a root for each container.
        args.push_str(" secovia_pod=1");
    }
    args
}

/// The images that a VM needs, each once, with their digests: the first is its first disk, the others come after that of the
/// writable layer.
pub(super) fn images(spec: &Spec) -> Vec<(&str, &str)> {
    let mut all = vec![(spec.image.as_str(), spec.image_digest.as_str())];
    let more = spec.pod.as_ref().map(PodSpec::images).unwrap_or_default();
    all.extend(more.into_iter().filter(|(name, _)| *name != spec.image));
    all
}

/// What the guest calls the disk of an image.
pub(super) fn disk_of(spec: &Spec, image: &str) -> String {
    let index = images(spec)
        .iter()
        .position(|(name, _)| *name == image)
        .unwrap_or(0);
    let layer = usize::from(index > 0 && spec.disk_mib.is_some());
    let letter = u8::try_from(index + layer).unwrap_or(25).min(25);
    format!("vd{}", char::from(b'a' + letter))
}

/// What the guest is told of the network.
pub(super) fn network_setup(record: &Record, network: Option<&Network>) -> Option<NetworkSetup> {
    record.network.as_ref().map(|port| NetworkSetup {
        interface: INTERFACE.into(),
        ipv4: port.lease.v4,
        gateway4: port.lease.gateway,
        ipv6: port.lease.v6,
        gateway6: GATEWAY6,
        dns: network
            .map(|network| network.policy().dns.clone())
            .unwrap_or_default(),
    })
}

/// What the guest is asked to run.
pub(super) fn workload(record: &Record, network: Option<&Network>) -> WorkloadSpec {
    let Spec {
        hostname,
        command,
        env,
        user,
        working_dir,
        tty,
        ..
    } = record.spec.clone();
    WorkloadSpec {
        hostname: hostname.unwrap_or_else(|| record.name.clone()),
        network: network_setup(record, network),
        process: ProcessSpec {
            argv: command,
            env,
            cwd: working_dir,
            user,
            tty: tty.map(|size| WindowSize {
                rows: size.rows,
                cols: size.cols,
            }),
        },
    }
}

/// Makes the disk of the writable layer where it is not there yet: a sparse file with an empty ext4 that belongs to the
/// VM's user.
pub(super) fn prepare_disk(place: &Place, spec: &Spec, uid: u32) -> Result<(), FilesError> {
    let path = place.disk();
    let Some(size_mib) = spec.disk_mib.filter(|_| !path.exists()) else {
        return Ok(());
    };
    let failed = |operation, path: &Path| {
        let path = path.to_path_buf();
        move |source| FilesError::File {
            operation,
            path,
            source,
        }
    };
    // Made under another name, so that a disk is there whole or not at all.
    let new = path.with_extension("new");
    let make = || -> io::Result<File> {
        if new.exists() {
            fs::remove_file(&new)?;
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.set_len(size_mib << 20)?;
        Ok(file)
    };
    let file = make().map_err(failed("make disk", &new))?;
    let output = Command::new("mkfs.ext4")
        .args([
            "-q",
            "-F",
            "-m",
            "0",
            "-E",
            "lazy_itable_init=1,lazy_journal_init=1",
        ])
        .arg(&new)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| FilesError::Run {
            path: new.clone(),
            source,
        })?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        return Err(FilesError::Format { path: new, message });
    }
    fchown(&file, Some(uid), Some(uid)).map_err(failed("give its user disk", &new))?;
    file.sync_all().map_err(failed("sync disk", &new))?;
    fs::rename(&new, &path).map_err(failed("rename disk", &new))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, PermissionsExt, symlink};

    use super::*;

    fn spec() -> Spec {
        Spec {
            image: "base".into(),
            image_digest: "sha256:00".into(),
            hostname: None,
            command: vec!["/bin/sh".into()],
            env: [].into(),
            user: None,
            working_dir: None,
            cpus: 2,
            cpu_millis: None,
            memory_mib: 256,
            disk_mib: Some(64),
            tty: None,
            stdin: false,
            pod: None,
            labels: [].into(),
        }
    }

    /// A user that anybody may give a file to: oneself.
    fn own_uid() -> u32 {
        nix::unistd::getuid().as_raw()
    }

    fn place(dir: &Path) -> Place {
        Place {
            runtime: dir.join("run"),
            jail: dir.join("jail"),
            state: dir.to_path_buf(),
        }
    }

    #[test]
    fn a_machine_has_what_its_record_asks_for() {
        let dir = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir(&dir).ok();
        fs::write(dir.join("k-1"), "").unwrap();
        symlink("k-1", dir.join("k")).unwrap();
        let text = format!("kernel = {:?}\ninitrd = {:?}", dir.join("k"), dir.join("k-1"));
        let config = Config::parse(Path::new("agent.toml"), &text).unwrap();
        let place = place(Path::new("/x"));
        let image = || vec![PathBuf::from("/images/base/rootfs.erofs")];
        let machine = super::machine(&config, &place, &spec(), image()).unwrap();
        let files: Vec<_> = machine
            .files
            .iter()
            .map(|file| (file.name.as_str(), file.source.as_path(), file.writable))
            .collect();
        let kernel = dir.join("k-1");
        assert_eq!(
            files,
            [
                ("vmlinux", kernel.as_path(), false),
                ("initrd", kernel.as_path(), false),
                ("rootfs", Path::new("/images/base/rootfs.erofs"), false),
                ("disk", Path::new("/x/disk.ext4"), true),
            ]
        );
        let inside: Vec<_> = machine
            .spec
            .drives
            .iter()
            .map(|drive| {
                (
                    drive.path_on_host.as_ref().unwrap().to_str().unwrap(),
                    drive.is_read_only,
                    drive.cache_type,
                )
            })
            .collect();
        assert_eq!(
            inside,
            [
                ("/rootfs", true, CacheType::Unsafe),
                ("/disk", false, CacheType::Writeback)
            ]
        );
        let VmSpec {
            boot_source,
            machine_config,
            vsock,
            ..
        } = machine.spec;
        assert_eq!((machine_config.vcpu_count, machine_config.mem_size_mib), (2, 256));
        assert_eq!(vsock.unwrap().uds_path, Path::new("/vsock.sock"));
        let boot_source = boot_source.unwrap();
        assert_eq!(boot_source.kernel_image_path, Path::new("/vmlinux"));
        let args = boot_source.boot_args.unwrap();
        assert!(
            args.contains("panic=1") && !args.contains("noreplace-smp"),
            "{args}"
        );

        let small = Spec {
            cpus: 1,
            disk_mib: None,
            ..spec()
        };
        let machine = super::machine(&config, &place, &small, image()).unwrap();
        assert_eq!((machine.spec.drives.len(), machine.files.len()), (1, 3));
        assert!(
            machine
                .spec
                .boot_source
                .unwrap()
                .boot_args
                .unwrap()
                .contains("noreplace-smp")
        );

        fs::remove_file(dir.join("k-1")).unwrap();
        let error = super::machine(&config, &place, &small, image()).unwrap_err();
        assert!(error.to_string().contains("look up"), "{error}");
    }

    #[test]
    fn each_image_is_one_disk_that_its_containers_know() {
        let container = |image: &str| crate::records::PodContainer {
            spec: secovia_agent_api::Container {
                name: image.into(),
                image: image.into(),
                ..Default::default()
            },
            image_digest: "sha256:00".into(),
        };
        let pod = PodSpec {
            init: vec![container("tools")],
            containers: vec![container("base"), container("app"), container("base")],
            volumes: Vec::new(),
        };
        let with_disk = Spec {
            pod: Some(pod),
            ..spec()
        };
        let names: Vec<&str> = images(&with_disk).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["base", "app", "tools"]);
        let disks = |spec: &Spec| ["base", "app", "tools"].map(|image| disk_of(spec, image));
        assert_eq!(disks(&with_disk), ["vda", "vdc", "vdd"]);
        let without = Spec {
            disk_mib: None,
            ..with_disk
        };
        assert_eq!(disks(&without), ["vda", "vdb", "vdc"]);
        assert!(boot_args(&without).ends_with(" secovia_pod=1"));
        assert!(!boot_args(&spec()).contains("secovia_pod"));
    }

    #[test]
    fn a_disk_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        // What an agent left that was killed over it.
        fs::write(dir.path().join("disk.new"), "half").unwrap();
        prepare_disk(&place, &spec(), own_uid()).unwrap();
        let disk = File::options().read(true).write(true).open(place.disk()).unwrap();
        let metadata = disk.metadata().unwrap();
        assert_eq!(
            (metadata.len(), metadata.permissions().mode() & 0o777),
            (64 << 20, 0o600)
        );
        let mut magic = [0; 2];
        disk.read_exact_at(&mut magic, 1024 + 0x38).unwrap();
        assert_eq!(u16::from_le_bytes(magic), 0xef53, "the superblock of an ext4");
        disk.write_all_at(b"kept", 60 << 20).unwrap();
        prepare_disk(&place, &spec(), own_uid()).unwrap();
        let mut kept = [0; 4];
        disk.read_exact_at(&mut kept, 60 << 20).unwrap();
        assert_eq!(&kept, b"kept");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_vm_without_a_disk_gets_none() {
        let dir = tempfile::tempdir().unwrap();
        let spec = Spec {
            disk_mib: None,
            ..spec()
        };
        prepare_disk(&place(dir.path()), &spec, own_uid()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
