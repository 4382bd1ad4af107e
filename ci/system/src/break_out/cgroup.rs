//! Limits for the machines of attempts, and those of another machine; on hosts with either version of cgroups.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// A machine's memory limit in bytes: 64 MiB for its guest, and what is around.
pub(super) const MEMORY_LIMIT: u64 = 160 << 20;
/// How many threads and processes it may have; the start needs up to three.
pub(super) const PROCESS_LIMIT: u64 = 8;

/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

const ROOT: &str = "/sys/fs/cgroup";
/// Our part of the hierarchy.
const PARENT: &str = "secovia-break-out";
/// The machine that attempts are made from, as the jailer names it.
const ATTEMPT: &str = "attempt";
/// The other one.
const OTHER: &str = "other";

/// The hierarchies, with our part in each. Goes when it is dropped.
pub(super) struct Cgroup {
    version: u8,
    /// Our part: one folder, or one for each controller.
    parents: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes our part. The error says what this host lacks.
    pub(super) fn new() -> Result<Self, String> {
        let root = Path::new(ROOT);
        let v2 = fs::read_to_string(root.join("cgroup.controllers"));
        let (version, parents) = match &v2 {
            Ok(controllers) if controllers.contains("memory") && controllers.contains("pids") => {
                (2, vec![root.join(PARENT)])
            }
            Ok(controllers) => return Err(format!("cgroup v2 has only {controllers}")),
            Err(_) if root.join("memory").exists() && root.join("pids").exists() => (
                1,
                vec![root.join("memory").join(PARENT), root.join("pids").join(PARENT)],
            ),
            Err(error) => return Err(format!("{ROOT}: {error}")),
        };
        let this = Self { version, parents };
        for parent in &this.parents {
            fs::create_dir_all(parent.join(OTHER))
                .map_err(|error| format!("{}: {error}", parent.display()))?;
        }
        if version == 2 {
            for folder in [root, &root.join(PARENT)] {
                let control = folder.join("cgroup.subtree_control");
                fs::write(&control, "+memory +pids")
                    .map_err(|error| format!("{}: {error}", control.display()))?;
            }
        }
        Ok(this)
    }

    fn memory_limit(&self) -> &'static str {
        if self.version == 2 {
            "memory.max"
        } else {
            "memory.limit_in_bytes"
        }
    }

    /// The file with the other machine's memory limit.
    pub(super) fn other_memory_limit(&self) -> PathBuf {
        // The hierarchy of memory is the first, or the only one.
        self.parents
            .iter()
            .map(|parent| parent.join(OTHER).join(self.memory_limit()))
            .next()
            .unwrap_or_default()
    }

    fn limits(&self) -> [(String, u64); 2] {
        [
            (self.memory_limit().into(), MEMORY_LIMIT),
            ("pids.max".into(), PROCESS_LIMIT),
        ]
    }

    /// What the jailer is told.
    pub(super) fn jailer_arguments(&self) -> Vec<String> {
        let mut words = vec![
            "--cgroup-version".into(),
            self.version.to_string(),
            "--parent-cgroup".into(),
            PARENT.into(),
        ];
        for (file, value) in self.limits() {
            words.extend(["--cgroup".into(), format!("{file}={value}")]);
        }
        words
    }

    /// Makes the cgroup for a machine without a jailer; the files that its process writes its number to.
    pub(super) fn enter_bare(&self) -> Vec<PathBuf> {
        let folders: Vec<_> = self.parents.iter().map(|parent| parent.join(ATTEMPT)).collect();
        for folder in &folders {
            fs::create_dir_all(folder).expect("make a cgroup");
            for (file, value) in self.limits() {
                let path = folder.join(file);
                if path.exists() {
                    fs::write(path, value.to_string()).expect("set a limit");
                }
            }
        }
        folders.iter().map(|folder| folder.join("cgroup.procs")).collect()
    }

    /// Removes a machine's cgroup, whoever made it. Its processes have been killed, and may take a moment to be gone.
    pub(super) fn leave(&self) {
        for folder in self.parents.iter().map(|parent| parent.join(ATTEMPT)) {
            let begun = Instant::now();
            while let Err(error) = fs::remove_dir(&folder)
                && error.kind() == ErrorKind::ResourceBusy
                && begun.elapsed() < PATIENCE
            {
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.leave();
        for parent in &self.parents {
            let _ = fs::remove_dir(parent.join(OTHER));
            let _ = fs::remove_dir(parent);
        }
    }
}
