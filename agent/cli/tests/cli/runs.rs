//! `run` and `exec`: streams, status, signals, and an agent that goes away.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use secovia_guest_protocol::{ExitStatus, Frame, GuestError, GuestErrorCode, Reply, Request};
use serde_json::json;

use crate::fake::{Answer, FakeAgent, Guest, texts, web};

const ID: &str = "0123456789abcdef";

fn attach() -> String {
    format!("POST /v1/vms/{ID}/attach")
}

fn exec() -> String {
    "POST /v1/vms/web/exec".to_string()
}

/// An agent that creates `web`, which runs.
fn agent() -> FakeAgent {
    let agent = FakeAgent::start();
    agent
        .on(
            "POST /v1/vms",
            Answer::Json(201, web(json!({"status": "starting"}))),
        )
        .on(
            &format!("GET /v1/vms/{ID}/wait?until=ended"),
            Answer::Json(200, web(json!({"status": "exited", "code": 0}))),
        )
        .on(
            "GET /v1/vms/web",
            Answer::Json(200, web(json!({"status": "running"}))),
        );
    agent
}

/// Takes the request and says yes.
async fn accept(guest: &mut Guest) -> Request {
    let Some(Frame::Request(request)) = guest.receive().await else {
        panic!("no request");
    };
    guest.send(Frame::Reply(Reply::Done {})).await;
    request
}

#[test]
fn run_hands_output_and_status_on() {
    let agent = agent();
    agent.on(
        &attach(),
        Answer::session(|mut guest| async move {
            let request = accept(&mut guest).await;
            assert_eq!(
                request,
                Request::Attach {
                    from: 0,
                    stdin: false
                }
            );
            guest.send(Frame::Stdout(b"out\xff".to_vec())).await;
            guest.send(Frame::Stderr(b"err".to_vec())).await;
            guest.send(Frame::Exit(ExitStatus::Exited(7))).await;
        }),
    );
    let output = agent.run(&[
        "run", "--name", "web", "--memory", "1G", "-e", "A=b", "base", "--", "sh", "-c", "exit 7",
    ]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(
        (&output.stdout[..], &output.stderr[..]),
        (&b"out\xff"[..], &b"err"[..])
    );
    let body = &agent.seen("POST /v1/vms")[0];
    assert_eq!(body["image"], "base");
    assert_eq!(body["command"], json!(["sh", "-c", "exit 7"]));
    assert_eq!(
        (&body["memory_mib"], &body["env"]["A"]),
        (&json!(1024), &json!("b"))
    );
    assert_eq!((&body["attach"], &body["stdin"]), (&json!(true), &json!(false)));
}

#[test]
fn run_shows_a_signals_status_as_a_shell_does() {
    let agent = agent();
    agent.on(
        &attach(),
        Answer::session(|mut guest| async move {
            accept(&mut guest).await;
            guest.send(Frame::Exit(ExitStatus::Signaled(9))).await;
        }),
    );
    assert_eq!(agent.run(&["run", "base"]).status.code(), Some(137));
}

#[test]
fn run_detached_prints_the_name_when_the_command_runs() {
    let agent = agent();
    let wait = format!("GET /v1/vms/{ID}/wait?until=started");
    agent.on(&wait, Answer::Json(200, web(json!({"status": "running"}))));
    let output = agent.run(&["run", "--detach", "web"]);
    assert_eq!(texts(&output), ("web\n".into(), String::new()));
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(agent.seen("POST /v1/vms")[0]["attach"], false);
    assert_eq!(agent.seen(&wait).len(), 1);
}

#[test]
fn run_tells_why_a_start_failed() {
    for line in [&["run", "base", "nope"][..], &["run", "--detach", "base", "nope"]] {
        let agent = agent();
        let failed =
            || web(json!({"status": "failed", "reason": "no program `nope` in the image", "code": 127}));
        agent
            .on(
                &attach(),
                Answer::error(500, "start_failed", "microVM `web` failed"),
            )
            .on(&format!("GET /v1/vms/{ID}"), Answer::Json(200, failed()))
            .on(
                &format!("GET /v1/vms/{ID}/wait?until=started"),
                Answer::Json(200, failed()),
            );
        let output = agent.run(line);
        assert_eq!(output.status.code(), Some(127));
        assert_eq!(
            texts(&output).1,
            "secovia: run web: no program `nope` in the image\n"
        );
    }
}

#[test]
fn run_detached_waits_for_the_reason_of_a_guest_that_is_going_down() {
    let agent = FakeAgent::start();
    let failed = web(json!({"status": "failed", "reason": "no program `nope` in the image", "code": 127}));
    agent
        .on(
            "POST /v1/vms",
            Answer::Json(201, web(json!({"status": "starting"}))),
        )
        .on(
            &format!("GET /v1/vms/{ID}/wait?until=started"),
            Answer::Json(200, web(json!({"status": "stopping"}))),
        )
        .on(
            &format!("GET /v1/vms/{ID}/wait?until=ended"),
            Answer::Json(200, failed),
        );
    let output = agent.run(&["run", "--detach", "base", "nope"]);
    assert_eq!(output.status.code(), Some(127));
    assert_eq!(
        texts(&output),
        (
            String::new(),
            "secovia: run web: no program `nope` in the image\n".into()
        )
    );
}

#[test]
fn run_returns_when_the_machine_is_gone_too() {
    let agent = FakeAgent::start();
    let mut vm = web(json!({"status": "starting"}));
    vm["rm"] = json!(true);
    agent
        .on("POST /v1/vms", Answer::Json(201, vm.clone()))
        .on(
            &format!("GET /v1/vms/{ID}/wait?until=ended"),
            Answer::Json(200, web(json!({"status": "exited", "code": 0}))),
        )
        .on(
            &attach(),
            Answer::session(|mut guest| async move {
                accept(&mut guest).await;
                guest.send(Frame::Exit(ExitStatus::Exited(9))).await;
            }),
        );
    let shown = format!("GET /v1/vms/{ID}");
    for answer in [
        Answer::Json(200, vm.clone()),
        Answer::Json(200, vm),
        Answer::error(404, "vm_not_found", "no such microVM"),
    ] {
        agent.on(&shown, answer);
    }
    assert_eq!(agent.run(&["run", "--rm", "base"]).status.code(), Some(9));
    assert_eq!(agent.seen(&shown).len(), 3);
}

#[test]
fn run_learns_the_status_of_what_removed_itself() {
    let agent = FakeAgent::start();
    let ended = web(json!({"status": "failed", "reason": "the guest panicked"}));
    agent
        .on(
            "POST /v1/vms",
            Answer::Json(201, web(json!({"status": "starting"}))),
        )
        .on(
            &format!("GET /v1/vms/{ID}/wait?until=ended"),
            Answer::Json(200, ended),
        )
        .on(&attach(), Answer::error(404, "vm_not_found", "no such microVM"))
        .on(
            &format!("GET /v1/vms/{ID}"),
            Answer::error(404, "vm_not_found", "no such microVM"),
        );
    let output = agent.run(&["run", "--rm", "base"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(texts(&output).1, "secovia: run web: the guest panicked\n");
}

#[test]
fn run_goes_on_where_it_broke_off_when_the_agent_comes_back() {
    let agent = agent();
    agent
        .on(
            &attach(),
            Answer::session(|mut guest| async move {
                accept(&mut guest).await;
                guest.send(Frame::Stdout(b"first ".to_vec())).await;
            }),
        )
        .on(
            &format!("GET /v1/vms/{ID}"),
            Answer::Json(200, web(json!({"status": "running"}))),
        )
        .on(
            &attach(),
            Answer::error(503, "shutting_down", "the agent is going down"),
        )
        .on(
            &attach(),
            Answer::session(|mut guest| async move {
                let request = accept(&mut guest).await;
                assert_eq!(
                    request,
                    Request::Attach {
                        from: 6,
                        stdin: false
                    }
                );
                guest.send(Frame::Stdout(b"second\n".to_vec())).await;
                guest.send(Frame::Exit(ExitStatus::Exited(3))).await;
            }),
        );
    let output = agent.run(&["run", "base"]);
    assert_eq!(texts(&output), ("first second\n".into(), String::new()));
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn run_says_so_when_the_end_of_the_output_was_lost() {
    let agent = agent();
    agent
        .on(
            &attach(),
            Answer::session(|mut guest| async move {
                accept(&mut guest).await;
            }),
        )
        .on(
            &format!("GET /v1/vms/{ID}"),
            Answer::Json(200, web(json!({"status": "exited", "code": 5}))),
        );
    let output = agent.run(&["run", "base"]);
    assert_eq!(output.status.code(), Some(5));
    assert!(texts(&output).1.contains("secovia logs web"), "{output:?}");
}

#[test]
fn exec_carries_input_and_the_workloads_world() {
    let agent = agent();
    agent.on(
        &exec(),
        Answer::session(|mut guest| async move {
            let Request::Exec(process) = accept(&mut guest).await else {
                panic!("no exec");
            };
            assert_eq!(process.argv, ["cat", "-"]);
            assert_eq!(
                (process.env["PATH"].as_str(), process.env["B"].as_str()),
                ("/bin", "c")
            );
            assert_eq!(process.user.as_deref(), Some("www"));
            let mut input = Vec::new();
            loop {
                match guest.receive().await {
                    Some(Frame::Stdin(bytes)) => input.extend(bytes),
                    Some(Frame::StdinEof) => break,
                    other => panic!("{other:?}"),
                }
            }
            for part in input.chunks(100_000) {
                guest.send(Frame::Stdout(part.to_vec())).await;
            }
            guest.send(Frame::Exit(ExitStatus::Exited(0))).await;
        }),
    );
    let mut child = agent
        .command(&["exec", "-i", "-u", "www", "-e", "B=c", "web", "--", "cat", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // More than all buffers on the way together.
    let sent: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn({
        let sent = sent.clone();
        move || stdin.write_all(&sent).unwrap()
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(
        output.stdout == sent,
        "{} of {} bytes",
        output.stdout.len(),
        sent.len()
    );
}

#[test]
fn exec_without_input_ends_it_and_refusals_have_a_shells_status() {
    for (code, status) in [
        (GuestErrorCode::NotFound, 127),
        (GuestErrorCode::NotExecutable, 126),
        (GuestErrorCode::NoSuchUser, 1),
    ] {
        let agent = agent();
        agent.on(
            &exec(),
            Answer::session(move |mut guest| async move {
                assert!(matches!(
                    guest.receive().await,
                    Some(Frame::Request(Request::Exec(_)))
                ));
                assert_eq!(guest.receive().await, Some(Frame::StdinEof));
                let message = "it is so".to_string();
                guest.send(Frame::Error(GuestError { code, message })).await;
            }),
        );
        let output = agent.run(&["exec", "web", "--", "x"]);
        assert_eq!(output.status.code(), Some(status));
        assert_eq!(texts(&output).1, "secovia: exec web: it is so\n");
    }
}

#[test]
fn exec_fails_when_the_guest_goes_away() {
    let agent = agent();
    agent.on(
        &exec(),
        Answer::session(|mut guest| async move {
            accept(&mut guest).await;
        }),
    );
    let output = agent.run(&["exec", "web", "x"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(texts(&output).1.contains("secovia inspect web"), "{output:?}");
}

#[test]
fn signals_go_to_the_guest_and_the_third_leaves() {
    let agent = agent();
    agent.on(
        &attach(),
        Answer::session(|mut guest| async move {
            accept(&mut guest).await;
            guest.send(Frame::Stdout(b"up\n".to_vec())).await;
            while let Some(frame) = guest.receive().await {
                if let Frame::Signal(signal) = frame {
                    guest
                        .send(Frame::Stdout(format!("{signal}\n").into_bytes()))
                        .await;
                }
            }
        }),
    );
    let mut child = agent
        .command(&["run", "base"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_child(&child);
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "up");
    for (signal, number) in [(Signal::TERM, "15"), (Signal::HUP, "1"), (Signal::INT, "2")] {
        kill_process(pid, signal).unwrap();
        assert_eq!(lines.next().unwrap(), number);
    }
    kill_process(pid, Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut told = String::new();
    child.stderr.unwrap().read_to_string(&mut told).unwrap();
    assert!(told.contains("secovia kill web"), "{told}");
}

#[test]
fn a_signal_during_the_boot_ends_the_microvm() {
    let agent = agent();
    agent.on(&attach(), Answer::Never).on(
        &format!("POST /v1/vms/{ID}/kill"),
        Answer::Json(200, web(json!({"status": "exited", "code": 137}))),
    );
    let mut child = agent.command(&["run", "base"]).spawn().unwrap();
    while agent.seen(&attach()).is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(agent.seen(&format!("POST /v1/vms/{ID}/kill")).len(), 1);
}

#[test]
fn a_closed_output_ends_exec_quietly() {
    let agent = agent();
    agent.on(
        &exec(),
        Answer::session(|mut guest| async move {
            accept(&mut guest).await;
            // Ends when the client hangs up.
            tokio::spawn(async move {
                for _ in 0..1000 {
                    guest.send(Frame::Stdout(vec![b'x'; 100_000])).await;
                }
            });
        }),
    );
    let mut child = agent
        .command(&["exec", "web", "yes"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(output.stderr, b"");
}
