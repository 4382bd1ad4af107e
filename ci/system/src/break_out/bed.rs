//! The host around an attempt: what there is to be got at, and machines to get at it from.

use std::fs::{self, File, Permissions};
use std::io::{Read, Seek};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::umount;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, geteuid};
use secovia_stub_guests::back_door;
use serde_json::json;

use super::attempts::{Attempt, Targets};
use super::cgroup::Cgroup;
use super::outcome::{End, Outcome};
use super::setup::{Layer, Setup};

/// The user of the machines that attempts are made from, and that of another.
const USER: u32 = 900_000;
const OTHER_USER: u32 = 900_001;
/// Long enough for a machine of a few calls under emulation.
const LIMIT: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(2);
const KVM: &str = "/dev/kvm";

/// What there is on the host. Everything goes when it is dropped.
pub(super) struct Bed {
    vmm: PathBuf,
    jailer: PathBuf,
    folder: tempfile::TempDir,
    /// `/dev/kvm`'s mode as it was: without a jail the machine's user needs the host's own.
    kvm_mode: u32,
    victims: [Child; 2],
    cgroup: Cgroup,
    _listeners: (UnixListener, TcpListener),
    /// What is to be got at.
    pub(super) targets: Targets,
}

impl Bed {
    /// Prepares a host. The error says what this machine lacks.
    pub(super) fn new(vmm: PathBuf, jailer: PathBuf) -> Result<Self, String> {
        if !geteuid().is_root() {
            return Err("not root".into());
        }
        let kvm = fs::metadata(KVM).map_err(|error| format!("{KVM}: {error}"))?;
        let folder = tempfile::Builder::new()
            .prefix("secovia-break-out-")
            .tempdir()
            .expect("make a folder");
        let root = folder.path();
        set_mode(root, 0o711);
        let other_disk = root.join("other-disk");
        write(&other_disk, 0o600, OTHER_USER);
        let agent = root.join("agent");
        fs::create_dir(&agent).expect("make a folder");
        set_mode(&agent, 0o700);
        let record = agent.join("record.json");
        write(&record, 0o600, 0);
        let socket = agent.join("agent.sock");
        let unix = UnixListener::bind(&socket).expect("listen on a Unix socket");
        set_mode(&socket, 0o660);
        let tcp =
            TcpListener::bind("127.0.0.1:0").map_err(|error| format!("listen on 127.0.0.1: {error}"))?;
        let port = tcp.local_addr().expect("a listener has an address").port();
        let kvm_mode = kvm.mode() & 0o7777;
        let cgroup = Cgroup::new()?;
        // Nothing fails from here on: all that is changed is put back.
        set_mode(Path::new(KVM), kvm_mode | 0o666);
        let victims = [victim(), victim()];
        let targets = Targets {
            disk: other_disk,
            record,
            socket,
            port,
            limits: cgroup.other_memory_limit(),
            processes: victims.each_ref().map(|child| child.id() as i32),
        };
        Ok(Self {
            vmm,
            jailer,
            folder,
            kvm_mode,
            victims,
            cgroup,
            _listeners: (unix, tcp),
            targets,
        })
    }

    /// Makes an attempt, from a machine of its own.
    pub(super) fn make(&self, attempt: &Attempt, setup: &Setup) -> Outcome {
        let run = Run::new(self, attempt, setup);
        let end = run.end();
        let log = run.log();
        match end {
            Ok(end) => Outcome::read(&log, &end, attempt.calls.len(), attempt.executes),
            Err(reason) => Outcome::Unclear(format!("{reason}: {log}")),
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        set_mode(Path::new(KVM), self.kvm_mode);
        for child in &mut self.victims {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A process of root's.
fn victim() -> Child {
    Command::new("sleep").arg("3600").spawn().expect("start sleep")
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("change a mode");
}

fn write(path: &Path, mode: u32, owner: u32) {
    fs::write(path, [b'x'; 4096]).expect("write a file");
    set_mode(path, mode);
    chown(path, Some(owner), Some(owner)).expect("change an owner");
}

/// One machine.
struct Run<'a> {
    bed: &'a Bed,
    folder: tempfile::TempDir,
    /// Held open: an attempt may lay a mount over its folder.
    log: File,
    process: Result<Pid, String>,
}

impl<'a> Run<'a> {
    fn new(bed: &'a Bed, attempt: &Attempt, setup: &Setup) -> Self {
        let folder = tempfile::tempdir_in(bed.folder.path()).expect("make a folder");
        let log = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(folder.path().join("log"));
        let mut run = Self {
            bed,
            folder,
            log: log.expect("make the log"),
            process: Err("not started".into()),
        };
        set_mode(run.folder.path(), 0o711);
        fs::write(run.file("kernel"), back_door::guest(&attempt.calls)).expect("write a kernel");
        write(&run.file("disk"), 0o600, USER);
        run.process = if setup.has(Layer::Jail) {
            run.start_jailed(setup)
        } else {
            run.start_bare(setup)
        };
        run
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the configuration of a machine whose files are below `root`.
    fn configure(&self, root: &Path) -> PathBuf {
        let spec = json!({
            "boot-source": { "kernel_image_path": root.join("kernel") },
            "drives": [{ "drive_id": "disk", "path_on_host": root.join("disk"), "is_root_device": false }],
            "machine-config": { "vcpu_count": 1, "mem_size_mib": 64 },
            "vsock": { "guest_cid": 3, "uds_path": root.join("vsock.sock") },
            "entropy": {},
        });
        let path = self.file("vm.json");
        fs::write(&path, spec.to_string()).expect("write a configuration");
        path
    }

    fn arguments(config: &Path, setup: &Setup) -> Vec<String> {
        let mut words = vec![
            "--config-file".into(),
            config.to_string_lossy().into_owned(),
            "--no-api".into(),
        ];
        if !setup.has(Layer::Seccomp) {
            words.push("--no-seccomp".into());
        }
        if !setup.has(Layer::Landlock) {
            words.push("--no-landlock".into());
        }
        words
    }

    /// As the agent starts a machine.
    fn start_jailed(&self, setup: &Setup) -> Result<Pid, String> {
        let base = self.file("jails");
        fs::create_dir(&base).expect("make a folder");
        let config = self.configure(Path::new("/"));
        let mut command = Command::new(&self.bed.jailer);
        command
            .args(["--id", "attempt", "--new-pid-ns"])
            .args(["--uid", &USER.to_string(), "--gid", &USER.to_string()])
            .arg("--exec-file")
            .arg(&self.bed.vmm)
            .arg("--chroot-base-dir")
            .arg(&base);
        for (path, name) in [
            (config, "vm.json"),
            (self.file("kernel"), "kernel"),
            (self.file("disk"), "disk:rw"),
        ] {
            command.arg("--file").arg(format!("{}:{name}", path.display()));
        }
        if setup.has(Layer::Cgroup) {
            command.args(self.bed.cgroup.jailer_arguments());
        }
        command
            .arg("--")
            .args(Self::arguments(Path::new("/vm.json"), setup));
        let status = self
            .streams(&mut command)
            .status()
            .map_err(|error| format!("start the jailer: {error}"))?;
        if !status.success() {
            return Err(format!("the jailer ended with {status}"));
        }
        let name = self.bed.vmm.file_name().expect("a program has a name");
        let pid =
            fs::read_to_string(base.join(name).join("attempt/vmm.pid")).map_err(|error| error.to_string())?;
        pid.trim()
            .parse()
            .map(Pid::from_raw)
            .map_err(|error| format!("{pid:?}: {error}"))
    }

    /// Without the jailer: as a user of its own, or as root.
    fn start_bare(&self, setup: &Setup) -> Result<Pid, String> {
        let config = self.configure(self.folder.path());
        // The machine makes its socket in its folder.
        chown(self.folder.path(), Some(USER), Some(USER)).expect("change an owner");
        let cgroups = if setup.has(Layer::Cgroup) {
            self.bed.cgroup.enter_bare()
        } else {
            Vec::new()
        };
        let mut command = Command::new("sh");
        command.current_dir(self.folder.path());
        command.args([
            "-c",
            r#"while [ "$1" != -- ]; do echo $$ >"$1" || exit 1; shift; done; shift; exec "$@""#,
            "sh",
        ]);
        command.args(cgroups).arg("--");
        if setup.has(Layer::User) {
            command.args([
                "setpriv",
                "--clear-groups",
                "--no-new-privs",
                "--bounding-set=-all",
                "--inh-caps=-all",
            ]);
            command
                .arg(format!("--reuid={USER}"))
                .arg(format!("--regid={USER}"));
        }
        command.arg(&self.bed.vmm).args(Self::arguments(&config, setup));
        let child = self
            .streams(&mut command)
            .spawn()
            .map_err(|error| format!("start the VMM: {error}"))?;
        Ok(Pid::from_raw(child.id() as i32))
    }

    fn streams<'b>(&self, command: &'b mut Command) -> &'b mut Command {
        let log = self.log.try_clone().expect("share the log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log)
    }

    /// All that the VMM said.
    fn log(&self) -> String {
        let mut text = String::new();
        let mut log = &self.log;
        log.rewind()
            .and_then(|()| log.read_to_string(&mut text))
            .expect("read the log");
        text
    }

    /// Waits for the end.
    fn end(&self) -> Result<End, String> {
        let pid = self.process.clone()?;
        let since = Instant::now();
        loop {
            match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(_, code)) => return Ok(End::Exited(code)),
                Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(End::Killed(signal as i32)),
                Ok(_) | Err(Errno::EINTR) if since.elapsed() < LIMIT => thread::sleep(TICK),
                Ok(_) => {
                    let _ = kill(pid, Signal::SIGKILL);
                    let _ = waitpid(pid, None);
                    return Err("no end".into());
                }
                Err(error) => return Err(format!("wait for {pid}: {error}")),
            }
        }
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        // A mount that succeeded.
        let _ = umount(self.folder.path());
        self.bed.cgroup.leave();
    }
}
