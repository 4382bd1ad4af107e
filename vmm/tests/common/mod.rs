//! A machine for a test: its files in a folder of their own, and the VMM's process.
#![allow(dead_code, reason = "each test program uses its own part")]

pub(crate) mod api;
pub(crate) mod taps;

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use secovia_stub_guests::Guest;
use serde_json::{Value, json};

/// What a stub's disk starts with.
pub(crate) const DISK_CONTENTS: &[u8; 16] = b"sector 0 is here";

/// Whether tests with guests can run; says loudly where not. `if !kvm() { return }`.
pub(crate) fn kvm() -> bool {
    match fs::File::options().read(true).write(true).open("/dev/kvm") {
        Ok(_) => true,
        Err(error) => {
            skip(&format!("/dev/kvm: {error}"));
            false
        }
    }
}

/// The value of an environment variable that names a file which a test needs; says loudly where it is not set.
pub(crate) fn needed(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    if path.is_none() {
        skip(&format!("{variable} is not set"));
    }
    path
}

/// Says so past the test harness, which keeps what passing tests print to itself.
pub(crate) fn skip(reason: &str) {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(std::io::stderr(), "SKIP: {test}: {reason}");
}

/// The program under test.
pub(crate) fn vmm() -> PathBuf {
    std::env::var_os("SECOVIA_VMM").map_or_else(|| env!("CARGO_BIN_EXE_secovia-vmm").into(), PathBuf::from)
}

/// A folder for one machine; goes when it is dropped.
pub(crate) struct Machine {
    pub(crate) folder: PathBuf,
    pub(crate) spec: Value,
    pub(crate) arguments: Vec<String>,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: Option<i32>,
    pub(crate) output: String,
    pub(crate) errors: String,
    pub(crate) taken: Duration,
}

impl Machine {
    /// A machine of 128 MiB with one disk that boots `kernel`.
    pub(crate) fn with_kernel(kernel: &Path) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("secovia-vmm-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let disk = folder.join("disk");
        let mut contents = DISK_CONTENTS.to_vec();
        contents.resize(1 << 20, 0);
        fs::write(&disk, contents).unwrap();
        let spec = json!({
            "boot-source": { "kernel_image_path": kernel },
            "drives": [{ "drive_id": "disk", "path_on_host": disk, "is_root_device": false }],
            "machine-config": { "vcpu_count": 1, "mem_size_mib": 128 },
        });
        Self {
            folder,
            spec,
            arguments: Vec::new(),
        }
    }

    /// A machine that boots a stub guest.
    pub(crate) fn stub(guest: Guest) -> Self {
        Self::bytes(&guest.elf())
    }

    /// A machine whose kernel is `kernel`.
    pub(crate) fn bytes(kernel: &[u8]) -> Self {
        let machine = Self::with_kernel(Path::new(""));
        let path = machine.folder.join("kernel");
        fs::write(&path, kernel).unwrap();
        machine.with("/boot-source/kernel_image_path", json!(path))
    }

    /// Replaces or adds the field at a JSON pointer.
    pub(crate) fn with(mut self, pointer: &str, value: Value) -> Self {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let parent = self.spec.pointer_mut(parent).unwrap();
        match parent {
            Value::Array(list) => list[name.parse::<usize>().unwrap()] = value,
            other => other[name] = value,
        }
        self
    }

    /// Adds a socket device; its socket is at [`Self::socket`].
    pub(crate) fn with_vsock(self) -> Self {
        let socket = self.socket();
        self.with("/vsock", json!({ "guest_cid": 3, "uds_path": socket }))
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("v.sock")
    }

    pub(crate) fn argument(mut self, words: &str) -> Self {
        self.arguments.extend(words.split_whitespace().map(String::from));
        self
    }

    /// Starts the VMM.
    pub(crate) fn start(&self) -> Running {
        self.start_text(&self.spec.to_string())
    }

    /// Starts the VMM with the guest's console on `output`.
    pub(crate) fn start_to(&self, output: Stdio) -> Running {
        self.start_text_to(&self.spec.to_string(), output)
    }

    /// Starts the VMM with a configuration file of this text.
    pub(crate) fn start_text(&self, config: &str) -> Running {
        self.start_text_to(config, Stdio::piped())
    }

    /// Starts the VMM by a program that takes its command line, with this as standard input.
    pub(crate) fn start_by(&self, mut program: Command, input: Stdio) -> Running {
        program.arg(vmm());
        self.start_as(program, &self.spec.to_string(), input, Stdio::piped())
    }

    fn start_text_to(&self, config: &str, output: Stdio) -> Running {
        self.start_as(Command::new(vmm()), config, Stdio::piped(), output)
    }

    /// The API's socket, where there is one.
    pub(crate) fn api_socket(&self) -> PathBuf {
        self.folder.join("api.sock")
    }

    /// Starts the VMM with its API, and nothing that says which machine it is to be.
    pub(crate) fn start_empty(&self) -> (Running, api::Api) {
        self.start_with_api(&[])
    }

    /// Starts the VMM with its API and the configuration file.
    pub(crate) fn start_served(&self) -> (Running, api::Api) {
        let file = self.folder.join("vm.json");
        fs::write(&file, self.spec.to_string()).unwrap();
        self.start_with_api(&["--config-file".into(), file.display().to_string()])
    }

    fn start_with_api(&self, words: &[String]) -> (Running, api::Api) {
        let started = Instant::now();
        let child = Command::new(vmm())
            .arg("--api-sock")
            .arg(self.api_socket())
            .args(words)
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let running = Running {
            child,
            started,
            seen: Vec::new(),
        };
        (running, api::Api::at(&self.api_socket()))
    }

    fn start_as(&self, mut program: Command, config: &str, input: Stdio, output: Stdio) -> Running {
        let file = self.folder.join("vm.json");
        fs::write(&file, config).unwrap();
        let started = Instant::now();
        let child = program
            .arg("--config-file")
            .arg(file)
            .arg("--no-api")
            .args(&self.arguments)
            .stdin(input)
            .stdout(output)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Running {
            child,
            started,
            seen: Vec::new(),
        }
    }

    /// Runs the VMM to its end.
    pub(crate) fn run(&self) -> Outcome {
        self.start().end()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A VMM that runs.
pub(crate) struct Running {
    child: Child,
    started: Instant,
    seen: Vec<u8>,
}

impl Running {
    pub(crate) fn id(&self) -> i32 {
        self.child.id() as i32
    }

    /// Reads the guest's output up to and with `text`.
    pub(crate) fn wait_for(&mut self, text: &str) {
        let output = self.child.stdout.as_mut().unwrap();
        let mut byte = [0];
        while !self.seen.ends_with(text.as_bytes()) {
            let length = output.read(&mut byte).unwrap();
            assert_ne!(
                length,
                0,
                "no {text:?} in {:?}",
                String::from_utf8_lossy(&self.seen)
            );
            self.seen.push(byte[0]);
        }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.id()), signal).unwrap();
    }

    /// Types on the console.
    pub(crate) fn type_in(&mut self, text: &str) {
        self.child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }

    /// Waits for the end.
    pub(crate) fn end(mut self) -> Outcome {
        drop(self.child.stdin.take());
        let (mut output, mut errors) = (std::mem::take(&mut self.seen), String::new());
        // None where the console goes elsewhere.
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout.read_to_end(&mut output).unwrap();
        }
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut errors)
            .unwrap();
        let status = self.child.wait().unwrap().code();
        let output = String::from_utf8_lossy(&output).into_owned();
        Outcome {
            status,
            output,
            errors,
            taken: self.started.elapsed(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
