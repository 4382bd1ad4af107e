//! Telling which running processes are VMMs of ours.
//!
//! What a VMM says of itself is not believed: a guest may have taken it over, and a process can change its own command
//! line. What the kernel says is: its user, which no process but this VM's has, and that it is the first process of a
//! process namespace, which the processes that it might have started are not.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::launch::Launcher;
use super::place::{entries, read_number};
use super::vmm::Vmm;

/// How long a process may take between fork and exec.
const FORK_TIME: Duration = Duration::from_secs(10);

/// How long a jailer may take that an earlier agent left at work.
const JAILER_TIME: Duration = Duration::from_secs(20);

/// How long exec may take from the new program to its words.
const EXEC_TIME: Duration = Duration::from_secs(1);

/// How often something is looked at that takes a moment.
const POLL: Duration = Duration::from_millis(2);

/// A VMM that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// Its user, which tells whose it is.
    pub uid: u32,
    /// Its process.
    pub pid: u32,
}

/// Waits until no jailer of an earlier agent is at work any more: each has made its VMM or given up. One that does not
/// end is ended.
pub fn settle(launcher: &Launcher) -> io::Result<()> {
    for id in entries(&launcher.dirs.runtimes)? {
        if let Some(pid) = read_locked(&launcher.dirs.place(id).jailer_pid())? {
            // It may be in the middle of exec, where it has no words yet that it could be known by.
            let _ = command_line(pid);
        }
    }
    let begun = Instant::now();
    loop {
        let jailers: Vec<u32> = processes()?.filter(|pid| is_jailer(*pid, launcher)).collect();
        if jailers.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > JAILER_TIME {
            for pid in jailers {
                log::warn!("jailer {pid} of an earlier agent does not end: ended");
                end(pid)?;
            }
        }
        sleep(POLL);
    }
}

/// The VMMs that run, those first that the pid files lead to. `ours` tells the users that are VMs'.
///
/// The look at all processes is a second net: it also catches a VMM whose directory someone removed.
pub fn find(launcher: &Launcher, ours: impl Fn(u32) -> bool) -> io::Result<Vec<Found>> {
    let mut pids = Vec::new();
    for id in entries(&launcher.dirs.jails)? {
        pids.extend(read_number(&launcher.dirs.place(id).vmm_pid()));
    }
    for pid in processes()? {
        if !pids.contains(&pid) {
            pids.push(pid);
        }
    }
    let found = pids.into_iter().filter_map(|pid| {
        let uid = vmm_user(pid).filter(|uid| ours(*uid))?;
        Some(Found { uid, pid })
    });
    Ok(found.collect())
}

/// Whether the VMM that was found is still there.
pub fn is_vmm(found: Found) -> bool {
    vmm_user(found.pid) == Some(found.uid)
}

/// Takes hold of a VMM that was found; none where it has ended since. One that cannot be held is ended: what nobody
/// watches must not run.
pub fn take(found: Found) -> io::Result<Option<Vmm>> {
    let taken = Vmm::open(found.pid);
    // Looked at once more, now that the number cannot go to another process any more.
    if !is_vmm(found) {
        return Ok(None);
    }
    if taken.is_err() {
        // It was the VMM a moment ago, and there is no better way to name it.
        end(found.pid)?;
    }
    taken.map(Some)
}

fn end(pid: u32) -> io::Result<()> {
    match kill(Pid::from_raw(pid as i32), Signal::SIGKILL) {
        Err(errno) if errno != Errno::ESRCH => Err(errno.into()),
        _ => Ok(()),
    }
}

/// The number in a pid file, once nobody is about to write it: a process that was forked and has not become the jailer
/// yet holds the file's lock.
fn read_locked(path: &Path) -> io::Result<Option<u32>> {
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
        sleep(POLL);
    };
    let mut text = String::new();
    let mut file: &File = &locked;
    file.read_to_string(&mut text)?;
    Ok(text.trim_end().parse().ok())
}

fn processes() -> io::Result<impl Iterator<Item = u32>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
}

/// Whether the process is a jailer that works for this agent's VMs, or what it has started and is about to become a VMM.
fn is_jailer(pid: u32, launcher: &Launcher) -> bool {
    let Some(words) = command_line(pid) else {
        return false;
    };
    let program = words
        .first()
        .map(|word| Path::new(std::ffi::OsStr::from_bytes(word)).file_name());
    let base = words.iter().position(|word| word == b"--chroot-base-dir");
    let base = base.and_then(|at| words.get(at + 1)).map(Vec::as_slice);
    program == Some(launcher.jailer.file_name())
        && base == Some(launcher.dirs.jail_base.as_os_str().as_bytes())
        // A VMM that says so is none.
        && !matches!(vmm_user(pid), Some(1..))
}

/// The words of a process that has a program (a kernel's thread has none, nor has one that only waits to be reaped). In
/// the middle of exec it has the program already and its words not yet.
fn command_line(pid: u32) -> Option<Vec<Vec<u8>>> {
    let begun = Instant::now();
    loop {
        let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        if !bytes.is_empty() {
            return Some(bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect());
        }
        // VmSize: a process without memory of its own never gets words.
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        if field(&status, "VmSize:").is_none() || begun.elapsed() > EXEC_TIME {
            return None;
        }
        sleep(Duration::from_millis(1));
    }
}

/// The user of a process that is the first of a process namespace below ours.
fn vmm_user(pid: u32) -> Option<u32> {
    user_of_first(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// The same, from a process's `/proc/PID/status` (proc_pid_status(5)).
fn user_of_first(status: &str) -> Option<u32> {
    // What was ended and waits to be reaped does not run.
    if field(status, "State:")?.starts_with(['Z', 'X']) {
        return None;
    }
    // Its numbers in each namespace from ours inwards.
    let numbers: Vec<&str> = field(status, "NSpid:")?.split_whitespace().collect();
    if numbers.len() < 2 || numbers.last() != Some(&"1") {
        return None;
    }
    let mut users = field(status, "Uid:")?.split_whitespace();
    let user = users.next()?;
    users.all(|other| other == user).then(|| user.parse().ok())?
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim_start)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str =
        "Name:\tx\nState:\tS (sleeping)\nUid:\t900001\t900001\t900001\t900001\nNSpid:\t812\t1\n";

    #[test]
    fn a_vmm_is_known_by_what_the_kernel_says() {
        assert_eq!(user_of_first(STATUS), Some(900_001));
        for (what, instead) in [
            // One that was ended, one of the host's, one that a VMM started, one between two users.
            ("S (sleeping)", "Z (zombie)"),
            ("812\t1", "1"),
            ("812\t1", "813\t2"),
            ("900001\t900001\t900001\t900001", "900001\t0\t900001\t900001"),
        ] {
            assert_eq!(user_of_first(&STATUS.replace(what, instead)), None, "{instead}");
        }
    }

    #[test]
    fn neither_this_process_nor_one_that_is_gone_is_a_vmm() {
        assert_eq!(vmm_user(std::process::id()), None);
        assert_eq!(vmm_user(u32::MAX >> 1), None);
        assert!(processes().unwrap().any(|pid| pid == std::process::id()));
        assert!(command_line(std::process::id()).is_some());
    }

    /// A process between fork and exec holds the lock: whoever looks waits for its number.
    #[test]
    fn a_locked_pid_file_is_read_only_when_it_is_final() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        assert_eq!(read_locked(&path).unwrap(), None);
        fs::write(&path, "").unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let lock = Flock::lock(file, FlockArg::LockExclusive).unwrap();
        let written = path.clone();
        let writer = std::thread::spawn(move || {
            sleep(Duration::from_millis(100));
            fs::write(written, "7\n").unwrap();
            drop(lock);
        });
        assert_eq!(read_locked(&path).unwrap(), Some(7));
        writer.join().unwrap();
    }
}
