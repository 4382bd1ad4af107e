//! A machine's files: stub kernel, disk, configuration, in a folder of their own that goes when it is dropped.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use secovia_stub_guests::Guest;
use secovia_vmm_api::{BootSourceSpec, DriveSpec, MachineSpec, NetworkInterfaceSpec, VmSpec};

use super::job::Error;

/// The size of the machine that is measured.
pub(super) const MEMORY_MIB: u64 = 128;
const DISK_BYTES: u64 = 16 << 20;
/// The jailed machine's user and group, who are nobody's.
const UID: &str = "899999";
/// The machine's name.
const ID: &str = "bench";
/// Where cgroups of version 2 are mounted: alone, or beside those of version 1.
const CGROUPS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// A folder that goes when it is dropped.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// `label` tells it from another one of this program's.
    pub(super) fn new(label: &str) -> Result<Self, Error> {
        let name = format!("secovia-bench-{}-{label}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).map_err(Error::host(format!("create {}", path.display())))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

/// The machine's folder.
pub(super) struct Files {
    folder: Folder,
}

impl Files {
    /// Files for a machine of one vCPU and one disk that runs `guest`; `label` tells them from another machine's.
    pub(super) fn new(label: &str, guest: Guest) -> Result<Self, Error> {
        let files = Self {
            folder: Folder::new(label)?,
        };
        let (kernel, disk) = (files.kernel(), files.disk());
        fs::write(&kernel, guest.elf()).map_err(Error::host("write the stub kernel"))?;
        let file = fs::File::create(&disk).map_err(Error::host("create the disk"))?;
        file.set_len(DISK_BYTES).map_err(Error::host("size the disk"))?;
        files.configure("vm.json", kernel, disk, None)?;
        Ok(files)
    }

    fn kernel(&self) -> PathBuf {
        self.folder.path().join("kernel")
    }

    fn disk(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// Writes a configuration with these paths, and with a network interface where there is a tap for it.
    fn configure(
        &self,
        name: &str,
        kernel: PathBuf,
        disk: PathBuf,
        tap: Option<&str>,
    ) -> Result<PathBuf, Error> {
        let spec = VmSpec {
            boot_source: Some(BootSourceSpec {
                kernel_image_path: kernel,
                ..BootSourceSpec::default()
            }),
            drives: vec![DriveSpec {
                drive_id: "disk".into(),
                path_on_host: Some(disk),
                ..DriveSpec::default()
            }],
            network_interfaces: tap
                .map(|tap| NetworkInterfaceSpec {
                    iface_id: "eth0".into(),
                    host_dev_name: tap.into(),
                    ..NetworkInterfaceSpec::default()
                })
                .into_iter()
                .collect(),
            machine_config: MachineSpec {
                vcpu_count: 1,
                mem_size_mib: MEMORY_MIB,
                ..MachineSpec::default()
            },
            ..VmSpec::default()
        };
        let path = self.folder.path().join(name);
        fs::write(&path, serde_json::to_vec(&spec)?).map_err(Error::host("write the configuration"))?;
        Ok(path)
    }

    /// A jail for the same machine.
    pub(super) fn jail(&self, vmm: &Path) -> Result<Jail, Error> {
        let config = self.configure("jailed.json", "/kernel".into(), "/disk".into(), None)?;
        Ok(Jail {
            vmm: vmm.to_owned(),
            base: self.folder.path().join("jails"),
            cgroup: CGROUPS
                .into_iter()
                .map(Path::new)
                .find(|mount| geteuid().is_root() && mount.join("cgroup.controllers").exists())
                .map(|mount| mount.join(name(self.folder.path()))),
            grants: [
                grant(&config, "vm.json"),
                grant(&self.kernel(), "kernel"),
                grant(&self.disk(), "disk:rw"),
            ],
        })
    }

    /// The command line that runs the machine.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        arguments(self.folder.path().join("vm.json"))
    }

    /// The same with a network interface on this tap.
    pub(super) fn networked(&self, tap: &str) -> Result<Vec<OsString>, Error> {
        let config = self.configure("networked.json", self.kernel(), self.disk(), Some(tap))?;
        Ok(arguments(config))
    }

    /// The same, without filters of system calls and without Landlock.
    pub(super) fn unfiltered(&self) -> Vec<OsString> {
        let mut arguments = self.arguments();
        arguments.extend(["--no-seccomp", "--no-landlock"].map(OsString::from));
        arguments
    }
}

fn arguments(config: PathBuf) -> Vec<OsString> {
    let rest = ["--no-api", "--id", ID].map(OsString::from);
    ["--config-file".into(), config.into()]
        .into_iter()
        .chain(rest)
        .collect()
}

/// The machine's words for the jailer, and where it is while it runs.
pub(super) struct Jail {
    vmm: PathBuf,
    base: PathBuf,
    /// Below which cgroup its own is; none where the host has no cgroups of version 2.
    cgroup: Option<PathBuf>,
    grants: [OsString; 3],
}

impl Jail {
    /// The jailer's command line: a process of its own, as the agent starts it.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let fixed = [
            "--id",
            "bench",
            "--uid",
            UID,
            "--gid",
            UID,
            "--new-pid-ns",
            "--exec-file",
        ];
        let mut arguments: Vec<OsString> = fixed.map(OsString::from).to_vec();
        arguments.extend([
            self.vmm.clone().into(),
            "--chroot-base-dir".into(),
            self.base.clone().into(),
        ]);
        arguments.extend(
            self.grants
                .iter()
                .flat_map(|grant| ["--file".into(), grant.clone()]),
        );
        if let Some(cgroup) = &self.cgroup {
            let words = ["--cgroup-version", "2", "--parent-cgroup", &name(cgroup)].map(OsString::from);
            arguments.extend(words);
        }
        arguments.extend(["--", "--config-file", "/vm.json", "--no-api"].map(OsString::from));
        arguments
    }

    /// The process that the machine runs in.
    pub(super) fn process(&self) -> Result<i32, Error> {
        let path = self.machine().join("vmm.pid");
        let text = fs::read_to_string(&path).map_err(Error::host(format!("read {}", path.display())))?;
        text.trim_end().parse().map_err(|_| Error::Program {
            program: "secovia-jailer".into(),
            reason: format!("it wrote {text:?} as the process's ID"),
        })
    }

    /// Removes what is left of the machine.
    pub(super) fn remove(&self) -> Result<(), Error> {
        fs::remove_dir_all(self.machine()).map_err(Error::host("remove the jail"))?;
        match &self.cgroup {
            Some(cgroup) => fs::remove_dir(cgroup.join(ID)).map_err(Error::host("remove the jail's cgroup")),
            None => Ok(()),
        }
    }

    fn machine(&self) -> PathBuf {
        self.base.join(name(&self.vmm)).join(ID)
    }
}

fn grant(source: &Path, name: &str) -> OsString {
    let mut grant = source.as_os_str().to_owned();
    grant.push(":");
    grant.push(name);
    grant
}

impl Drop for Jail {
    fn drop(&mut self) {
        if let Some(cgroup) = &self.cgroup {
            let _ = fs::remove_dir(cgroup);
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
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
