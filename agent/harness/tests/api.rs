//! The agent's socket, spoken to byte by byte.

mod shop;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use secovia_agent_harness::{Programs, Settings, Testbed, sh};
use secovia_guest_protocol::{Decoder, Frame, GuestErrorCode, Request, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

async fn bed(settings: Settings) -> Testbed {
    let programs = Programs::fake(
        env!("CARGO_BIN_EXE_agent-under-test"),
        env!("CARGO_BIN_EXE_fake-vmm"),
        env!("CARGO_BIN_EXE_jailer-under-test"),
    );
    Testbed::with_image(&programs, &settings).await
}

/// Sends a request and returns everything that comes back.
async fn ask(bed: &Testbed, request: &str) -> String {
    let mut stream = UnixStream::connect(bed.path("run/agent.sock")).await.unwrap();
    let mut answer = Vec::new();
    // The agent hangs up on a body that is too large; its answer is there then.
    let _ = stream.write_all(request.as_bytes()).await;
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}

const JSON: &str = "Content-Type: application/json\r\n";

/// Whatever is wrong with a request has a status, a code and a text that names it.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_wrong_is_answered_in_one_shape() {
    let bed = bed(Settings::default()).await;
    let upgrade = "Connection: upgrade\r\nUpgrade: secovia-guest/1\r\n";
    let large = format!("{{\"image\":\"{}\"}}", "x".repeat(2 << 20));
    let table = [
        (
            request("GET", "/v1/nothing", "", ""),
            "404",
            "route_not_found",
            "no such route",
        ),
        (
            request("GET", "/v2/vms", "", ""),
            "404",
            "route_not_found",
            "no such route",
        ),
        (
            request("PUT", "/v1/vms", "", ""),
            "405",
            "method_not_allowed",
            "no such method",
        ),
        (request("POST", "/v1/vms", JSON, "{"), "400", "bad_request", "EOF"),
        (
            request("POST", "/v1/vms", JSON, r#"{"image":"base","cpu":2}"#),
            "400",
            "bad_request",
            "unknown field `cpu`",
        ),
        (
            request("POST", "/v1/vms", JSON, r#"{"image":"base","image":"b"}"#),
            "400",
            "bad_request",
            "duplicate field",
        ),
        (
            request("POST", "/v1/vms", JSON, r#"{"image":7}"#),
            "400",
            "bad_request",
            "invalid type",
        ),
        (
            request("POST", "/v1/vms", JSON, "{}"),
            "400",
            "bad_request",
            "missing field `image`",
        ),
        (
            request("POST", "/v1/vms", "", r#"{"image":"base"}"#),
            "400",
            "bad_request",
            "Content-Type",
        ),
        (
            request("POST", "/v1/vms", JSON, &large),
            "400",
            "bad_request",
            "length limit",
        ),
        (
            request("GET", "/v1/vms?al=true", "", ""),
            "400",
            "bad_request",
            "unknown field `al`",
        ),
        (
            request("GET", "/v1/vms/none", "", ""),
            "404",
            "vm_not_found",
            "`none`",
        ),
        (
            request("GET", "/v1/vms/a%2Fb", "", ""),
            "404",
            "vm_not_found",
            "`a/b`",
        ),
        (
            request("POST", "/v1/vms/none/attach", "", ""),
            "426",
            "upgrade_required",
            "Upgrade: secovia-guest/1",
        ),
        (
            request("POST", "/v1/vms/none/exec", upgrade, ""),
            "404",
            "vm_not_found",
            "`none`",
        ),
        (
            request("POST", "/v1/images", JSON, r#"{"path":"relative"}"#),
            "400",
            "bad_request",
            "absolute path",
        ),
        (
            request("DELETE", "/v1/images/..%2F..%2Fetc", "", ""),
            "404",
            "image_not_found",
            "is not in the store",
        ),
    ];
    for (request, status, code, words) in table {
        let answer = ask(&bed, &request).await;
        let line = request.lines().next().unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{line}: {answer}"
        );
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["error"]["code"], code, "{line}");
        assert!(
            body["error"]["message"].as_str().unwrap().contains(words),
            "{line}: {body}"
        );
    }
    assert!(ask(&bed, "nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    bed.client().version().await.unwrap();
}

/// A request without a body has the defaults of its type, and the description is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn defaults_and_description() {
    let bed = bed(Settings::default()).await;
    bed.client()
        .create_vm(&sh("x", "trap 'exit 2' TERM; while :; do sleep 0.05; done"))
        .await
        .unwrap();
    bed.running("x").await;
    let answer = ask(
        &bed,
        "POST /v1/vms/x/stop HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"exited\""),
        "{answer}"
    );
    let answer = ask(&bed, &request("GET", "/v1/openapi.json", "", "")).await;
    assert!(
        answer.contains("\"openapi\"") && answer.contains("/v1/vms/{vm}/attach"),
        "{answer}"
    );
}

/// Only the frame that a session is for may come first.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_session_begins_with_its_own_request() {
    let bed = bed(Settings::default()).await;
    let client = bed.client();
    client.create_vm(&sh("x", "sleep 60")).await.unwrap();
    bed.running("x").await;
    let shutdown = encode(&Frame::Request(Request::Shutdown { grace_ms: 0 })).unwrap();
    let attach = encode(&Frame::Request(Request::Attach {
        from: 0,
        stdin: false,
    }))
    .unwrap();
    for (exec, first) in [
        (false, shutdown.clone()),
        (true, shutdown),
        (true, attach),
        (false, vec![99; 40]),
    ] {
        let mut stream = if exec {
            client.exec("x").await.unwrap()
        } else {
            client.attach("x").await.unwrap()
        };
        stream.write_all(&first).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let mut decoder = Decoder::default();
        decoder.push(&answer);
        match decoder.next_frame().unwrap() {
            Some(Frame::Error(error)) => assert_eq!(error.code, GuestErrorCode::BadRequest),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(client.vm("x").await.unwrap().state.word(), "running");
}

const NOBODY: u32 = 65_534;

/// What the agent answers a user who asks for its version, or to import an image.
fn ask_as(socket: &Path, import: Option<&Path>, uid: u32, gid: u32) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ask"))
        .arg(socket)
        .args(import)
        .uid(uid)
        .gid(gid)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The number of a group that every host has.
fn users() -> u32 {
    let group = fs::read_to_string("/etc/group").unwrap();
    let mut users = group.lines().filter(|line| line.starts_with("users:"));
    let users = users.next().expect("a host has the group users");
    users.split(':').nth(2).unwrap().parse().unwrap()
}

/// Who may use the agent, which is root, gets no file read by it that he may not read himself.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_image_is_imported_with_the_callers_rights() {
    let settings = Settings {
        socket_group: "users",
        ..Settings::default()
    };
    let bed = bed(settings).await;
    fs::set_permissions(bed.path(""), Permissions::from_mode(0o755)).unwrap();
    let image = bed.fake_image("other");
    let import = || ask_as(&bed.path("run/agent.sock"), Some(&image), NOBODY, users());
    fs::set_permissions(&image, Permissions::from_mode(0o700)).unwrap();
    let answer = import();
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("Permission denied"),
        "{answer}"
    );
    fs::set_permissions(&image, Permissions::from_mode(0o755)).unwrap();
    let answer = import();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
}

/// Whose files the agent cannot read sends it an image: one whose directory nobody else enters, for example.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_image_is_taken_from_who_sends_it() {
    let settings = Settings {
        socket_group: "users",
        ..Settings::default()
    };
    let bed = bed(settings).await;
    fs::set_permissions(bed.path(""), Permissions::from_mode(0o755)).unwrap();
    let send = |name: &str, archive: &[u8]| {
        let file = bed.path("archive.tar");
        fs::write(&file, archive).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_ask"))
            .arg(bed.path("run/agent.sock"))
            .args(["--upload", name])
            .stdin(fs::File::open(file).unwrap())
            .uid(NOBODY)
            .gid(users())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let archive = shop::Image::new(&["/bin/sh"]).archive();
    let answer = send("sent", &archive);
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    let images = bed.client().list_images().await.unwrap();
    let image = images.iter().find(|image| image.manifest.name == "sent").unwrap();
    assert_eq!(image.manifest.command, ["/bin/sh"]);
    // What is wrong with it is said, and leaves nothing.
    for (name, archive, words) in [
        ("../x", &archive[..], "the name is"),
        ("half", &archive[..archive.len() / 2], "(as sent)"),
        ("none", &b"nothing"[..], "(as sent)"),
    ] {
        let answer = send(name, archive);
        assert!(
            answer.starts_with("HTTP/1.1 400 ") && answer.contains(words),
            "{answer}"
        );
    }
    let left: Vec<_> = fs::read_dir(bed.path("state/images"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.') || name == "half" || name == "none")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Root and the group come in; others are kept out by the socket's mode, and by the agent where that was changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn others_are_kept_out() {
    let users = users();
    let settings = Settings {
        socket_group: "users",
        ..Settings::default()
    };
    let bed = bed(settings).await;
    let socket = bed.path("run/agent.sock");
    let ask_as = |uid: u32, gid: u32| ask_as(&socket, None, uid, gid);

    // The way to the socket is open to all; the socket is not.
    fs::set_permissions(bed.path(""), Permissions::from_mode(0o755)).unwrap();
    let program = fs::metadata(env!("CARGO_BIN_EXE_ask")).unwrap();
    assert!(program.permissions().mode() & 0o001 != 0);
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    assert!(ask_as(0, 0).starts_with("HTTP/1.1 200 "));
    assert!(
        ask_as(NOBODY, users).starts_with("HTTP/1.1 200 "),
        "{}",
        ask_as(NOBODY, users)
    );
    assert!(
        ask_as(NOBODY, NOBODY).contains("Permission denied"),
        "{}",
        ask_as(NOBODY, NOBODY)
    );
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    let answer = ask_as(NOBODY, NOBODY);
    assert!(
        answer.starts_with("HTTP/1.1 403 ") && answer.contains("group `users`"),
        "{answer}"
    );
    assert!(ask_as(NOBODY, users).starts_with("HTTP/1.1 200 "));
}
