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
        entropy: Some(EntropySpec {}),
    }
}

fn drive(drive_id: &str, path: PathBuf, is_read_only: bool, cache_type: CacheType) -> DriveSpec {
    DriveSpec {
        drive_id: drive_id.into(),
        path_on_host: path,
        // The guest's PID 1 comes from the initrd and mounts by itself.
        is_root_device: false,
        is_read_only,
        partuuid: None,
        cache_type,
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
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
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
