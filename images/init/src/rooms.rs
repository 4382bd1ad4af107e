//! The roots of containers: each has its image with a writable layer of its own over it, and its own process numbers. What
//! they share is the machine: its devices, its network, the volumes that are in more than one. The fence around them all is
//! the machine's; between them there is order and no fence, for root in one could reach the disks of the others.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use secovia_guest_protocol::{MountSpec, VolumeKind, VolumeSpec};
use secovia_init::children::Pids;
use secovia_init::server::Room;
use secovia_init::{network, sys};

/// Where files of the host's lie, each volume's in a directory of its name.
pub(crate) const FILES: &str = "/volumes";
/// Where volumes in memory are mounted.
const MEMORY: &str = "/memory";
/// Volumes on the writable layer.
const LAYER: &str = "/layer/volumes";
/// What containers wrote.
const UPPERS: &str = "/layer/containers";

/// Where a volume lies.
fn home(volume: &VolumeSpec) -> PathBuf {
    let below = match volume.kind {
        VolumeKind::Files {} => FILES,
        VolumeKind::Layer {} => LAYER,
        VolumeKind::Memory { .. } => MEMORY,
    };
    Path::new(below).join(&volume.name)
}

/// Makes the volumes that are empty at first. One on a disk may be there from the machine's last run.
pub(crate) fn prepare(volumes: &[VolumeSpec]) -> io::Result<()> {
    for volume in volumes {
        let home = home(volume);
        DirBuilder::new().recursive(true).mode(0o755).create(&home)?;
        let everyones = match volume.kind {
            VolumeKind::Files {} => continue,
            VolumeKind::Layer {} => fs::Permissions::from_mode(0o777),
            VolumeKind::Memory { size } => {
                let mut options = "mode=0777".to_string();
                if let Some(size) = size {
                    options.push_str(&format!(",size={size}"));
                }
                let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
                mount(Some("tmpfs"), &home, Some("tmpfs"), flags, Some(options.as_str()))?;
                continue;
            }
        };
        fs::set_permissions(&home, everyones)?;
    }
    Ok(())
}

/// Moves the calling thread, and all that it will start, into a new root.
pub(crate) fn enter(room: &Room<'_>) -> io::Result<Pids> {
    let name = &room.container.name;
    let upper = fresh_upper(name).map_err(on("making the writable layer of", name))?;
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
    let nothing = None::<&str>;
    let device = format!("/dev/{}", room.container.disk);
    let read_only = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    mount(Some(device.as_str()), "/image", Some("erofs"), read_only, nothing)
        .map_err(|error| on("mounting the image on", &device)(error.into()))?;
    let layers = format!(
        "lowerdir=/image,upperdir={0}/upper,workdir={0}/work",
        upper.display()
    );
    mount(
        Some("overlay"),
        "/root",
        Some("overlay"),
        MsFlags::MS_NOATIME,
        Some(layers.as_str()),
    )
    .map_err(|error| on("mounting the root of", name)(error.into()))?;
    umount2("/image", MntFlags::MNT_DETACH)?;

    let mut mounts: Vec<(&MountSpec, bool, File)> = Vec::new();
    for wanted in &room.container.mounts {
        let Some(volume) = room.volumes.iter().find(|volume| volume.name == wanted.volume) else {
            continue;
        };
        let is_files = matches!(volume.kind, VolumeKind::Files {});
        let source = File::open(home(volume)).map_err(on("opening volume", &volume.name))?;
        mounts.push((wanted, is_files || wanted.read_only, source));
    }
    // A path inside of another comes after it.
    mounts.sort_by(|(one, ..), (other, ..)| one.path.cmp(&other.path));
    for place in ["dev", "sys"] {
        let target = Path::new("/root").join(place);
        fs::create_dir_all(&target).map_err(on("making", place))?;
        let source = Path::new("/").join(place);
        mount(
            Some(&source),
            &target,
            nothing,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            nothing,
        )?;
    }
    std::env::set_current_dir("/root")?;
    mount(Some("."), "/", nothing, MsFlags::MS_MOVE, nothing)?;
    nix::unistd::chroot(".")?;
    std::env::set_current_dir("/")?;

    // From here on every path is the container's, and a link in its image leads nowhere else.
    for place in ["/proc", "/run", "/tmp", "/etc"] {
        if !Path::new(place).exists() {
            fs::create_dir_all(place).map_err(on("making", place))?;
            if place == "/tmp" {
                fs::set_permissions(place, fs::Permissions::from_mode(0o1777))?;
            }
        }
    }
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), plain, Some("mode=0755"))?;
    network::write_hosts(room.hostname);
    if let Some(network) = room.network {
        network::write_servers(&network.dns).map_err(on("writing", "/etc/resolv.conf"))?;
    }
    for (wanted, is_read_only, source) in mounts {
        let path = &wanted.path;
        fs::create_dir_all(path).map_err(on("making", path))?;
        // Named by where this thread is, for no path leads to it any more.
        nix::unistd::fchdir(&source)?;
        let bind = MsFlags::MS_BIND;
        mount(Some("."), path.as_str(), nothing, bind, nothing)
            .map_err(|error| on("mounting a volume on", path)(error.into()))?;
        if is_read_only {
            let again = bind | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | plain;
            mount(nothing, path.as_str(), nothing, again, nothing)?;
        }
        std::env::set_current_dir("/")?;
    }
    Ok(Pids::New)
}

/// An empty layer: a container that is started again begins with its image.
fn fresh_upper(name: &str) -> io::Result<PathBuf> {
    let upper = Path::new(UPPERS).join(name);
    match fs::remove_dir_all(&upper) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    for part in ["upper", "work"] {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(upper.join(part))?;
    }
    Ok(upper)
}

/// Moves the calling thread to where a process is.
pub(crate) fn join(pid: i32) -> io::Result<Pids> {
    let process = sys::pidfd_open(pid)?;
    unshare(CloneFlags::CLONE_FS)?;
    setns(&process, CloneFlags::CLONE_NEWNS)?;
    Ok(Pids::Like(process.into()))
}

fn on(doing: &'static str, what: &str) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{doing} {what}: {error}"))
}
