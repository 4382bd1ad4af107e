//! A machine's files: stub kernel, disk, configuration, in a folder of their own that goes when it is dropped.

use std::fs;
use std::path::{Path, PathBuf};

use secovia_stub_guests::Guest;
use secovia_vmm_api::{BootSourceSpec, DriveSpec, MachineSpec, VmSpec};

use super::job::Error;

/// The size of the machine that is measured.
pub(super) const MEMORY_MIB: u64 = 128;
const DISK_BYTES: u64 = 16 << 20;

/// The folder.
pub(super) struct Files {
    folder: PathBuf,
}

impl Files {
    /// Files for a machine of one vCPU and one disk that runs `guest`.
    pub(super) fn new(guest: Guest) -> Result<Self, Error> {
        let folder = std::env::temp_dir().join(format!("secovia-bench-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(Error::host(format!("create {}", folder.display())))?;
        let files = Self { folder };
        let kernel = files.folder.join("kernel");
        let disk = files.folder.join("disk");
        fs::write(&kernel, guest.elf()).map_err(Error::host("write the stub kernel"))?;
        let file = fs::File::create(&disk).map_err(Error::host("create the disk"))?;
        file.set_len(DISK_BYTES).map_err(Error::host("size the disk"))?;
        let spec = VmSpec {
            boot_source: BootSourceSpec {
                kernel_image_path: kernel,
                ..BootSourceSpec::default()
            },
            drives: vec![DriveSpec {
                drive_id: "disk".into(),
                path_on_host: disk,
                ..DriveSpec::default()
            }],
            machine_config: MachineSpec {
                vcpu_count: 1,
                mem_size_mib: MEMORY_MIB,
                smt: false,
            },
            ..VmSpec::default()
        };
        fs::write(files.config(), serde_json::to_vec(&spec)?)
            .map_err(Error::host("write the configuration"))?;
        Ok(files)
    }

    fn config(&self) -> PathBuf {
        self.folder.join("vm.json")
    }

    /// The command line that runs the machine.
    pub(super) fn arguments(&self) -> Vec<String> {
        let config = self.config().display().to_string();
        ["--config-file", &config, "--no-api", "--id", "bench"]
            .map(String::from)
            .to_vec()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// How a program is called in messages.
pub(super) fn name(program: &Path) -> String {
    program
        .file_name()
        .unwrap_or(program.as_os_str())
        .to_string_lossy()
        .into_owned()
}
