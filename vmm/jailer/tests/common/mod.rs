//! What the tests of a jail share: the program under test, jails with files of their own, and a look at what is left.
//!
//! A test program is also what runs in the jail: started with [`WITNESS`] it is [`witness`] and nothing else.
#![allow(dead_code, reason = "each test program uses its own part")]

pub(crate) mod witness;

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};

use libtest_mimic::{Arguments, Failed, Trial};
use rustix::process::{Pid, WaitOptions, waitpid};
use serde_json::Value;

/// The first argument by which a test program knows that it is in the jail.
pub(crate) const WITNESS: &str = "--witness";
/// The user and group of the jails.
pub(crate) const UID: u32 = 912_345;
pub(crate) const GID: u32 = 912_346;

/// What a test comes to.
pub(crate) type Outcome = Result<(), Failed>;

/// A test and its name.
pub(crate) type Test = (&'static str, fn() -> Outcome);

/// The main function of a test program.
pub(crate) fn main(tests: &[Test]) -> ExitCode {
    if std::env::args().any(|argument| argument == WITNESS) {
        return witness::testify();
    }
    let trial = |&(name, test): &Test| {
        Trial::test(name, move || {
            if !rustix::process::geteuid().is_root() {
                skip(name, "only root can make a jail");
                Ok(())
            } else if !Path::new("/dev/kvm").exists() {
                skip(name, "there is no /dev/kvm, which every jail has");
                Ok(())
            } else {
                test()
            }
        })
    };
    let arguments = Arguments::from_args();
    libtest_mimic::run(&arguments, tests.iter().map(trial).collect()).exit_code()
}

/// Says that a test cannot be had here; it is counted as skipped.
pub(crate) fn skip(name: &str, reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIP: {name}: {reason}");
}

/// The program under test.
pub(crate) fn jailer() -> PathBuf {
    std::env::var_os("SECOVIA_JAILER")
        .map_or_else(|| env!("CARGO_BIN_EXE_secovia-jailer").into(), PathBuf::from)
}

/// This test program, which runs in the jail.
pub(crate) fn program() -> PathBuf {
    std::env::current_exe().unwrap()
}

/// What the jail calls the program.
pub(crate) fn program_name() -> String {
    program().file_name().unwrap().to_str().unwrap().to_owned()
}

/// Files for one machine, and the folder that its jail is made in.
pub(crate) struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("secovia-jailer-")
            .tempdir()
            .unwrap();
        let host = Self { folder };
        fs::write(host.path("kernel"), "a kernel").unwrap();
        fs::write(host.path("disk"), "a disk").unwrap();
        host
    }

    /// The path of a file of this machine.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where the jails are.
    pub(crate) fn base(&self) -> PathBuf {
        self.path("jails")
    }

    /// The machine's folder.
    pub(crate) fn machine(&self) -> PathBuf {
        self.base().join(program_name()).join("m-1")
    }

    /// The words that every jail needs.
    pub(crate) fn command(&self) -> Command {
        self.command_for(&program(), &self.base())
    }

    pub(crate) fn command_for(&self, program: &Path, base: &Path) -> Command {
        let mut command = Command::new(jailer());
        command
            .args([
                "--id",
                "m-1",
                "--uid",
                &UID.to_string(),
                "--gid",
                &GID.to_string(),
            ])
            .arg("--exec-file")
            .arg(program)
            .arg("--chroot-base-dir")
            .arg(base);
        command
    }

    /// `--file` with a file of this machine.
    pub(crate) fn grant(&self, name: &str, rest: &str) -> [OsString; 2] {
        let mut grant = self.path(name).into_os_string();
        grant.push(format!(":{rest}"));
        ["--file".into(), grant]
    }

    /// Everything in this machine's folder, as far as a jailer that failed may have changed it.
    pub(crate) fn snapshot(&self) -> Vec<String> {
        let mut entries = Vec::new();
        list(self.folder.path(), &mut entries);
        entries.sort();
        entries
    }
}

fn list(folder: &Path, entries: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let data = path.symlink_metadata().unwrap();
        entries.push(format!(
            "{} mode {:o} owner {} {} links {} size {} target {:?}",
            path.display(),
            data.mode(),
            data.uid(),
            data.gid(),
            data.nlink(),
            data.len(),
            fs::read_link(&path).ok(),
        ));
        if data.is_dir() {
            list(&path, entries);
        }
    }
}

/// A jail whose witness has spoken and waits to be let go.
pub(crate) struct Jailed {
    child: Child,
    /// Its end lets the witness go.
    input: Option<ChildStdin>,
    /// What the witness saw.
    pub(crate) seen: Value,
    /// The witness, as seen from here.
    pub(crate) pid: i32,
}

impl Jailed {
    /// Starts a jail that holds the witness, with more of the jailer's words.
    pub(crate) fn start(host: &Host, words: &[&str]) -> Self {
        let mut command = host.command();
        command.args(words);
        Self::run(host, command, &[])
    }

    /// Starts this one, with arguments for the witness.
    pub(crate) fn run(host: &Host, mut command: Command, arguments: &[&str]) -> Self {
        let own_process = command.get_args().any(|word| word == "--new-pid-ns");
        command.arg("--").arg(WITNESS).args(arguments);
        // Something of the host's that must not come through.
        command.env("SECRET", "of the host");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        if line.is_empty() {
            let mut errors = String::new();
            child
                .stderr
                .as_mut()
                .unwrap()
                .read_to_string(&mut errors)
                .unwrap();
            panic!("no word from the jail: {errors}");
        }
        let seen = serde_json::from_str(&line).unwrap();
        let text = fs::read_to_string(host.machine().join("vmm.pid")).unwrap();
        let pid = text.trim_end().parse().unwrap();
        assert_eq!(own_process, pid != child.id() as i32);
        let input = child.stdin.take();
        if own_process {
            assert_eq!(child.wait().unwrap().code(), Some(0));
        }
        Self {
            child,
            input,
            seen,
            pid,
        }
    }

    /// A file of /proc about the witness.
    pub(crate) fn proc(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.pid)).unwrap()
    }

    /// Where a link of /proc about the witness leads.
    pub(crate) fn link(&self, name: &str) -> String {
        let path = format!("/proc/{}/{name}", self.pid);
        fs::read_link(path).unwrap().display().to_string()
    }

    /// One line of its status.
    pub(crate) fn status(&self, name: &str) -> String {
        let status = self.proc("status");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name} in {status}"))
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Lets it go; the jailer's status, and the witness's where that is a process of its own.
    pub(crate) fn end(mut self) -> (Option<i32>, Option<i32>) {
        drop(self.input.take());
        let own = self.pid == self.child.id() as i32;
        let jailer = self.child.wait().unwrap().code();
        (jailer, if own { jailer } else { reap(self.pid) })
    }
}

/// Waits for a child that no [`Child`] stands for; its status.
pub(crate) fn reap(pid: i32) -> Option<i32> {
    let (_, status) = waitpid(Pid::from_raw(pid), WaitOptions::empty()).unwrap()?;
    status.exit_status()
}
