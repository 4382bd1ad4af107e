//! System calls that no crate wraps safely.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// linux/sched.h; the libc crate's is cut to 32 bits.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What a mount forbids; a set of the kernel's `MOUNT_ATTR_` bits.
#[derive(Debug, Clone, Copy)]
pub struct MountAttributes(u64);

impl MountAttributes {
    /// No set-user-ID bits, no device nodes, no programs, no symbolic links followed: what data needs.
    pub const DATA: Self = Self(
        libc::MOUNT_ATTR_NOSUID
            | libc::MOUNT_ATTR_NODEV
            | libc::MOUNT_ATTR_NOEXEC
            | libc::MOUNT_ATTR_NOSYMFOLLOW,
    );
    /// Data that cannot be written.
    pub const READ_ONLY: Self = Self(Self::DATA.0 | libc::MOUNT_ATTR_RDONLY);
    /// A program that cannot be written.
    pub const PROGRAM: Self =
        Self(libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_RDONLY);
    /// Device nodes to which none can be added.
    pub const DEVICES: Self =
        Self(libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC | libc::MOUNT_ATTR_RDONLY);
}

/// Adds attributes to a mount and takes it out of all propagation (mount_setattr(2)).
pub fn restrict_mount(mount: BorrowedFd<'_>, attributes: MountAttributes) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: attributes.0,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    // SAFETY: the path is a C string, and `attr` is readable for the length that is given with it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    check(result)
}

/// Closes the descriptors from `first` to `last`, both included (close_range(2)).
///
/// For a program's first moments: it must hold no descriptor in that range that it means to use.
pub fn close_descriptors(first: RawFd, last: RawFd) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: no memory is touched. What is closed belongs to nobody, as the caller sees to.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })
}

/// Whether a descriptor is open.
pub fn is_open(descriptor: RawFd) -> bool {
    // SAFETY: asks for flags; no memory is touched, and nothing is done where it is not open.
    unsafe { libc::fcntl(descriptor, libc::F_GETFD) != -1 }
}

/// Blocks every signal that can be blocked, or none, for this thread and those that it starts.
pub fn hold_signals(hold: bool) -> io::Result<()> {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: `set` is filled before it is read; nothing is asked back.
    let result = unsafe {
        if hold {
            libc::sigfillset(set.as_mut_ptr());
        } else {
            libc::sigemptyset(set.as_mut_ptr());
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut())
    };
    match result {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// Leaves the session keyring for a new one that is empty. Fine where the kernel has no keyrings.
pub fn new_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for a keyring without one; no memory is touched.
    let result = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    };
    match check(result) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        other => other,
    }
}

/// Moves the calling thread into new namespaces; `CLONE_NEW*` bits.
pub fn unshare(kinds: libc::c_int) -> io::Result<()> {
    // A table of descriptors of its own would break what this thread shares with others.
    debug_assert_eq!(kinds & libc::CLONE_FILES, 0);
    // SAFETY: no memory is touched, and descriptors stay shared.
    check(unsafe { libc::unshare(kinds) }.into())
}

/// Starts a process that is this one's sibling, as process 1 of a new PID namespace, born into `cgroup`; its ID as this
/// process sees it. It has a copy of the calling thread only, runs `work`, and ends with status 1 where that returns.
///
/// No other thread of this process may be in the allocator or hold another lock that `work` takes: nobody would ever
/// release the copy.
pub fn spawn_sibling(cgroup: Option<BorrowedFd<'_>>, work: impl FnOnce()) -> io::Result<i32> {
    let flags = libc::CLONE_PARENT | libc::CLONE_NEWPID;
    // SAFETY: memory is copied, not shared, and no stack is named, so that the child goes on here on its own copy. What
    // other threads hold is the caller's to rule out. The arguments of clone3 are readable for the length that is given.
    let result = unsafe {
        match cgroup {
            // Not clone3 where it is not needed: filters cannot look into its arguments, so that a service whose
            // namespaces are restricted (systemd, RestrictNamespaces=) has no such call.
            None => libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0),
            Some(cgroup) => {
                let mut args: libc::clone_args = std::mem::zeroed();
                args.flags = flags as u64 | CLONE_INTO_CGROUP;
                args.cgroup = cgroup.as_raw_fd() as u64;
                libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>())
            }
        }
    };
    match result {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            work();
            // SAFETY: ends the process without running what its parent has registered for its own end.
            unsafe { libc::_exit(1) }
        }
        pid => Ok(pid as i32),
    }
}

fn check(result: libc::c_long) -> io::Result<()> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
