//! Telling which running processes are VMMs of ours.
//!
//! A number in a file may by now belong to any process. It is believed only where the process runs the VMM's program
//! with this VM's identifier and configuration file on its command line.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::place::{Place, entries};
use super::vmm::Vmm;
use crate::records::VmId;

/// How long a process may take between fork and exec.
const FORK_TIME: Duration = Duration::from_secs(10);

/// How long exec may take from the new program to its words.
const EXEC_TIME: Duration = Duration::from_secs(1);

/// A VMM that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// Whose.
    pub id: VmId,
    /// Its process.
    pub pid: u32,
}

/// The VMMs that the pid files below `runtime_dir` lead to, `vmm` being the program that is started.
pub fn find_by_pid_files(vmm: &Path, runtime_dir: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for id in entries(&Place::runtimes(runtime_dir))? {
        let place = Place::new(runtime_dir, Path::new(""), id);
        if let Some(pid) = read_pid(&place.pid())?
            && is_vmm_of(pid, vmm, runtime_dir, id)
        {
            found.push(Found { id, pid });
        }
    }
    Ok(found)
}

/// The VMMs that a look at all processes finds. With the pid files this is a second net: it also catches a VMM whose
/// runtime directory someone removed.
pub fn find_by_scan(vmm: &Path, runtime_dir: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if !runs(pid, vmm) {
            continue;
        }
        let id = command_line(pid).and_then(|words| id_of(&words));
        if let Some(id) = id
            && is_vmm_of(pid, vmm, runtime_dir, id)
        {
            found.push(Found { id, pid });
        }
    }
    Ok(found)
}

/// Whether the VMM that was found is still there.
pub fn is_vmm(found: Found, vmm: &Path, runtime_dir: &Path) -> bool {
    is_vmm_of(found.pid, vmm, runtime_dir, found.id)
}

/// Takes hold of a VMM that was found; none where it has ended since. One that cannot be held is ended: what nobody
/// watches must not run.
pub fn take(found: Found, vmm: &Path, runtime_dir: &Path) -> io::Result<Option<Vmm>> {
    let taken = Vmm::open(found.pid);
    // Looked at once more, now that the number cannot go to another process any more.
    if !is_vmm(found, vmm, runtime_dir) {
        return Ok(None);
    }
    if taken.is_err() {
        // It was the VMM a moment ago, and there is no better way to name it.
        kill(Pid::from_raw(found.pid as i32), Signal::SIGKILL)?;
    }
    taken.map(Some)
}

/// The number in a pid file, once nobody is about to write it: a process that was forked and has not become the VMM
/// yet holds the file's lock.
fn read_pid(path: &Path) -> io::Result<Option<u32>> {
    let mut file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let begun = Instant::now();
    let locked = loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => break locked,
            Err((back, Errno::EWOULDBLOCK)) if begun.elapsed() < FORK_TIME => file = back,
            Err((_, errno)) => return Err(errno.into()),
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let mut text = String::new();
    let mut file: &File = &locked;
    file.read_to_string(&mut text)?;
    Ok(text.trim_end().parse().ok())
}

/// Whether the process runs the program `vmm`, for this VM.
fn is_vmm_of(pid: u32, vmm: &Path, runtime_dir: &Path, id: VmId) -> bool {
    if !runs(pid, vmm) {
        return false;
    }
    let Some(words) = command_line(pid) else {
        return false;
    };
    let config = Place::new(runtime_dir, Path::new(""), id).config();
    id_of(&words) == Some(id) && argument(&words, b"--config-file") == Some(config.as_os_str().as_bytes())
}

/// Whether the process runs this program. Its file may have been replaced since (`… (deleted)`), so it is compared by
/// name.
fn runs(pid: u32, program: &Path) -> bool {
    let Ok(exe) = fs::read_link(format!("/proc/{pid}/exe")) else {
        return false;
    };
    let exe = exe.file_name().unwrap_or_default().as_bytes();
    let exe = exe.strip_suffix(b" (deleted)").unwrap_or(exe);
    exe == program.file_name().unwrap_or_default().as_bytes()
}

/// The words of a process that has a program (a kernel's thread has none). In the middle of exec it has the program
/// already and its words not yet.
fn command_line(pid: u32) -> Option<Vec<Vec<u8>>> {
    let begun = Instant::now();
    loop {
        let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        if !bytes.is_empty() {
            return Some(bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect());
        }
        if begun.elapsed() > EXEC_TIME {
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn id_of(words: &[Vec<u8>]) -> Option<VmId> {
    std::str::from_utf8(argument(words, b"--id")?).ok()?.parse().ok()
}

fn argument<'a>(words: &'a [Vec<u8>], key: &[u8]) -> Option<&'a [u8]> {
    let at = words.iter().position(|word| word == key)?;
    words.get(at + 1).map(Vec::as_slice)
}
