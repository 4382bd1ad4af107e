//! A guest in our VMM.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use secovia_guest_protocol::{ExitStatus, Frame, GuestInfo, PORT, ProcessSpec, Reply, Request, WorkloadSpec};

use super::{DONE, Session, sh};

/// The host may be an emulated one: guests run one after the other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Longer than any guest takes to boot or to end, even under emulation.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn needed(variable: &str) -> PathBuf {
    std::env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} is not set: run these tests by ci/test"))
        .into()
}

pub(crate) struct Machine {
    pub(crate) vmm: Child,
    directory: tempfile::TempDir,
    _one: MutexGuard<'static, ()>,
}

impl Machine {
    /// Boots with these disks; `true` for one that is read-only.
    pub(crate) fn boot(vcpus: u8, disks: &[(&Path, bool)]) -> Self {
        Self::boot_with(vcpus, disks, "")
    }

    /// The same, with more on the kernel's command line.
    pub(crate) fn boot_with(vcpus: u8, disks: &[(&Path, bool)], args: &str) -> Self {
        let one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::tempdir().unwrap();
        let drives: Vec<String> = disks
            .iter()
            .enumerate()
            .map(|(i, (path, read_only))| {
                format!(
                    r#"{{"drive_id":"d{i}","path_on_host":"{}","is_root_device":false,"is_read_only":{read_only}}}"#,
                    path.display()
                )
            })
            .collect();
        let config = format!(
            r#"{{"boot-source":{{"kernel_image_path":"{}","initrd_path":"{}",
                "boot_args":"console=ttyS0 quiet panic=1{args}"}},"drives":[{}],
                "machine-config":{{"vcpu_count":{vcpus},"mem_size_mib":256}},
                "vsock":{{"guest_cid":3,"uds_path":"{}"}},"entropy":{{}}}}"#,
            needed("SECOVIA_KERNEL").display(),
            needed("SECOVIA_INITRD").display(),
            drives.join(","),
            directory.path().join("vsock").display(),
        );
        let file = directory.path().join("vm.json");
        std::fs::write(&file, config).unwrap();
        let console = File::create(directory.path().join("console")).unwrap();
        let vmm = Command::new(needed("SECOVIA_VMM"))
            .args(["--no-api", "--grace", "60", "--config-file"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(console.try_clone().unwrap())
            .stderr(console)
            .spawn()
            .unwrap();
        Self {
            vmm,
            directory,
            _one: one,
        }
    }

    pub(crate) fn base() -> Self {
        Self::boot(2, &[(&needed("SECOVIA_IMAGE_BASE").join("rootfs.erofs"), true)])
    }

    pub(crate) fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.directory.path().join("console")).unwrap()).into_owned()
    }

    pub(crate) fn try_connect(&self) -> std::io::Result<Session> {
        let mut socket = UnixStream::connect(self.directory.path().join("vsock"))?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        writeln!(socket, "CONNECT {PORT}")?;
        // The guest speaks only when spoken to, so nothing but this line can be in the reader's buffer.
        let mut line = String::new();
        BufReader::with_capacity(1, &socket).read_line(&mut line)?;
        match line.starts_with("OK ") {
            true => Ok(Session::new(socket)),
            false => Err(std::io::ErrorKind::ConnectionRefused.into()),
        }
    }

    /// Connects as soon as the guest listens.
    pub(crate) fn connect(&self) -> Session {
        let begin = Instant::now();
        loop {
            match self.try_connect() {
                Ok(session) => return session,
                Err(error) => {
                    assert!(
                        begin.elapsed() < PATIENCE,
                        "{error}; the console says:\n{}",
                        self.console()
                    );
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }

    pub(crate) fn request(&self, request: Request) -> Session {
        let mut session = self.connect();
        session.send(&Frame::Request(request));
        session
    }

    pub(crate) fn stream(&self, request: Request) -> Session {
        let mut session = self.request(request);
        assert_eq!(session.next(), Some(DONE), "{}", self.console());
        session
    }

    pub(crate) fn start(&self, process: ProcessSpec) {
        let spec = WorkloadSpec {
            hostname: "guest-1".into(),
            network: None,
            process,
        };
        assert_eq!(self.request(Request::Start(spec)).next(), Some(DONE));
    }

    pub(crate) fn info(&self) -> GuestInfo {
        match self.request(Request::Info {}).next() {
            Some(Frame::Reply(Reply::Info(info))) => info,
            other => panic!("{other:?}"),
        }
    }

    /// Runs a script and returns what it wrote; it must succeed.
    pub(crate) fn run(&self, script: &str) -> String {
        self.run_as(sh(script))
    }

    pub(crate) fn run_as(&self, process: ProcessSpec) -> String {
        let what = process.argv.join(" ");
        let seen = self.stream(Request::Exec(process)).finish();
        let (out, err) = (
            String::from_utf8_lossy(&seen.out),
            String::from_utf8_lossy(&seen.err),
        );
        assert_eq!(seen.exit, Some(ExitStatus::Exited(0)), "{what}: {out}{err}");
        out.into_owned()
    }

    /// Waits for the VMM's end and returns its status.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.vmm.try_wait().unwrap() {
                return status.code();
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "it runs on; the console says:\n{}",
                self.console()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The kernel's last words are all that is on the console.
    pub(crate) fn complains_of_nothing(&self) {
        let console = self.console();
        let lines: Vec<&str> = console.lines().filter(|line| !line.trim().is_empty()).collect();
        let quiet = matches!(lines[..], [last] if last.ends_with("reboot: Power down"));
        assert!(quiet, "{console}");
    }

    pub(crate) fn shut_down(&mut self) {
        assert_eq!(
            self.request(Request::Shutdown { grace_ms: 20_000 }).next(),
            Some(DONE)
        );
        assert_eq!(self.ended(), Some(0), "{}", self.console());
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.vmm.kill();
        let _ = self.vmm.wait();
    }
}
