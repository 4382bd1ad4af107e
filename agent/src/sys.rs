//! The few system calls that no library wraps safely. All of the crate's unsafe code is here.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A file descriptor that stands for a process and becomes readable when it ends, safe from reuse of its number.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers, touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us (close-on-exec), nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Lets the runtime watch a pidfd.
pub fn watch_pidfd(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` owns its descriptor, and nobody replaces or closes it while the `AsyncFd` has it.
    let watched = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
    Ok(watched?)
}

/// Lets the runtime watch a file that tells of something urgent (`POLLPRI`), as a pressure trigger does.
pub fn watch_priority(file: File) -> io::Result<AsyncFd<File>> {
    // SAFETY: a `File` owns its descriptor, and nobody replaces or closes it while the `AsyncFd` has it.
    let watched = unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) };
    Ok(watched?)
}

/// Sends a signal to the process behind a pidfd. A process that is gone already is no error.
pub fn pidfd_kill(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: a valid descriptor, integers and a null pointer, which the call allows for its third argument.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            fd,
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        error => Err(error),
    }
}

/// The highest `oom_score_adj` (Linux, filesystems/proc).
const FIRST_TO_GO: &[u8] = b"1000";

/// What a process does between fork and exec: it becomes the first to be ended where memory runs out, and what is asked.
#[derive(Debug, Clone, Copy)]
pub struct BeforeExec {
    /// It writes its number there.
    pub pid_file: RawFd,
    /// It joins the control group that has this `cgroup.procs`.
    pub cgroup_procs: Option<RawFd>,
    /// It shares no processor core with others (Linux, admin-guide/hw-vuln/core-scheduling).
    pub core_scheduling: bool,
}

impl BeforeExec {
    /// Lets `command`'s process do so, as the leader of a session of its own.
    ///
    /// The descriptors are to be close-on-exec and must stay open until the process was spawned. Every descriptor above
    /// standard error is closed at exec, so that nothing of the agent leaks.
    pub fn install(self, command: &mut Command) {
        let hook = move || self.run();
        // SAFETY: between fork and exec the hook only makes async-signal-safe calls; it neither allocates nor locks.
        unsafe { command.pre_exec(hook) };
    }

    fn run(self) -> io::Result<()> {
        // SAFETY: these calls are async-signal-safe and take integers or the buffer on this stack.
        unsafe {
            if libc::setsid() < 0 {
                return Err(io::Error::last_os_error());
            }
            let mut text = [0u8; 12];
            let length = decimal(libc::getpid() as u32, &mut text);
            if libc::write(self.pid_file, text.as_ptr().cast(), length) != length as isize
                || libc::fsync(self.pid_file) != 0
            {
                return Err(io::Error::last_os_error());
            }
            if let Some(procs) = self.cgroup_procs
                && libc::write(procs, b"0".as_ptr().cast(), 1) != 1
            {
                return Err(io::Error::last_os_error());
            }
            if self.core_scheduling {
                core_cookie()?;
            }
            // Should the kernel run out of memory all the same, it ends a microVM, never what is the owner's. To offer
            // oneself takes no right, and what cannot be offered must not keep a VM from starting.
            let scores = libc::open(
                c"/proc/self/oom_score_adj".as_ptr(),
                libc::O_WRONLY | libc::O_CLOEXEC,
            );
            if scores >= 0 {
                libc::write(scores, FIRST_TO_GO.as_ptr().cast(), FIRST_TO_GO.len());
                libc::close(scores);
            }
            // Refused only by kernels before 5.11; what the agent opens is close-on-exec anyway.
            libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        }
        Ok(())
    }
}

/// Whether the kernel is able to keep processes off each other's cores, or need not: it runs one thread on each.
pub fn has_core_scheduling() -> bool {
    const ONE_THREAD: libc::c_ulong = 0; // PIDTYPE_PID
    let mut cookie = 0u64;
    // SAFETY: the kernel writes one `u64` to the address, which is `cookie`'s.
    let result = unsafe {
        libc::prctl(
            libc::PR_SCHED_CORE,
            libc::PR_SCHED_CORE_GET as libc::c_ulong,
            0 as libc::c_ulong,
            ONE_THREAD,
            &raw mut cookie,
        )
    };
    result == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::ENODEV)
}

/// Gives this process, and all that it starts, a core scheduling group of its own. Where no two threads share a core
/// (`ENODEV`) there is nothing to keep apart.
fn core_cookie() -> io::Result<()> {
    const WHOLE_PROCESS: libc::c_ulong = 1; // PIDTYPE_TGID
    // SAFETY: takes integers, touches no memory.
    let result = unsafe {
        libc::prctl(
            libc::PR_SCHED_CORE,
            libc::PR_SCHED_CORE_CREATE as libc::c_ulong,
            0 as libc::c_ulong,
            WHOLE_PROCESS,
            0 as libc::c_ulong,
        )
    };
    match io::Error::last_os_error() {
        error if result < 0 && error.raw_os_error() != Some(libc::ENODEV) => Err(error),
        _ => Ok(()),
    }
}

/// Writes `value` and a line end, without the allocation that formatting would need. Returns how many bytes.
fn decimal(value: u32, text: &mut [u8; 12]) -> usize {
    let mut digits = [0u8; 10];
    let mut rest = value;
    let mut count = 0;
    loop {
        digits[count] = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
        if rest == 0 {
            break;
        }
    }
    for place in 0..count {
        text[place] = digits[count - 1 - place];
    }
    text[count] = b'\n';
    count + 1
}

/// The supplementary groups of a Unix socket's peer, as they were when it connected.
pub fn peer_groups(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let fd = socket.as_fd().as_raw_fd();
    let mut groups = vec![0u32; 64];
    loop {
        let mut bytes = (groups.len() * size_of::<u32>()) as libc::socklen_t;
        // SAFETY: `groups` has room for `bytes` bytes, which the kernel does not exceed.
        let result = unsafe {
            libc::getsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &mut bytes,
            )
        };
        let count = bytes as usize / size_of::<u32>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        match io::Error::last_os_error() {
            // The kernel says how many there are.
            error if error.raw_os_error() == Some(libc::ERANGE) && count > groups.len() => {
                groups.resize(count, 0);
            }
            error => return Err(error),
        }
    }
}

/// Shares `from`'s blocks with `to`, where the file system is able to.
pub fn reflink(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    // SAFETY: two valid descriptors; the call touches no memory of ours.
    let result = unsafe { libc::ioctl(to.as_fd().as_raw_fd(), libc::FICLONE, from.as_fd().as_raw_fd()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Makes a tap interface that stays, and that `uid` may attach to, in this thread's network namespace.
pub fn make_tap(name: &str, uid: u32) -> io::Result<()> {
    let driver = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: all zeroes is a valid `struct ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    let room = request.ifr_name.len() - 1;
    if name.len() > room {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    let done = |status: libc::c_int| match status {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: the call reads and writes `request`, a valid `struct ifreq`.
    done(unsafe { libc::ioctl(driver.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    // SAFETY: both calls take numbers, no address.
    done(unsafe { libc::ioctl(driver.as_raw_fd(), libc::TUNSETOWNER, libc::c_ulong::from(uid)) })?;
    // SAFETY: as above.
    done(unsafe { libc::ioctl(driver.as_raw_fd(), libc::TUNSETPERSIST, 1 as libc::c_ulong) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        for value in [0, 7, 10, 4_194_304, u32::MAX] {
            let mut text = [0; 12];
            let length = decimal(value, &mut text);
            assert_eq!(
                std::str::from_utf8(&text[..length]).unwrap(),
                format!("{value}\n")
            );
        }
    }

    #[test]
    fn a_pidfd_ends_its_process_once_and_again() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pidfd = pidfd_open(child.id()).unwrap();
        pidfd_kill(&pidfd, libc::SIGKILL).unwrap();
        assert!(!child.wait().unwrap().success());
        pidfd_kill(&pidfd, libc::SIGKILL).unwrap();
        assert!(pidfd_open(child.id()).is_err());
    }

    #[test]
    fn the_peer_of_a_socket_pair_has_our_groups() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut peer = peer_groups(&one).unwrap();
        let mut own: Vec<u32> = nix::unistd::getgroups()
            .unwrap()
            .iter()
            .map(|g| g.as_raw())
            .collect();
        peer.sort_unstable();
        own.sort_unstable();
        assert_eq!(peer, own);
    }
}
