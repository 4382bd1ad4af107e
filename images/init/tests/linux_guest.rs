//! PID 1 at its real place: our kernel, our VMM, an image. Run by `ci/test linux`, which sets what this needs.

mod common;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use secovia_guest_protocol::{
    ExitStatus, Frame, GuestErrorCode, ProcessSpec, Request, WindowSize, WorkloadState,
};

use common::machine::{Machine, PATIENCE, needed};
use common::{Session, on_terminal, program, sh};

#[test]
fn a_guest_serves_its_host() {
    let mut guest = Machine::base();
    let mut log = guest.stream(Request::Attach { from: 0, stdin: true });
    let info = guest.info();
    assert!(info.kernel.ends_with("-secovia"), "{}", info.kernel);
    assert_eq!(info.workload, WorkloadState::Waiting);
    assert!(info.init_at_ns > 0);

    guest.start(sh("echo on $(hostname); echo trouble >&2; cat; exit 7"));
    the_image_is_entered(&guest);
    users_are_the_images_own(&guest);
    terminals_work(&guest);
    orphans_are_reaped(&guest);
    much_flows_both_ways(&guest);
    what_cannot_run_is_told(&guest);

    log.send(&Frame::Stdin(b"from outside\n".to_vec()));
    log.send(&Frame::StdinEof);
    let seen = log.finish();
    assert_eq!(String::from_utf8_lossy(&seen.out), "on guest-1\nfrom outside\n");
    assert_eq!(seen.err, b"trouble\n");
    assert_eq!(seen.exit, Some(ExitStatus::Exited(7)));
    assert_eq!(guest.info().workload, WorkloadState::Ended(ExitStatus::Exited(7)));
    guest.shut_down();
    guest.complains_of_nothing();
}

fn the_image_is_entered(guest: &Machine) {
    let mounts = guest.run("cat /proc/mounts");
    for (place, kind) in [
        ("/", "overlay"),
        ("/dev", "devtmpfs"),
        ("/proc", "proc"),
        ("/sys", "sysfs"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "tmpfs"),
        ("/dev/mqueue", "mqueue"),
        ("/run", "tmpfs"),
        ("/sys/fs/cgroup", "cgroup2"),
    ] {
        let found = mounts.lines().any(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            fields.get(1..3) == Some(&[place, kind][..])
        });
        assert!(found, "no {kind} on {place}:\n{mounts}");
    }
    assert!(
        !mounts.contains(" /layer ") && !mounts.contains(" /image "),
        "{mounts}"
    );
    // The root is writable, the image under it is not reached.
    guest.run("echo new >/etc/new && rm /etc/profile && test -x /bin/busybox && test ! -e /init");
    assert_eq!(
        guest.run("cat /etc/new; ls /etc/profile 2>/dev/null || echo gone"),
        "new\ngone\n"
    );
    assert!(guest.run("ip addr show lo").contains("127.0.0.1"));
    guest.run("ping -c 1 -W 5 127.0.0.1");
    assert_eq!(
        guest.run("echo hi >/dev/stdout; stat -c %a /tmp; ulimit -n; ulimit -H -n"),
        "hi\n1777\n1024\n524288\n"
    );
    assert_eq!(guest.run("nproc"), "2\n");
}

fn users_are_the_images_own(guest: &Machine) {
    let as_user = |user: &str| {
        let spec = ProcessSpec {
            user: Some(user.into()),
            cwd: Some("/tmp".into()),
            ..sh("id -u; id -g; pwd; echo $HOME")
        };
        guest.run_as(spec)
    };
    assert_eq!(as_user("www-data"), "33\n33\n/tmp\n/var/www\n");
    assert_eq!(as_user("1234:5678"), "1234\n5678\n/tmp\n/\n");
    // A user cannot signal PID 1, and root's signals do not end it.
    guest.run("kill -9 1; kill -TERM 99999 2>/dev/null; true");
}

fn terminals_work(guest: &Machine) {
    let mut session = guest.stream(Request::Exec(on_terminal("tty; stty size; exec sh")));
    assert!(session.until("24 80").starts_with("/dev/pts/"));
    session.send(&Frame::Resize(WindowSize { rows: 33, cols: 111 }));
    session.send(&Frame::Stdin(b"stty size\n".to_vec()));
    session.until("33 111");
    // Job control: the interrupt key ends the foreground command, not the shell.
    session.send(&Frame::Stdin(b"echo begin; sleep 1000\n".to_vec()));
    session.until("begin\r\n");
    session.send(&Frame::Stdin(vec![3]));
    session.send(&Frame::Stdin(b"echo $((6 * 7)); exit 5\n".to_vec()));
    session.until("42");
    assert_eq!(session.finish().exit, Some(ExitStatus::Exited(5)));
}

fn orphans_are_reaped(guest: &Machine) {
    guest.run("for i in 1 2 3 4 5; do (sleep 0.2 &) ; done");
    let begin = Instant::now();
    while guest.run("ps -o stat,comm").contains('Z') || guest.run("ps -o comm").contains("sleep") {
        assert!(begin.elapsed() < PATIENCE);
    }
}

fn much_flows_both_ways(guest: &Machine) {
    const SIZE: usize = 8_000_000;
    let mut session = guest.stream(Request::Exec(program("cat")));
    let mut writer = Session::new(session.socket.try_clone().unwrap());
    let data: Vec<u8> = (0..SIZE as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let sent = data.clone();
    let feeding = std::thread::spawn(move || {
        for piece in sent.chunks(100_000) {
            writer.send(&Frame::Stdin(piece.to_vec()));
        }
        writer.send(&Frame::StdinEof);
    });
    let seen = session.finish();
    feeding.join().unwrap();
    assert_eq!(seen.exit, Some(ExitStatus::Exited(0)));
    assert!(
        seen.out == data,
        "{} bytes came back of {SIZE}, or others",
        seen.out.len()
    );
}

fn what_cannot_run_is_told(guest: &Machine) {
    let error = |process| guest.request(Request::Exec(process)).error();
    assert_eq!(error(program("no-such-program")), GuestErrorCode::NotFound);
    assert_eq!(error(program("/etc/passwd")), GuestErrorCode::NotExecutable);
    let stranger = ProcessSpec {
        user: Some("stranger".into()),
        ..sh("true")
    };
    assert_eq!(error(stranger), GuestErrorCode::NoSuchUser);
}

#[test]
fn the_web_image_serves_its_page() {
    let mut guest = Machine::boot(1, &[(&needed("SECOVIA_IMAGE_WEB").join("rootfs.erofs"), true)]);
    let mut log = guest.stream(Request::Attach {
        from: 0,
        stdin: false,
    });
    let argv = ["/usr/sbin/nginx", "-g", "daemon off;"]
        .map(String::from)
        .to_vec();
    guest.start(ProcessSpec { argv, ..sh("") });
    // The image has no program that fetches pages, but its shell speaks TCP.
    let fetch = "until exec 3<>/dev/tcp/127.0.0.1/80; do sleep 0.1; done 2>/dev/null; \
                 printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";
    let argv = ["bash", "-c", fetch].map(String::from).to_vec();
    let page = guest.run_as(ProcessSpec { argv, ..sh("") });
    assert!(
        page.starts_with("HTTP/1.1 200 OK") && page.contains("Secovia: it serves"),
        "{page}"
    );
    log.until("GET / HTTP/1.0");
    guest.shut_down();
    guest.complains_of_nothing();
}

#[test]
fn the_power_button_ends_the_workload_in_good_order() {
    let mut guest = Machine::base();
    let mut session = guest.stream(Request::Attach {
        from: 0,
        stdin: false,
    });
    guest.start(sh(
        "trap 'echo good night; exit 0' TERM; echo ready; while :; do sleep 0.1; done",
    ));
    session.until("ready");
    let pid = nix::unistd::Pid::from_raw(guest.vmm.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).unwrap();
    session.until("good night");
    assert_eq!(session.finish().exit, Some(ExitStatus::Exited(0)));
    drop(session);
    assert_eq!(guest.ended(), Some(0), "{}", guest.console());
}

#[test]
fn what_is_on_a_disk_lasts_and_needs_no_repair() {
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().join("data");
    File::create(&disk).unwrap().set_len(64 << 20).unwrap();
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-F"])
        .arg(&disk)
        .status()
        .expect("mkfs.ext4 runs");
    assert!(made.success());
    let image = needed("SECOVIA_IMAGE_BASE").join("rootfs.erofs");
    let disks: [(&Path, bool); 2] = [(&image, true), (&disk, false)];

    let mut guest = Machine::boot(1, &disks);
    guest.run("echo kept >/srv/file; rm -r /mnt; mkdir /home/someone");
    guest.shut_down();
    guest.complains_of_nothing();
    drop(guest);
    assert!(!needs_recovery(&disk), "the journal was written out");

    let mut guest = Machine::boot(1, &disks);
    assert_eq!(
        guest.run("cat /srv/file; ls -d /mnt /home/someone 2>/dev/null || true"),
        "kept\n/home/someone\n"
    );
    guest.shut_down();
}

/// ext4's INCOMPAT_RECOVER, in the superblock at 1024.
fn needs_recovery(disk: &Path) -> bool {
    let mut file = File::open(disk).unwrap();
    file.seek(SeekFrom::Start(1024 + 96)).unwrap();
    let mut flags = [0; 4];
    file.read_exact(&mut flags).unwrap();
    u32::from_le_bytes(flags) & 4 != 0
}

#[test]
fn a_guest_that_cannot_use_its_image_says_why_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let garbage = directory.path().join("garbage");
    std::fs::write(&garbage, vec![0x5a; 1 << 20]).unwrap();
    for (disks, reason) in [
        (vec![], "the disk /dev/vda of the image did not appear"),
        (vec![(&*garbage, true)], "mounting /dev/vda (erofs) on /image"),
    ] {
        let mut guest = Machine::boot(1, &disks);
        assert_eq!(
            guest.ended(),
            Some(0),
            "it switches off, it does not panic: {}",
            guest.console()
        );
        let console = guest.console();
        assert!(console.contains(&format!("secovia-init: {reason}")), "{console}");
        assert!(!console.contains("panic"), "{console}");
    }
}
