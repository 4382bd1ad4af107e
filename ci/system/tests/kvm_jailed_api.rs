//! The API of a machine in its jail: made there, used from outside, gone with the machine.

use std::fs;
use std::io::{Read, Write, stderr};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use secovia_stub_guests as stubs;

const USER: u32 = 900_002;

/// Status and text of the answer.
fn call(socket: &Path, request: &str, body: &str) -> (String, String) {
    let mut stream = UnixStream::connect(socket).expect("connect to the API");
    let length = body.len();
    write!(
        stream,
        "{request} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.split(' ').nth(1).unwrap_or_default().to_owned();
    (status, text)
}

#[test]
fn the_api_is_there_in_the_jail_and_gone_with_the_machine() {
    let name = "the_api_is_there_in_the_jail_and_gone_with_the_machine";
    let skip = |reason: &str| drop(writeln!(stderr(), "SKIP: {name}: {reason}"));
    let given = std::env::var_os;
    // Either is the VMM; the one with the back door is what the break-out suite is given.
    let vmm = given("SECOVIA_VMM").or_else(|| given("SECOVIA_VMM_BACK_DOOR"));
    let (Some(vmm), Some(jailer)) = (vmm, given("SECOVIA_JAILER")) else {
        return skip("SECOVIA_VMM or SECOVIA_VMM_BACK_DOOR, and SECOVIA_JAILER, are not set");
    };
    if !geteuid().is_root() || !Path::new("/dev/kvm").exists() {
        return skip("not root, or no /dev/kvm");
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let kernel = folder.path().join("kernel");
    fs::write(&kernel, stubs::HELLO.elf()).unwrap();
    let base = folder.path().join("jails");
    fs::create_dir(&base).unwrap();
    let mut child = Command::new(jailer)
        .args([
            "--id",
            "served",
            "--uid",
            &USER.to_string(),
            "--gid",
            &USER.to_string(),
        ])
        .arg("--exec-file")
        .arg(&vmm)
        .arg("--chroot-base-dir")
        .arg(&base)
        .arg("--file")
        .arg(format!("{}:kernel", kernel.display()))
        .args(["--", "--api-sock", "/api.sock"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("start the jailer");
    let program = Path::new(&vmm).file_name().unwrap();
    let socket = base.join(program).join("served/root/api.sock");
    let until = Instant::now() + Duration::from_secs(30);
    while !socket.exists() {
        assert!(Instant::now() < until, "no socket for {program:?}");
        sleep(Duration::from_millis(5));
    }
    let metadata = fs::metadata(&socket).unwrap();
    assert_eq!((metadata.mode() & 0o777, metadata.uid()), (0o600, USER));
    let (status, text) = call(&socket, "PUT /boot-source", r#"{"kernel_image_path": "/kernel"}"#);
    assert_eq!(status, "204", "{text}");
    let (status, text) = call(&socket, "GET /", "");
    assert!(status == "200" && text.contains("\"id\":\"served\""), "{text}");
    let (status, text) = call(&socket, "PUT /actions", r#"{"action_type": "InstanceStart"}"#);
    assert_eq!(status, "204", "{text}");
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert_eq!(
        (output.as_str(), child.wait().unwrap().code()),
        ("stub\n", Some(3))
    );
}
