//! A machine of `secovia-vmm` as a test sees it: a configuration file, a process, what came out on its console.
//!
//! Everything here is for tests and panics where something is not as it must be, with the console's output.

pub mod api;
pub mod break_out;
mod cpio;
pub mod network;
pub mod service;
mod tools;

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use secovia_vmm_api::{BootSourceSpec, CacheType, DriveSpec, EntropySpec, MachineSpec, VmSpec, VsockSpec};

/// Long enough for Debian's kernel under emulation on a busy machine; a machine that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(120);
const TICK: Duration = Duration::from_millis(10);
/// The disk with programs of the host's.
const TOOLS: &str = "tools";

/// A path that `ci/test` hands over.
pub fn given(name: &str) -> PathBuf {
    match std::env::var_os(name) {
        Some(path) => path.into(),
        None => panic!("{name} is not set: run these tests by ci/test linux"),
    }
}

/// A machine that is not started yet, and the folder with its files.
#[derive(Debug)]
pub struct Bench {
    folder: tempfile::TempDir,
    /// The machine, to be changed before the start.
    pub spec: VmSpec,
    arguments: Vec<OsString>,
    api: Option<PathBuf>,
}

impl Bench {
    /// One vCPU and 256 MiB, the reporting initramfs, no disk; `report` says what the guest does at the end.
    pub fn new(kernel: &Path, report: &str) -> Self {
        Self {
            folder: tempfile::tempdir().expect("make a temporary folder"),
            spec: VmSpec {
                boot_source: Some(BootSourceSpec {
                    kernel_image_path: kernel.into(),
                    initrd_path: Some(given("SECOVIA_REPORT_INITRD")),
                    boot_args: Some(format!("console=ttyS0 quiet panic=-1 report={report}")),
                }),
                machine_config: MachineSpec {
                    vcpu_count: 1,
                    mem_size_mib: 256,
                    ..MachineSpec::default()
                },
                ..VmSpec::default()
            },
            arguments: vec![],
            api: None,
        }
    }

    /// The folder of this machine's files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Adds an argument to the VMM's command line.
    pub fn argument(&mut self, argument: &str) {
        self.arguments.push(argument.into());
    }

    /// Adds a disk of so many MiB that begins with `head`; gives back its file.
    pub fn add_disk(&mut self, name: &str, mib: u64, head: &str, read_only: bool) -> PathBuf {
        let path = self.folder().join(format!("{name}.img"));
        fs::write(&path, head).expect("write a disk");
        let file = fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .expect("open a disk");
        file.set_len(mib << 20).expect("grow a disk");
        self.spec.drives.push(DriveSpec {
            drive_id: name.into(),
            path_on_host: Some(path.clone()),
            is_read_only: read_only,
            cache_type: CacheType::Writeback,
            ..DriveSpec::default()
        });
        path
    }

    /// Adds a disk with programs of this host's, which [`Bench::script`] finds by their names.
    pub fn add_tools(&mut self, programs: &[&Path]) {
        self.spec.drives.push(DriveSpec {
            drive_id: TOOLS.into(),
            path_on_host: Some(tools::disk(self.folder(), programs)),
            is_read_only: true,
            ..DriveSpec::default()
        });
    }

    /// Has the guest run a shell script as its first program, in place of the one that reports. It finds busybox's
    /// programs, those of [`Bench::add_tools`] if that was called before, and /proc, /sys and /dev; the power goes off at
    /// its end.
    pub fn script(&mut self, script: &str) {
        const BEFORE: &str = "#!/bin/busybox sh\n/bin/busybox --install -s /bin\nexport PATH=/bin\n\
            mount -t proc proc /proc\nmount -t sysfs sysfs /sys\nmount -t devtmpfs dev /dev\n";
        let boot = self.spec.boot_source.as_mut().expect("there is one");
        let initrd = boot.initrd_path.as_mut().expect("there is one");
        let mut archive = fs::read(&*initrd).expect("read the reporting initramfs");
        archive.resize(archive.len().next_multiple_of(4), 0);
        let disk = ('a'..='z')
            .zip(&self.spec.drives)
            .find(|(_, drive)| drive.drive_id == TOOLS);
        let tools = disk.map(|(letter, _)| tools::use_them(&format!("/dev/vd{letter}")));
        let script = format!("{BEFORE}{}{script}\npoweroff -f\n", tools.unwrap_or_default());
        archive.extend(cpio::with_program("init", script.as_bytes()));
        *initrd = self.folder.path().join("initrd");
        fs::write(initrd, archive).expect("write the initramfs");
    }

    /// Adds the socket device and the entropy device; gives back the socket's path.
    pub fn add_vsock_and_entropy(&mut self) -> PathBuf {
        let path = self.folder().join("vsock.sock");
        self.spec.vsock = Some(VsockSpec {
            guest_cid: 3,
            uds_path: path.clone(),
            ..VsockSpec::default()
        });
        self.spec.entropy = Some(EntropySpec::default());
        path
    }

    /// Has the machine serve its API; gives back the socket's path.
    pub fn serve_api(&mut self) -> PathBuf {
        let path = self.folder().join("api.sock");
        self.api = Some(path.clone());
        path
    }

    /// Starts it.
    pub fn start(self) -> Machine {
        let config = self.folder().join("vm.json");
        fs::write(&config, serde_json::to_vec(&self.spec).expect("a spec is JSON"))
            .expect("write the configuration");
        let api = match &self.api {
            Some(path) => vec!["--api-sock".into(), path.into()],
            None => vec![OsString::from("--no-api")],
        };
        let mut child = Command::new(given("SECOVIA_VMM"))
            .arg("--config-file")
            .arg(&config)
            .args(api)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start secovia-vmm");
        let console = Output::follow(child.stdout.take().expect("a pipe was asked for"));
        let errors = Output::follow(child.stderr.take().expect("a pipe was asked for"));
        Machine {
            child,
            console,
            errors,
            since: Instant::now(),
            _folder: self.folder,
        }
    }
}

/// What a process writes, collected while it runs.
#[derive(Debug)]
struct Output {
    text: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Output {
    fn follow(mut from: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&text);
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                shared
                    .lock()
                    .expect("no thread panics with it")
                    .extend(&buffer[..length]);
            }
        });
        Self { text, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().expect("no thread panics with it")).into_owned()
    }
}

/// A machine that runs. Dropped, it is killed.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    console: Output,
    errors: Output,
    since: Instant,
    _folder: tempfile::TempDir,
}

/// How a machine ended.
#[derive(Debug)]
pub struct End {
    /// The exit status of the VMM; `None` where a signal ended it.
    pub code: Option<i32>,
    /// All that came out on the serial console.
    pub console: String,
    /// All that the VMM said itself.
    pub errors: String,
}

impl Machine {
    /// The VMM's process.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process identifier is an i32")
    }

    /// Sends the VMM a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("signal the VMM");
    }

    /// Waits until the console shows a line.
    pub fn wait_for_line(&mut self, line: &str) {
        while !has_line(&self.console.text(), line) {
            let ended = self.child.try_wait().expect("ask for the VMM's end");
            self.check(
                ended.is_none(),
                &format!("ended with {ended:?} before the line {line:?}"),
            );
            self.check(self.since.elapsed() < LIMIT, &format!("no line {line:?}"));
            thread::sleep(TICK);
        }
    }

    /// What came out on the serial console so far.
    pub fn console(&self) -> String {
        self.console.text()
    }

    /// Waits for the end; the machine's files go with it.
    pub fn end(self) -> End {
        self.end_and(|_| ())
    }

    /// Waits for the end, and looks at the machine's files before they go.
    pub fn end_and(mut self, look: impl FnOnce(&End)) -> End {
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("ask for the VMM's end") {
                break status;
            }
            self.check(self.since.elapsed() < LIMIT, "no end");
            thread::sleep(TICK);
        };
        // The pipes are at their end once the process is: nobody else holds them.
        while !(self.console.reader.is_finished() && self.errors.reader.is_finished()) {
            thread::sleep(TICK);
        }
        let end = End {
            code: status.code(),
            console: self.console.text(),
            errors: self.errors.text(),
        };
        look(&end);
        end
    }

    fn check(&self, good: bool, what: &str) {
        assert!(
            good,
            "{what} after {:?}\n--- console:\n{}\n--- VMM:\n{}",
            self.since.elapsed(),
            self.console.text(),
            self.errors.text()
        );
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended already; then both have nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl End {
    /// The rest of the first line that begins so.
    pub fn line(&self, start: &str) -> &str {
        match self.console.lines().find_map(|line| line.strip_prefix(start)) {
            Some(rest) => rest.trim_end(),
            None => panic!("no line begins with {start:?}\n{self}"),
        }
    }

    /// The console shows this line.
    pub fn assert_line(&self, line: &str) {
        assert!(has_line(&self.console, line), "no line {line:?}\n{self}");
    }

    /// The VMM ended with this status.
    pub fn assert_code(&self, code: u8) {
        assert_eq!(self.code, Some(i32::from(code)), "\n{self}");
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "--- status {:?}, console:\n{}\n--- VMM:\n{}",
            self.code, self.console, self.errors
        )
    }
}

/// A serial console ends its lines with a carriage return too.
fn has_line(text: &str, line: &str) -> bool {
    text.lines().any(|found| found.trim_end() == line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_whole_or_not_at_all() {
        assert!(has_line("a\r\nreport: up\r\nb", "report: up"));
        assert!(!has_line("report: up and down\n", "report: up"));
        assert!(!has_line("", "report: up"));
    }
}
