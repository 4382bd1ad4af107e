//! From the kernel's first file system into the image.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use secovia_init::sys;

/// The image, read-only.
const IMAGE_DISK: &str = "/dev/vda";
/// The writable layer, where there is one.
const DATA_DISK: &str = "/dev/vdb";

/// Why the machine cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    #[error("mounting {what} ({kind}) on {place}: {source}")]
    Mount {
        what: &'static str,
        kind: &'static str,
        place: &'static str,
        source: io::Error,
    },
    #[error("the disk {0} of the image did not appear")]
    NoDisk(&'static str),
    #[error("{doing} {what}: {source}")]
    Failed {
        doing: &'static str,
        what: &'static str,
        source: io::Error,
    },
}

fn failed<E: Into<io::Error>>(doing: &'static str, what: &'static str) -> impl FnOnce(E) -> BootError {
    move |error| BootError::Failed {
        doing,
        what,
        source: error.into(),
    }
}

struct Mount {
    what: &'static str,
    kind: &'static str,
    place: &'static str,
    flags: MsFlags,
    data: &'static str,
}

impl Mount {
    fn new(kind: &'static str, place: &'static str, flags: MsFlags, data: &'static str) -> Self {
        Self {
            what: kind,
            kind,
            place,
            flags,
            data,
        }
    }

    fn make(self) -> Result<(), BootError> {
        let Self {
            what,
            kind,
            place,
            flags,
            data,
        } = self;
        mount(Some(what), place, Some(kind), flags, Some(data)).map_err(|e| BootError::Mount {
            what,
            kind,
            place,
            source: e.into(),
        })
    }
}

/// What has to be brought to rest before the power goes: the file system of the writable layer, where it is on a disk.
pub(crate) type Roots = Option<File>;

const QUIET: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC);

/// Mounts the devices, once the image's is there.
fn mount_devices() -> Result<(), BootError> {
    Mount::new("devtmpfs", "/dev", QUIET, "mode=0755").make()?;
    wait_for_disk()
}

/// Mounts the file systems that the kernel fills.
fn mount_kernels() -> Result<(), BootError> {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys")] {
        fs::create_dir_all(place).map_err(failed("making", place))?;
        Mount::new(kind, place, QUIET | MsFlags::MS_NODEV, "").make()?;
    }
    Ok(())
}

/// Prepares the machine for containers, of which each gets a root of its own later: this process keeps the kernel's first
/// file system as its root.
pub(crate) fn stay() -> Result<Roots, BootError> {
    mount_devices()?;
    mount_kernels()?;
    mount_layer()
}

/// Mounts the writable layer on `/layer`.
fn mount_layer() -> Result<Roots, BootError> {
    let on_disk = has_ext4(Path::new(DATA_DISK)).map_err(failed("reading", DATA_DISK))?;
    let writable = MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
    if on_disk {
        Mount {
            what: DATA_DISK,
            ..Mount::new("ext4", "/layer", writable, "")
        }
        .make()?;
        return File::open("/layer")
            .map(Some)
            .map_err(failed("opening", "/layer"));
    }
    Mount::new("tmpfs", "/layer", writable, "mode=0755").make()?;
    Ok(None)
}

/// Mounts the image with a writable layer over it and makes it the root directory.
pub(crate) fn enter_image() -> Result<Roots, BootError> {
    mount_devices()?;
    let read_only = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    Mount {
        what: IMAGE_DISK,
        ..Mount::new("erofs", "/image", read_only, "")
    }
    .make()?;

    let roots = mount_layer()?;
    for directory in ["/layer/upper", "/layer/work"] {
        fs::create_dir_all(directory).map_err(failed("making", directory))?;
    }
    let layers = "lowerdir=/image,upperdir=/layer/upper,workdir=/layer/work";
    Mount::new("overlay", "/root", MsFlags::MS_NOATIME, layers).make()?;
    // The overlay holds both by itself; nobody else has business with them.
    for place in ["/layer", "/image"] {
        umount2(place, MntFlags::MNT_DETACH).map_err(failed("detaching", place))?;
    }

    fs::create_dir_all("/root/dev").map_err(failed("making", "/dev"))?;
    let moved = MsFlags::MS_MOVE;
    mount(Some("/dev"), "/root/dev", None::<&str>, moved, None::<&str>).map_err(failed("moving", "/dev"))?;
    std::env::set_current_dir("/root").map_err(failed("entering", "/root"))?;
    mount(Some("."), "/", None::<&str>, moved, None::<&str>).map_err(failed("moving", "/root"))?;
    nix::unistd::chroot(".").map_err(failed("changing the root to", "/root"))?;
    std::env::set_current_dir("/").map_err(failed("entering", "/"))?;

    mount_kernels()?;
    Ok(roots)
}

/// Kernels that probe devices in the background may show the disk a moment later.
fn wait_for_disk() -> Result<(), BootError> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let begin = Instant::now();
    while !Path::new(IMAGE_DISK).exists() {
        if begin.elapsed() > PATIENCE {
            return Err(BootError::NoDisk(IMAGE_DISK));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Whether a disk is there and says that it holds ext4. One that does must mount: to go on in memory would lose what
/// its owner believes to be safe.
fn has_ext4(disk: &Path) -> io::Result<bool> {
    /// Of the superblock, which begins at 1024.
    const MAGIC_AT: u64 = 1024 + 56;
    /// EROFS's is at the beginning of its own, in the same place. A second image may be where the layer's disk would be.
    const EROFS: [u8; 4] = 0xe0f5_e1e2u32.to_le_bytes();
    let mut file = match File::open(disk) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut erofs = [0; 4];
    file.seek(SeekFrom::Start(1024))?;
    let begins = file.read_exact(&mut erofs);
    file.seek(SeekFrom::Start(MAGIC_AT))?;
    let mut magic = [0; 2];
    match begins.and_then(|()| file.read_exact(&mut magic)) {
        Ok(()) => Ok(erofs != EROFS && u16::from_le_bytes(magic) == 0xef53),
        // Too small for one.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// What programs expect to find in a running system. A guest is of use without any of it: what fails is returned.
pub(crate) fn furnish() -> Vec<BootError> {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let quiet = plain | MsFlags::MS_NOEXEC;
    let pts = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let mounts = [
        Mount::new("devpts", "/dev/pts", pts, "gid=5,mode=0620,ptmxmode=0666"),
        Mount::new("tmpfs", "/dev/shm", plain, "mode=1777"),
        Mount::new("mqueue", "/dev/mqueue", quiet, ""),
        Mount::new("tmpfs", "/run", plain, "mode=0755"),
        Mount::new("cgroup2", "/sys/fs/cgroup", quiet, "nsdelegate"),
    ];
    let mounted = mounts.into_iter().map(directory_mount);
    let others = [standard_links(), temporary_directory(), loopback(), open_files()];
    mounted.chain(others).filter_map(Result::err).collect()
}

fn directory_mount(mount: Mount) -> Result<(), BootError> {
    fs::create_dir_all(mount.place).map_err(failed("making", mount.place))?;
    mount.make()
}

fn standard_links() -> Result<(), BootError> {
    for (to, link) in [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
    ] {
        symlink(to, link).map_err(failed("making", link))?;
    }
    Ok(())
}

/// In the writable layer, not in memory: it has the room that the owner gave to it.
fn temporary_directory() -> Result<(), BootError> {
    if !Path::new("/tmp").exists() {
        fs::create_dir("/tmp").map_err(failed("making", "/tmp"))?;
        let everyone = fs::Permissions::from_mode(0o1777);
        fs::set_permissions("/tmp", everyone).map_err(failed("opening to all", "/tmp"))?;
    }
    Ok(())
}

fn loopback() -> Result<(), BootError> {
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map_err(failed("switching on", "the loopback interface"))?;
    sys::loopback_up(socket.as_fd()).map_err(failed("switching on", "the loopback interface"))
}

/// A server may open as many files as it asks for; the default of those that do not ask stays as programs know it.
fn open_files() -> Result<(), BootError> {
    setrlimit(Resource::RLIMIT_NOFILE, 1024, 524_288).map_err(failed("raising", "the limit of open files"))
}
