//! Links, FIFOs, devices and foreign owners in the place of the jailer's paths: each is refused with a line that says what
//! was found where, and nothing is left or changed. Needs root.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use common::{GID, Host, Outcome, UID, program, program_name};
use rustix::fs::{CWD, FileType, Mode, mknodat};

/// A user who is neither root nor the machine's.
const OTHER: u32 = 954_321;

fn main() -> ExitCode {
    common::main(&[
        ("chroot_base", chroot_base),
        ("exec_file", exec_file),
        ("file_to_read", file_to_read),
        ("file_to_write", file_to_write),
        ("left_in_the_root", left_in_the_root),
        ("a_late_failure_leaves_nothing", a_late_failure_leaves_nothing),
        (
            "a_file_is_handed_over_and_taken_back",
            a_file_is_handed_over_and_taken_back,
        ),
    ])
}

/// One trick: what it is, how it is set up, and what is said of it.
struct Trick {
    name: &'static str,
    set_up: fn(&Host),
    said: &'static str,
}

const fn trick(name: &'static str, set_up: fn(&Host), said: &'static str) -> Trick {
    Trick { name, set_up, said }
}

/// Plays each trick on its own host: the jailer says no and what it found, and has changed nothing.
fn play(tricks: &[Trick], command: fn(&Host) -> Command) -> Outcome {
    for trick in tricks {
        let host = Host::new();
        (trick.set_up)(&host);
        let before = host.snapshot();
        for way in [&[][..], &["--new-pid-ns"]] {
            let output = command(&host).args(way).output()?;
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{}: {errors}", trick.name);
            assert!(errors.contains(trick.said), "{}: {errors}", trick.name);
            // One line: the step, what was found, what to do.
            assert_eq!(errors.lines().count(), 1, "{}: {errors}", trick.name);
            assert!(errors.matches("; ").count() >= 1, "{}: {errors}", trick.name);
            assert_eq!(host.snapshot(), before, "{}", trick.name);
        }
    }
    Ok(())
}

fn folder(path: &Path, owner: u32, mode: u32) {
    fs::create_dir_all(path).unwrap();
    chown(path, Some(owner), Some(owner)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn file(path: &Path, owner: u32, mode: u32) {
    fs::write(path, "contents").unwrap();
    chown(path, Some(owner), Some(owner)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn node(path: &Path, kind: FileType) {
    // The numbers of /dev/null, and of no block device.
    let number = match kind {
        FileType::CharacterDevice => rustix::fs::makedev(1, 3),
        _ => rustix::fs::makedev(0, 0),
    };
    mknodat(CWD, path, kind, Mode::RWXU | Mode::RWXG | Mode::RWXO, number).unwrap();
}

fn socket(path: &Path) {
    drop(UnixListener::bind(path).unwrap());
}

/// `name` in the machine's folder of a jail that is there already.
fn in_machine(host: &Host, name: &str) -> PathBuf {
    folder(&host.machine(), 0, 0o700);
    host.machine().join(name)
}

/// `name` in the root that a machine has left.
fn in_root(host: &Host, name: &str) -> PathBuf {
    let root = in_machine(host, "root");
    folder(&root, UID, 0o700);
    chown(&root, Some(UID), Some(GID)).unwrap();
    root.join(name)
}

fn chroot_base() -> Outcome {
    const TRICKS: &[Trick] = &[
        trick(
            "a symbolic link as base",
            |host| {
                folder(&host.path("elsewhere"), 0, 0o700);
                symlink(host.path("elsewhere"), host.base()).unwrap();
            },
            "/jails is a symbolic link, not a folder; give the path of the folder itself",
        ),
        trick(
            "a file as base",
            |host| file(&host.base(), 0, 0o600),
            "/jails is a file, not a folder",
        ),
        trick(
            "a FIFO as base",
            |host| node(&host.base(), FileType::Fifo),
            "/jails is a FIFO, not a folder",
        ),
        trick(
            "a device as base",
            |host| node(&host.base(), FileType::CharacterDevice),
            "/jails is a device, not a folder",
        ),
        trick(
            "a base of somebody else's",
            |host| folder(&host.base(), OTHER, 0o755),
            "/jails belongs to user 954321; give a folder that only root can change",
        ),
        trick(
            "a base that all may write",
            |host| folder(&host.base(), 0, 0o777),
            "/jails can be written by others than its owner",
        ),
        trick(
            "a base that its group may write",
            |host| folder(&host.base(), 0, 0o775),
            "/jails can be written by others than its owner",
        ),
        trick(
            "a symbolic link as the program's folder",
            |host| {
                folder(&host.base(), 0, 0o700);
                symlink(host.path("kernel"), host.base().join(program_name())).unwrap();
            },
            "is a symbolic link, not a folder",
        ),
        trick(
            "a machine's folder of somebody else's",
            |host| folder(&host.machine(), OTHER, 0o700),
            "/m-1 belongs to user 954321",
        ),
        trick(
            "a symbolic link as the machine's folder",
            |host| {
                folder(&host.base().join(program_name()), 0, 0o700);
                symlink("/etc", host.machine()).unwrap();
            },
            "/m-1 is a symbolic link, not a folder",
        ),
        trick(
            "a symbolic link as the root",
            |host| symlink("/", in_machine(host, "root")).unwrap(),
            "it is a symbolic link; remove it",
        ),
        trick(
            "a file as the root",
            |host| file(&in_machine(host, "root"), 0, 0o600),
            "it is a file; remove it",
        ),
        trick(
            "a root of somebody else's",
            |host| folder(&in_machine(host, "root"), OTHER, 0o700),
            "it belongs to user 954321; remove it",
        ),
    ];
    play(TRICKS, Host::command)?;
    // Further up, too.
    const ABOVE: &[Trick] = &[
        trick(
            "a symbolic link above the base",
            |host| {
                folder(&host.path("elsewhere"), 0, 0o700);
                symlink("elsewhere", host.path("above")).unwrap();
            },
            "/above is a symbolic link",
        ),
        trick(
            "somebody else's folder above the base",
            |host| folder(&host.path("above"), OTHER, 0o755),
            "/above belongs to user 954321",
        ),
    ];
    play(ABOVE, |host| {
        host.command_for(&program(), &host.path("above/jails"))
    })
}

fn copy_program(host: &Host) {
    fs::copy(program(), host.path("vmm")).unwrap();
    fs::set_permissions(host.path("vmm"), fs::Permissions::from_mode(0o755)).unwrap();
}

fn exec_file() -> Outcome {
    const TRICKS: &[Trick] = &[
        trick("nothing", |_| (), "No such file or directory"),
        trick(
            "a symbolic link",
            |host| symlink(program(), host.path("vmm")).unwrap(),
            "it is a symbolic link; give the path of a regular file itself",
        ),
        trick(
            "a FIFO",
            |host| node(&host.path("vmm"), FileType::Fifo),
            "it is a FIFO",
        ),
        trick(
            "a device",
            |host| node(&host.path("vmm"), FileType::CharacterDevice),
            "it is a device",
        ),
        trick(
            "a folder",
            |host| folder(&host.path("vmm"), 0, 0o755),
            "it is a folder",
        ),
        trick("a socket", |host| socket(&host.path("vmm")), "it is a socket"),
        trick(
            "a script",
            |host| file(&host.path("vmm"), 0, 0o755),
            "it is no 64-bit x86 ELF program; build the VMM as a static program",
        ),
        trick(
            "a program that its group may write",
            |host| {
                copy_program(host);
                fs::set_permissions(host.path("vmm"), fs::Permissions::from_mode(0o775)).unwrap();
            },
            "mode 0775 lets others write it",
        ),
        trick(
            "a program that only root may run",
            |host| {
                copy_program(host);
                fs::set_permissions(host.path("vmm"), fs::Permissions::from_mode(0o700)).unwrap();
            },
            "mode 0700 does not let user 912345 run it",
        ),
        trick(
            "a second link where all may make links",
            |host| {
                copy_program(host);
                fs::hard_link(host.path("vmm"), host.path("other")).unwrap();
                fs::set_permissions(host.path("."), fs::Permissions::from_mode(0o1777)).unwrap();
            },
            "it has 2 hard links: others may write to its folder",
        ),
    ];
    play(TRICKS, |host| host.command_for(&host.path("vmm"), &host.base()))?;
    const THROUGH: &[Trick] = &[trick(
        "a symbolic link on the way",
        |host| {
            copy_program(host);
            symlink(".", host.path("through")).unwrap();
        },
        "/through is a symbolic link, not a folder",
    )];
    play(THROUGH, |host| {
        host.command_for(&host.path("through/vmm"), &host.base())
    })?;
    let needs_loader = Path::new("/bin/ls").canonicalize()?;
    let host = Host::new();
    let output = host.command_for(&needs_loader, &host.base()).output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("it needs a loader and libraries, which are not in the jail"),
        "{errors}"
    );
    Ok(())
}

fn file_to_read() -> Outcome {
    const TRICKS: &[Trick] = &[
        trick("nothing", |_| (), "No such file or directory"),
        trick(
            "a symbolic link",
            |host| symlink("/etc/shadow", host.path("f")).unwrap(),
            "it is a symbolic link",
        ),
        trick(
            "a FIFO",
            |host| node(&host.path("f"), FileType::Fifo),
            "it is a FIFO",
        ),
        trick(
            "a device",
            |host| node(&host.path("f"), FileType::CharacterDevice),
            "it is a device",
        ),
        trick(
            "a block device",
            |host| node(&host.path("f"), FileType::BlockDevice),
            "it is a device",
        ),
        trick("a socket", |host| socket(&host.path("f")), "it is a socket"),
        trick(
            "a folder",
            |host| folder(&host.path("f"), 0, 0o755),
            "it is a folder",
        ),
        trick(
            "a secret",
            |host| file(&host.path("f"), 0, 0o600),
            "mode 0600 does not let user 912345 read it",
        ),
        trick(
            "a secret of somebody else's group",
            |host| file(&host.path("f"), OTHER, 0o640),
            "mode 0640 does not let user 912345 read it",
        ),
        trick(
            "a hard link where all may make links",
            |host| {
                fs::hard_link(host.path("kernel"), host.path("f")).unwrap();
                fs::set_permissions(host.path("."), fs::Permissions::from_mode(0o1777)).unwrap();
            },
            "it has 2 hard links: others may write to its folder, and could have linked it there",
        ),
        trick(
            "a hard link in somebody else's folder",
            |host| {
                fs::hard_link(host.path("kernel"), host.path("f")).unwrap();
                chown(host.path("."), Some(OTHER), None).unwrap();
            },
            "belongs to user 954321, who could have linked it there; make a copy of it",
        ),
    ];
    play(TRICKS, |host| {
        // Below a folder of somebody else's no jail can be, whatever is in it.
        let base = PathBuf::from("/root");
        let mut command = host.command_for(&program(), &base);
        command.args(host.grant("f", "f"));
        command
    })
}

fn file_to_write() -> Outcome {
    const TRICKS: &[Trick] = &[
        trick("nothing", |_| (), "No such file or directory"),
        trick(
            "a symbolic link",
            |host| symlink(host.path("kernel"), host.path("f")).unwrap(),
            "it is a symbolic link",
        ),
        trick(
            "a FIFO",
            |host| node(&host.path("f"), FileType::Fifo),
            "it is a FIFO",
        ),
        trick(
            "a device",
            |host| node(&host.path("f"), FileType::CharacterDevice),
            "it is a device",
        ),
        trick(
            "a block device",
            |host| node(&host.path("f"), FileType::BlockDevice),
            "it is a device",
        ),
        trick(
            "a folder",
            |host| folder(&host.path("f"), UID, 0o755),
            "it is a folder",
        ),
        trick(
            "a hard link to another file of root's",
            |host| fs::hard_link(host.path("kernel"), host.path("f")).unwrap(),
            "it has 2 hard links: to write it would write to them all; make a copy of it",
        ),
        trick(
            "a hard link to another file of the machine's",
            |host| {
                file(&host.path("f"), UID, 0o600);
                fs::hard_link(host.path("f"), host.path("other")).unwrap();
            },
            "it has 2 hard links",
        ),
        trick(
            "a disk of another machine",
            |host| file(&host.path("f"), OTHER, 0o600),
            "it belongs to user 954321; it has to belong to user 912345, or to root to be handed over",
        ),
        trick(
            "a disk that its owner must not write",
            |host| file(&host.path("f"), UID, 0o400),
            "mode 0400 does not let its owner read and write it; give it mode 0600",
        ),
        trick(
            "a disk of root's that is not to be written",
            |host| file(&host.path("f"), 0, 0o444),
            "mode 0444 does not let its owner read and write it",
        ),
    ];
    play(TRICKS, |host| {
        let mut command = host.command();
        command
            .args(host.grant("disk", "disk:rw"))
            .args(host.grant("f", "f:rw"));
        command
    })
}

fn left_in_the_root() -> Outcome {
    const TRICKS: &[Trick] = &[
        trick(
            "a symbolic link in a file's place",
            |host| symlink("/etc/shadow", in_root(host, "f")).unwrap(),
            "a symbolic link is in its place; remove it from the jail's root",
        ),
        trick(
            "a dangling symbolic link in a file's place",
            |host| symlink("/no/such", in_root(host, "f")).unwrap(),
            "a symbolic link is in its place",
        ),
        trick(
            "a FIFO in a file's place",
            |host| node(&in_root(host, "f"), FileType::Fifo),
            "a FIFO is in its place",
        ),
        trick(
            "a socket in a file's place",
            |host| socket(&in_root(host, "f")),
            "a socket is in its place",
        ),
        trick(
            "a folder in a file's place",
            |host| folder(&in_root(host, "f"), UID, 0o700),
            "a folder is in its place",
        ),
        trick(
            "a symbolic link in the devices' place",
            |host| symlink("/dev", in_root(host, "dev")).unwrap(),
            "a symbolic link is in its place",
        ),
        trick(
            "a file in the devices' place",
            |host| file(&in_root(host, "dev"), UID, 0o600),
            "a file is in its place",
        ),
        trick(
            "a symbolic link in the program's place",
            |host| symlink("/bin/sh", in_root(host, &program_name())).unwrap(),
            "a symbolic link is in its place",
        ),
    ];
    play(TRICKS, |host| {
        let mut command = host.command();
        command
            .args(host.grant("disk", "disk:rw"))
            .args(host.grant("kernel", "f"));
        command
    })
}

/// The last step but a few fails, in the process that would have become the VMM.
fn a_late_failure_leaves_nothing() -> Outcome {
    const TRICKS: &[Trick] = &[
        trick("a fresh host", |_| (), "limit no-file to 4611686018427387904"),
        trick(
            "a jail that is there",
            |host| drop(in_root(host, "f")),
            "limit no-file to 4611686018427387904",
        ),
        trick(
            "a root that is root's",
            |host| folder(&in_machine(host, "root"), 0, 0o755),
            "limit no-file to 4611686018427387904",
        ),
    ];
    play(TRICKS, |host| {
        let mut command = host.command();
        command
            .args(host.grant("disk", "disk:rw"))
            .args(["--resource-limit", "no-file=4611686018427387904"]);
        command
    })
}

fn a_file_is_handed_over_and_taken_back() -> Outcome {
    use std::os::unix::fs::MetadataExt;
    let host = Host::new();
    let owner = || fs::metadata(host.path("disk")).map(|data| (data.uid(), data.gid()));
    let mut command = host.command();
    command
        .args(host.grant("disk", "disk:rw"))
        .args(["--resource-limit", "no-file=4611686018427387904"]);
    command.output()?;
    assert_eq!(owner()?, (0, 0));
    let mut command = host.command();
    command.args(host.grant("disk", "disk:rw"));
    let jail = common::Jailed::run(&host, command, &[]);
    assert_eq!(owner()?, (UID, GID));
    jail.end();
    Ok(())
}
