//! What a person does with the CLI.

use std::collections::BTreeMap;

use secovia_agent_api::client::{Client, GuestStream};
use secovia_agent_api::{LogEvent, LogQuery, VmCreate};
use secovia_guest_protocol::{Decoder, ExitStatus, Frame, GuestError, ProcessSpec, Reply, Request, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How a session ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// The status, where the process ended.
    pub exit: Option<ExitStatus>,
    /// What the guest refused.
    pub error: Option<GuestError>,
}

/// A microVM of the base image that runs a shell script.
pub fn sh(name: &str, script: &str) -> VmCreate {
    VmCreate {
        name: Some(name.into()),
        command: vec!["sh".into(), "-c".into(), script.into()],
        memory_mib: 128,
        ..VmCreate::new("base")
    }
}

/// `secovia run`: creates the microVM, attaches and follows it to its end.
pub async fn run(client: &Client, mut create: VmCreate, input: Option<&str>) -> Ended {
    create.attach = true;
    create.stdin = input.is_some();
    let vm = client.create_vm(&create).await.unwrap();
    attach(client, &vm.id, 0, input).await
}

/// `secovia attach`, from byte `from` on.
pub async fn attach(client: &Client, vm: &str, from: u64, input: Option<&str>) -> Ended {
    let stream = client.attach(vm).await.unwrap();
    let stdin = input.is_some();
    follow(stream, Request::Attach { from, stdin }, input).await
}

/// `secovia exec`.
pub async fn exec(client: &Client, vm: &str, argv: &[&str]) -> Ended {
    let stream = client.exec(vm).await.unwrap();
    let spec = ProcessSpec {
        argv: argv.iter().map(ToString::to_string).collect(),
        env: BTreeMap::from([("PATH".to_string(), "/usr/sbin:/usr/bin:/sbin:/bin".to_string())]),
        cwd: None,
        user: None,
        tty: None,
    };
    follow(stream, Request::Exec(spec), None).await
}

/// `secovia exec -c`.
pub async fn exec_in(client: &Client, vm: &str, container: &str, argv: &[&str]) -> Ended {
    let stream = client.exec(vm).await.unwrap();
    let process = ProcessSpec {
        argv: argv.iter().map(ToString::to_string).collect(),
        env: BTreeMap::new(),
        cwd: None,
        user: None,
        tty: None,
    };
    let container = container.to_string();
    follow(stream, Request::ExecIn { container, process }, None).await
}

async fn follow(mut stream: GuestStream, request: Request, input: Option<&str>) -> Ended {
    let mut out = encode(&Frame::Request(request)).unwrap();
    if let Some(input) = input {
        out.extend(encode(&Frame::Stdin(input.as_bytes().to_vec())).unwrap());
        out.extend(encode(&Frame::StdinEof).unwrap());
    }
    stream.write_all(&out).await.unwrap();
    let mut ended = Ended::default();
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; 65536];
    loop {
        while let Some(frame) = decoder.next_frame().unwrap() {
            match frame {
                Frame::Reply(Reply::Done {}) => {}
                Frame::Stdout(bytes) => ended.stdout.push_str(&String::from_utf8(bytes).unwrap()),
                Frame::Stderr(bytes) => ended.stderr.push_str(&String::from_utf8(bytes).unwrap()),
                Frame::Exit(status) => {
                    ended.exit = Some(status);
                    return ended;
                }
                Frame::Error(error) => {
                    ended.error = Some(error);
                    return ended;
                }
                other => panic!("{other:?}"),
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return ended,
            Ok(count) => decoder.push(&buffer[..count]),
        }
    }
}

/// `secovia logs`, both streams in one text.
pub async fn log_text(client: &Client, vm: &str, query: &LogQuery) -> String {
    let mut stream = client.vm_logs(vm, query).await.unwrap();
    let mut text = String::new();
    while let Some(record) = stream.next().await.unwrap() {
        match record.event {
            LogEvent::Stdout(bytes) | LogEvent::Stderr(bytes) => {
                text.push_str(&String::from_utf8(bytes.into_bytes().unwrap()).unwrap());
            }
            LogEvent::Gap(count) => text.push_str(&format!("<gap {count}>")),
        }
    }
    text
}
