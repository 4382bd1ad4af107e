//! What a program in the jail can see and do: said in one line of JSON on standard output.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;

use rustix::fs::{CWD, FileType, Mode};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities, capability_is_in_bounding_set, no_new_privs};
use secovia_jailer::sys;
use serde_json::{Map, Value, json};

/// The exit status of a witness that was heard.
pub(crate) const HEARD: u8 = 42;
/// The argument of a witness that stays until it is killed.
pub(crate) const LINGER: &str = "--linger";
/// How many descriptors are looked at.
const DESCRIPTORS: i32 = 4096;

/// Says it, and waits until standard input ends, or for ever.
pub(crate) fn testify() -> ExitCode {
    let mut line = json!({
        "arguments": std::env::args().collect::<Vec<_>>(),
        "environment": std::env::vars().collect::<Vec<_>>(),
        "folder": std::env::current_dir().map(|path| path.display().to_string()).ok(),
        "files": files(),
        "identity": identity(),
        "descriptors": (0..DESCRIPTORS).filter(|fd| sys::is_open(*fd)).collect::<Vec<_>>(),
        "limits": limits(),
        "host": rustix::system::uname().nodename().to_string_lossy(),
        "domain": rustix::system::uname().domainname().to_string_lossy(),
        "tries": tries(),
    })
    .to_string();
    line.push('\n');
    let _ = std::io::stdout().write_all(line.as_bytes());
    if std::env::args().any(|argument| argument == LINGER) {
        loop {
            std::thread::park();
        }
    }
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    HEARD.into()
}

/// Every file that there is, with kind, owner and mode.
fn files() -> Value {
    let mut found = Map::new();
    walk(Path::new("/"), &mut found);
    found.into()
}

fn walk(folder: &Path, found: &mut Map<String, Value>) {
    let Ok(entries) = fs::read_dir(folder) else {
        found.insert(folder.display().to_string(), json!("unreadable"));
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if let Ok(data) = path.symlink_metadata() {
            let kind = match FileType::from_raw_mode(data.mode()) {
                FileType::RegularFile => "file",
                FileType::Directory => "folder",
                FileType::CharacterDevice => "device",
                _ => "other",
            };
            let owner = (data.uid(), data.gid());
            let mode = format!("{:04o}", data.mode() & 0o7777);
            found.insert(path.display().to_string(), json!([kind, owner.0, owner.1, mode]));
            if data.is_dir() {
                walk(&path, found);
            }
        }
    }
}

fn identity() -> Value {
    let sets = capabilities(None).ok();
    let bounding =
        |bit: &u32| capability_is_in_bounding_set(CapabilitySet::from_bits_retain(1 << bit)).unwrap_or(false);
    json!({
        "user": [rustix::process::getuid().as_raw(), rustix::process::geteuid().as_raw()],
        "group": [rustix::process::getgid().as_raw(), rustix::process::getegid().as_raw()],
        "groups": rustix::process::getgroups().map(|groups| groups.len()).ok(),
        "capabilities": sets.map(|s| [s.effective.bits(), s.permitted.bits(), s.inheritable.bits()]),
        "bounding": (0..64).filter(bounding).collect::<Vec<u32>>(),
        "no_new_privs": no_new_privs().ok(),
        "umask": rustix::process::umask(Mode::empty()).bits(),
        "pid": rustix::process::getpid().as_raw_nonzero().get(),
    })
}

fn limits() -> Value {
    let both = |resource| {
        let limit = getrlimit(resource);
        [limit.current, limit.maximum]
    };
    json!({
        "no-file": both(Resource::Nofile),
        "core": both(Resource::Core),
        "fsize": both(Resource::Fsize),
    })
}

/// What must fail, and on what it does; `null` where it did not.
fn tries() -> Value {
    fn os<T>(result: rustix::io::Result<T>) -> Option<String> {
        io(result.map_err(std::io::Error::from))
    }
    fn io<T>(result: std::io::Result<T>) -> Option<String> {
        result.err().map(|error| format!("{:?}", error.kind()))
    }
    let node = rustix::fs::makedev(1, 1);
    json!({
        "read /etc/shadow": io(fs::read("/etc/shadow")),
        "read /../etc/shadow": io(fs::read("/../etc/shadow")),
        "read /proc": io(fs::read_dir("/proc")),
        "write /kernel": io(fs::write("/kernel", "x")),
        "write the program": io(fs::OpenOptions::new().append(true).open(std::env::args().next().unwrap_or_default())),
        "remove /kernel": io(fs::remove_file("/kernel")),
        "rename over /kernel": io(fs::rename("/disk", "/kernel")),
        "write /disk": io(fs::write("/disk", "written in the jail")),
        "make a device": os(rustix::fs::mknodat(CWD, "/memory", FileType::CharacterDevice, Mode::RWXU, node)),
        "make a file in /dev": io(fs::write("/dev/x", "x")),
        "make a link and follow it": io(std::os::unix::fs::symlink("/kernel", "/link").and_then(|()| fs::read("/link"))),
        "run what it wrote": io(fs::copy("/disk", "/own").and_then(|_| {
            fs::set_permissions("/own", std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
            std::process::Command::new("/own").status()
        })),
        "open /dev/kvm": io(fs::OpenOptions::new().read(true).write(true).open("/dev/kvm")),
        "read /dev/urandom": io(fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut [0; 16]))),
        "mount": os(rustix::mount::mount("none", "/dev", "tmpfs", rustix::mount::MountFlags::empty(), None)),
        "leave the root": os(rustix::process::chroot("/dev")),
        "become root": os(rustix::thread::set_thread_uid(rustix::process::Uid::ROOT)),
        "leave the group": os(rustix::thread::set_thread_groups(&[])),
        "raise a limit": os(rustix::process::setrlimit(Resource::Nofile, rustix::process::Rlimit { current: Some(1 << 20), maximum: Some(1 << 20) })),
        "rename the host": os(rustix::system::sethostname(b"mine")),
        "signal process 1 of the host": os(rustix::process::kill_process(rustix::process::Pid::INIT, rustix::process::Signal::TERM)),
        "reach out": io(UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.connect("192.0.2.1:9"))),
        "reach itself": io(TcpListener::bind("127.0.0.1:0").and_then(|listener| std::net::TcpStream::connect(listener.local_addr()?))),
    })
}
