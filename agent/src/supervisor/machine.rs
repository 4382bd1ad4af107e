//! A VM's machine: what its record asks for, as the VMM takes it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use secovia_guest_protocol::{ProcessSpec, WindowSize, WorkloadSpec};
use secovia_vmm_api::{BootSourceSpec, CacheType, DriveSpec, EntropySpec, MachineSpec, VmSpec, VsockSpec};

use crate::config::Config;
use crate::images::Image;
use crate::process::Place;
use crate::records::{Record, Spec};

/// Each VM has a vsock device of its own that ends in this process's sockets, so that all guests may have the same
/// number: the first that is not reserved.
const GUEST_CID: u32 = 3;

/// Why a VM's disk cannot be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiskError {
    #[error("{operation} disk {path}: {source}")]
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

/// The VMM's configuration.
pub(super) fn vm_spec(config: &Config, place: &Place, spec: &Spec, image: &Image) -> VmSpec {
    let mut drives = vec![drive("rootfs", image.rootfs.clone(), true, CacheType::Unsafe)];
    if spec.disk_mib.is_some() {
        drives.push(drive("disk", place.disk(), false, CacheType::Writeback));
    }
    VmSpec {
        boot_source: BootSourceSpec {
            kernel_image_path: config.kernel.clone(),
            initrd_path: Some(config.initrd.clone()),
            boot_args: Some(boot_args(spec)),
        },
        drives,
        machine_config: MachineSpec {
            vcpu_count: spec.cpus,
            mem_size_mib: spec.memory_mib,
            smt: false,
        },
        vsock: Some(VsockSpec {
            guest_cid: GUEST_CID,
            uds_path: place.socket(),
        }),
        entropy: Some(EntropySpec::default()),
        ..VmSpec::default()
    }
}

fn drive(drive_id: &str, path: PathBuf, is_read_only: bool, cache_type: CacheType) -> DriveSpec {
    DriveSpec {
        drive_id: drive_id.into(),
        path_on_host: path,
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
    args
}

/// What the guest is asked to run.
pub(super) fn workload(record: &Record) -> WorkloadSpec {
    let Spec {
        command,
        env,
        user,
        working_dir,
        tty,
        ..
    } = record.spec.clone();
    WorkloadSpec {
        hostname: record.name.clone(),
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

/// Makes the disk of the writable layer where it is not there yet: a sparse file with an empty ext4.
pub(super) fn prepare_disk(place: &Place, spec: &Spec) -> Result<(), DiskError> {
    let path = place.disk();
    let Some(size_mib) = spec.disk_mib.filter(|_| !path.exists()) else {
        return Ok(());
    };
    let failed = |operation, path: &Path| {
        let path = path.to_path_buf();
        move |source| DiskError::File {
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
    let file = make().map_err(failed("make", &new))?;
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
        .map_err(|source| DiskError::Run {
            path: new.clone(),
            source,
        })?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        return Err(DiskError::Format { path: new, message });
    }
    file.sync_all().map_err(failed("sync", &new))?;
    fs::rename(&new, &path).map_err(failed("rename", &new))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, PermissionsExt};

    use super::*;

    fn spec() -> Spec {
        Spec {
            image: "base".into(),
            image_digest: "sha256:00".into(),
            command: vec!["/bin/sh".into()],
            env: [].into(),
            user: None,
            working_dir: None,
            cpus: 2,
            memory_mib: 256,
            disk_mib: Some(64),
            tty: None,
            stdin: false,
        }
    }

    fn place(dir: &Path) -> Place {
        Place {
            runtime: dir.join("run"),
            state: dir.to_path_buf(),
        }
    }

    #[test]
    fn a_machine_has_what_its_record_asks_for() {
        let config = Config::parse(Path::new("agent.toml"), "").unwrap();
        let place = place(Path::new("/x"));
        let image = Image {
            manifest: serde_json::from_value(serde_json::json!({
                "schema_version": 1, "name": "base", "digest": "sha256:00", "size": 1, "command": ["/bin/sh"]
            }))
            .unwrap(),
            rootfs: "/images/base/rootfs.erofs".into(),
            imported_ms: 0,
        };
        let machine = vm_spec(&config, &place, &spec(), &image);
        let drives: Vec<_> = machine
            .drives
            .iter()
            .map(|drive| {
                (
                    drive.path_on_host.to_str().unwrap(),
                    drive.is_read_only,
                    drive.cache_type,
                )
            })
            .collect();
        assert_eq!(
            drives,
            [
                ("/images/base/rootfs.erofs", true, CacheType::Unsafe),
                ("/x/disk.ext4", false, CacheType::Writeback)
            ]
        );
        assert_eq!(
            (
                machine.machine_config.vcpu_count,
                machine.machine_config.mem_size_mib
            ),
            (2, 256)
        );
        assert_eq!(machine.vsock.unwrap().uds_path, Path::new("/x/run/vsock.sock"));
        let args = machine.boot_source.boot_args.unwrap();
        assert!(
            args.contains("panic=1") && !args.contains("noreplace-smp"),
            "{args}"
        );

        let small = Spec {
            cpus: 1,
            disk_mib: None,
            ..spec()
        };
        let machine = vm_spec(&config, &place, &small, &image);
        assert_eq!(machine.drives.len(), 1);
        assert!(machine.boot_source.boot_args.unwrap().contains("noreplace-smp"));
    }

    #[test]
    fn a_disk_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        // What an agent left that was killed over it.
        fs::write(dir.path().join("disk.new"), "half").unwrap();
        prepare_disk(&place, &spec()).unwrap();
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
        prepare_disk(&place, &spec()).unwrap();
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
        prepare_disk(&place(dir.path()), &spec).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
