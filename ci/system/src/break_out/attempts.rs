//! What a guest that has taken the process over tries.

use std::path::PathBuf;

use secovia_stub_guests::back_door::{Argument, Call};

use super::cgroup::{MEMORY_LIMIT, PROCESS_LIMIT};

/// What there is on the host to be got at, none of it the machine's.
pub(super) struct Targets {
    /// A disk of another machine's user.
    pub(super) disk: PathBuf,
    /// A file as the agent keeps its records.
    pub(super) record: PathBuf,
    /// A socket as the agent's.
    pub(super) socket: PathBuf,
    /// A port of 127.0.0.1 that something listens on.
    pub(super) port: u16,
    /// The file with another machine's memory limit.
    pub(super) limits: PathBuf,
    /// Two processes of root's. The second may end.
    pub(super) processes: [i32; 2],
}

/// One attempt.
pub(super) struct Attempt {
    pub(super) name: &'static str,
    pub(super) calls: Vec<Call>,
    /// Where it succeeds another program takes the process's place, and ends with this status.
    pub(super) executes: Option<i32>,
    /// Landlock alone is enough to stop it, in every version.
    pub(super) on_files: bool,
}

impl Attempt {
    fn on_files(self) -> Self {
        Self {
            on_files: true,
            ..self
        }
    }
}

/// An attempt of these calls; each refers to the result of the one before by [`Argument::Previous`].
fn attempt(name: &'static str, calls: impl IntoIterator<Item = Call>) -> Attempt {
    Attempt {
        name,
        calls: calls.into_iter().collect(),
        executes: None,
        on_files: false,
    }
}

/// A call with these arguments.
macro_rules! call {
    ($number:ident $(, $argument:expr)*) => {
        Call::new(libc::$number, [$(Argument::from($argument)),*])
    };
}

/// Opens a file.
fn open(path: &str, flags: i32) -> Call {
    call!(SYS_openat, libc::AT_FDCWD, path, flags)
}

/// Opens a file and reads from it.
fn read(path: &str) -> [Call; 2] {
    let read = [Argument::Previous, Argument::Room, Argument::from(64)];
    [open(path, libc::O_RDONLY), Call::new(libc::SYS_read, read)]
}

/// Makes a socket and connects it.
fn connect(family: i32, address: Vec<u8>) -> [Call; 2] {
    let length = Argument::from(address.len() as u64);
    let connect = [Argument::Previous, Argument::Bytes(address), length];
    [
        call!(SYS_socket, family, libc::SOCK_STREAM),
        Call::new(libc::SYS_connect, connect),
    ]
}

/// All of them.
pub(super) fn all(targets: &Targets) -> Vec<Attempt> {
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let (disk, record, socket) = (text(&targets.disk), text(&targets.record), text(&targets.socket));
    let [victim, doomed] = targets.processes;
    let mut unix = (libc::AF_UNIX as u16).to_le_bytes().to_vec();
    unix.extend(socket.as_bytes());
    unix.push(0);
    let mut internet = (libc::AF_INET as u16).to_le_bytes().to_vec();
    internet.extend(targets.port.to_be_bytes());
    internet.extend([127, 0, 0, 1]);
    internet.extend([0; 8]);
    // BPF_MAP_CREATE: an array of one entry, keys and values of four bytes.
    let map: Vec<u8> = [2_u32, 4, 4, 1, 0, 0]
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    let map_size = map.len() as u64;
    let past = MEMORY_LIMIT + (64 << 20);

    let by_another = format!("/proc/{victim}/root/etc/shadow");

    vec![
        attempt("/etc/shadow", read("/etc/shadow")).on_files(),
        attempt(
            "/etc/shadow, up and over",
            read("../../../../../../../../etc/shadow"),
        )
        .on_files(),
        attempt("/etc/shadow, by a process", read(&by_another)).on_files(),
        attempt("another machine's disk", read(&disk)).on_files(),
        attempt("to write another's disk", [open(&disk, libc::O_RDWR)]).on_files(),
        attempt("the agent's records", read(&record)).on_files(),
        attempt("the agent's socket", connect(libc::AF_UNIX, unix)),
        attempt("a network socket", connect(libc::AF_INET, internet)),
        attempt("ptrace", [call!(SYS_ptrace, libc::PTRACE_SEIZE as i32, victim)]),
        attempt(
            "another's memory",
            [open(&format!("/proc/{victim}/mem"), libc::O_RDWR)],
        )
        .on_files(),
        // In the folder that the process stands in: the root of its jail, or one of this run.
        attempt("a mount", [call!(SYS_mount, "none", ".", "tmpfs", 0)]).on_files(),
        attempt(
            "a device of its own",
            [call!(
                SYS_mknodat,
                libc::AT_FDCWD,
                "node",
                (libc::S_IFCHR | 0o600) as i32,
                // /dev/mem
                0x101
            )],
        )
        .on_files(),
        attempt("one process more", [call!(SYS_clone, libc::SIGCHLD)]),
        attempt(
            "many processes",
            (0..PROCESS_LIMIT).map(|_| call!(SYS_clone, libc::SIGCHLD)),
        ),
        Attempt {
            executes: Some(0),
            ..attempt("another program", [call!(SYS_execve, "/bin/true", 0, 0)]).on_files()
        },
        attempt(
            "a BPF map",
            [Call::new(
                libc::SYS_bpf,
                [Argument::from(0), Argument::Bytes(map), Argument::from(map_size)],
            )],
        ),
        attempt("a signal to another", [call!(SYS_kill, victim, libc::SIGCONT)]),
        attempt(
            "a signal to another's thread",
            // The one signal that threads of the VMM send each other.
            [call!(SYS_tgkill, doomed, doomed, libc::SIGRTMIN())],
        ),
        attempt("root again", [call!(SYS_setuid, 0)]),
        attempt(
            "memory past the limit",
            [
                call!(
                    SYS_mmap,
                    0,
                    past,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1
                ),
                Call::new(
                    libc::SYS_getrandom,
                    [Argument::Previous, Argument::from(past), Argument::from(0)],
                ),
            ],
        ),
        attempt("another's limits", [open(&text(&targets.limits), libc::O_WRONLY)]).on_files(),
    ]
}
