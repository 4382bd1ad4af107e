//! The server, natively: each session is one end of a socket pair, the workload is a program of this machine.

mod common;

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use secovia_guest_protocol::{
    ExitStatus, Frame, GuestErrorCode, GuestInfo, MAX_PAYLOAD, ProcessSpec, Reply, Request, WindowSize,
    WorkloadSpec, WorkloadState, encode,
};
use secovia_init::children::Reaping;
use secovia_init::server::{Machine, Server};

use common::{DONE, Seen, Session, on_terminal, program, sh};

struct Native {
    off: Mutex<Sender<()>>,
}

impl Machine for Native {
    fn set_network(&self, _: &secovia_guest_protocol::NetworkSetup) -> std::io::Result<()> {
        Ok(())
    }

    fn set_hostname(&self, name: &str) -> std::io::Result<()> {
        if name == "refused" {
            Err(std::io::ErrorKind::PermissionDenied.into())
        } else {
            Ok(())
        }
    }

    fn started_after_ns(&self) -> u64 {
        42
    }

    fn power_off(&self) {
        self.off.lock().unwrap().send(()).unwrap();
    }
}

struct Guest {
    server: Server,
    off: Receiver<()>,
}

impl Guest {
    fn new() -> Self {
        let (off, receiver) = channel();
        let server = Server::new(Native { off: Mutex::new(off) }, Reaping::Own).unwrap();
        Self {
            server,
            off: receiver,
        }
    }

    fn connect(&self) -> Session {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.server.session(theirs.into());
        Session::new(ours)
    }

    fn request(&self, request: Request) -> Session {
        let mut session = self.connect();
        session.send(&Frame::Request(request));
        session
    }

    fn attach(&self, from: u64, stdin: bool) -> Session {
        let mut session = self.request(Request::Attach { from, stdin });
        assert_eq!(session.next(), Some(Frame::Reply(Reply::Done {})));
        session
    }

    fn start(&self, process: ProcessSpec) -> Frame {
        let spec = WorkloadSpec {
            hostname: "guest".into(),
            network: None,
            process,
        };
        self.request(Request::Start(spec)).next().unwrap()
    }

    fn exec(&self, process: ProcessSpec) -> Session {
        let mut session = self.request(Request::Exec(process));
        assert_eq!(session.next(), Some(Frame::Reply(Reply::Done {})));
        session
    }

    fn info(&self) -> GuestInfo {
        match self.request(Request::Info {}).next() {
            Some(Frame::Reply(Reply::Info(info))) => info,
            other => panic!("{other:?}"),
        }
    }

    fn wait_for(&self, state: WorkloadState) {
        let begin = Instant::now();
        while self.info().workload != state {
            assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", self.info());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn the_workload_hands_back_its_status_and_keeps_its_streams_apart() {
    let guest = Guest::new();
    let mut early = guest.attach(0, false);
    assert_eq!(guest.info().workload, WorkloadState::Waiting);
    assert_eq!(guest.start(sh("echo out; echo err >&2; exit 7")), DONE);
    let seen = early.finish();
    assert_eq!(seen.out, b"out\n");
    assert_eq!(seen.err, b"err\n");
    assert_eq!(seen.exit, Some(ExitStatus::Exited(7)));
    // Status and output are kept for those who come later.
    let info = guest.info();
    assert_eq!(
        (info.workload, info.output),
        (WorkloadState::Ended(ExitStatus::Exited(7)), 8)
    );
    assert_eq!(info.init_at_ns, 42);
    let late = guest.attach(8, false).finish();
    assert_eq!(
        late,
        Seen {
            exit: Some(ExitStatus::Exited(7)),
            ..Seen::default()
        }
    );
    let again = guest.attach(0, false).finish();
    assert_eq!((again.out, again.err), (seen.out, seen.err));
}

#[test]
fn a_guest_runs_one_workload_but_a_failed_start_may_be_repeated() {
    let guest = Guest::new();
    let start = |process| match guest.start(process) {
        Frame::Error(error) => Some(error.code),
        DONE => None,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        start(program("no-such-program-here")),
        Some(GuestErrorCode::NotFound)
    );
    assert_eq!(start(program("/etc/passwd")), Some(GuestErrorCode::NotExecutable));
    assert_eq!(start(program("/no/such/file")), Some(GuestErrorCode::NotFound));
    let user = Some("nobody-of-that-name".to_string());
    assert_eq!(
        start(ProcessSpec { user, ..sh("true") }),
        Some(GuestErrorCode::NoSuchUser)
    );
    let cwd = Some("/no/such/directory".to_string());
    assert_eq!(
        start(ProcessSpec { cwd, ..sh("true") }),
        Some(GuestErrorCode::BadRequest)
    );
    assert_eq!(
        start(ProcessSpec {
            argv: vec![],
            ..sh("")
        }),
        Some(GuestErrorCode::BadRequest)
    );
    assert_eq!(start(sh("a\0b")), Some(GuestErrorCode::BadRequest));
    let env = BTreeMap::from([("A=B".to_string(), "C".to_string())]);
    assert_eq!(
        start(ProcessSpec { env, ..sh("true") }),
        Some(GuestErrorCode::BadRequest)
    );
    assert_eq!(start(sh("cat; exit 3")), None);
    assert_eq!(start(sh("true")), Some(GuestErrorCode::AlreadyStarted));
    let mut session = guest.attach(0, true);
    session.send(&Frame::StdinEof);
    assert_eq!(
        session.finish().exit,
        Some(ExitStatus::Exited(3)),
        "its input outlived the failed starts"
    );
    assert_eq!(start(sh("true")), Some(GuestErrorCode::AlreadyStarted));
}

#[test]
fn host_names_are_checked() {
    let guest = Guest::new();
    for (name, code) in [
        ("", GuestErrorCode::BadRequest),
        ("a b", GuestErrorCode::BadRequest),
        ("a/../b", GuestErrorCode::BadRequest),
        (&*"x".repeat(65), GuestErrorCode::BadRequest),
        ("refused", GuestErrorCode::Failed),
    ] {
        let spec = WorkloadSpec {
            hostname: name.into(),
            network: None,
            process: sh("true"),
        };
        assert_eq!(guest.request(Request::Start(spec)).error(), code, "{name:?}");
    }
}

#[test]
fn input_that_comes_before_the_start_waits_for_it() {
    let guest = Guest::new();
    let mut session = guest.attach(0, true);
    session.send(&Frame::Stdin(b"early ".to_vec()));
    session.send(&Frame::Stdin(b"bird".to_vec()));
    session.send(&Frame::StdinEof);
    assert_eq!(guest.start(sh("tr a-z A-Z")), DONE);
    let seen = session.finish();
    assert_eq!(
        (&seen.out[..], seen.exit),
        (&b"EARLY BIRD"[..], Some(ExitStatus::Exited(0)))
    );
}

#[test]
fn much_input_flows_at_the_workloads_pace() {
    let guest = Guest::new();
    let mut session = guest.attach(0, true);
    assert_eq!(guest.start(sh("sleep 0.3; wc -c")), DONE);
    let block = vec![b'x'; MAX_PAYLOAD];
    for _ in 0..40 {
        session.send(&Frame::Stdin(block.clone()));
    }
    session.send(&Frame::StdinEof);
    let out = String::from_utf8(session.finish().out).unwrap();
    assert_eq!(out.trim(), (40 * MAX_PAYLOAD).to_string());
}

#[test]
fn a_host_that_hangs_up_while_its_input_is_stuck_is_noticed() {
    let guest = Guest::new();
    let mut session = guest.exec(sh("trap '' HUP; echo pid $$; exec sleep 1000"));
    let pid = pid_of(&session.until("\n"));
    session.socket.set_nonblocking(true).unwrap();
    let frame = encode(&Frame::Stdin(vec![0; MAX_PAYLOAD])).unwrap();
    while session.socket.write(&frame).is_ok() {}
    drop(session);
    wait_until_gone(pid);
}

fn pid_of(line: &str) -> i32 {
    line.trim().rsplit(' ').next().unwrap().parse().unwrap()
}

fn wait_until_gone(pid: i32) {
    let begin = Instant::now();
    while std::path::Path::new(&format!("/proc/{pid}")).exists() {
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "process {pid} is still there"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Every eight bytes say where they are, so that a lost or doubled piece shows.
#[test]
fn much_output_is_lossless_for_a_slow_reader() {
    const LINES: u64 = 50_000_000 / 8;
    let guest = Guest::new();
    let mut slow = guest.attach(0, false);
    let begin = Instant::now();
    assert_eq!(guest.start(sh(&format!("seq -f %07.0f 0 {}", LINES - 1))), DONE);
    let (mut count, mut line) = (0, Vec::new());
    loop {
        match slow.next().unwrap() {
            Frame::Stdout(bytes) => {
                for byte in bytes {
                    line.push(byte);
                    if byte == b'\n' {
                        let number: u64 = std::str::from_utf8(&line).unwrap().trim().parse().unwrap();
                        assert_eq!(number, count);
                        count += 1;
                        line.clear();
                    }
                }
            }
            Frame::Exit(status) => break assert_eq!(status, ExitStatus::Exited(0)),
            other => panic!("{other:?}"),
        }
        // The workload is much faster than this, and would overrun any bounded buffer.
        if begin.elapsed() < Duration::from_millis(500) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    assert_eq!((count, line.len()), (LINES, 0));
}

#[test]
fn output_that_nobody_reads_is_kept_to_a_bound_and_the_gap_is_told() {
    const TOTAL: u64 = 5_000_000;
    let guest = Guest::new();
    assert_eq!(
        guest.start(sh(&format!("head -c {TOTAL} /dev/zero; printf end"))),
        DONE
    );
    guest.wait_for(WorkloadState::Ended(ExitStatus::Exited(0)));
    assert_eq!(guest.info().output, TOTAL + 3);
    let seen = guest.attach(1000, false).finish();
    assert_eq!(seen.gap + 1000 + seen.out.len() as u64, TOTAL + 3);
    assert!(seen.out.len() > 1_000_000 && seen.out.len() <= 1024 * 1024);
    assert!(seen.out.ends_with(b"\0end"));
    assert_eq!(
        guest
            .request(Request::Attach {
                from: TOTAL + 4,
                stdin: false
            })
            .error(),
        GuestErrorCode::BadRequest
    );
}

#[test]
fn a_reader_that_stops_reading_holds_up_the_workload_but_nobody_else() {
    let guest = Guest::new();
    let stuck = guest.attach(0, false);
    assert_eq!(guest.start(sh("head -c 4000000 /dev/zero; exit 5")), DONE);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(guest.info().workload, WorkloadState::Running, "4 MB fit nowhere");
    assert_eq!(
        guest.exec(sh("exit 9")).finish().exit,
        Some(ExitStatus::Exited(9))
    );
    drop(stuck);
    guest.wait_for(WorkloadState::Ended(ExitStatus::Exited(5)));
}

#[test]
fn a_process_left_behind_does_not_hold_back_the_exit() {
    let guest = Guest::new();
    let mut session = guest.attach(0, false);
    assert_eq!(guest.start(sh("sleep 1000 & echo pid $!; exit 4")), DONE);
    let begin = Instant::now();
    let seen = session.finish();
    assert_eq!(seen.exit, Some(ExitStatus::Exited(4)));
    assert!(begin.elapsed() < Duration::from_secs(10));
    let pid = pid_of(std::str::from_utf8(&seen.out).unwrap());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
}

#[test]
fn environment_directory_and_user_are_the_ones_asked_for() {
    let guest = Guest::new();
    let env = BTreeMap::from([("GREETING".to_string(), "hello world".to_string())]);
    let cwd = Some("/usr/bin".to_string());
    let spec = ProcessSpec {
        env,
        cwd,
        ..sh("env | sort; pwd; ps -o sid= -p $$ | tr -d ' '; echo $$; grep SigBlk /proc/self/status")
    };
    let out = String::from_utf8(guest.exec(spec).finish().out).unwrap();
    let lines: Vec<&str> = out.lines().collect();
    assert!(
        lines.contains(&"GREETING=hello world") && lines.contains(&"/usr/bin"),
        "{out}"
    );
    assert!(
        lines.iter().any(|l| l.starts_with("PATH=/usr/local/sbin:")),
        "{out}"
    );
    assert!(lines.contains(&"HOME=/root"), "{out}");
    assert!(!out.contains("CARGO"), "nothing of ours leaks in: {out}");
    assert!(
        lines.last().unwrap().ends_with("\t0000000000000000"),
        "no signal is blocked: {out}"
    );
    let pid = lines.iter().rev().nth(1).unwrap();
    assert_eq!(
        lines.iter().filter(|l| l == &pid).count(),
        2,
        "it leads its own session: {out}"
    );
}

#[test]
fn a_user_brings_groups_and_loses_roots() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root may become somebody else");
        return;
    }
    let guest = Guest::new();
    let user = |user: &str, script: &str| {
        let spec = ProcessSpec {
            user: Some(user.into()),
            ..sh(script)
        };
        String::from_utf8(guest.exec(spec).finish().out).unwrap()
    };
    assert_eq!(user("nobody", "id -u; id -G"), "65534\n65534\n");
    assert_eq!(user("12345:54321", "id -u; id -G"), "12345\n54321\n");
    assert_eq!(user("nobody:daemon", "id -gn"), "daemon\n");
}

#[test]
fn a_terminal_is_one_to_the_program_and_follows_resizes() {
    let guest = Guest::new();
    // The trap is off before the first line is read: a shell may take a signal for the end of its input.
    let script = "trap 'resized=yes' WINCH; stty size; test -t 0 -a -t 1 -a -t 2 && echo yes; echo $TERM; \
                  ps -o tty= -p $$; until [ -n \"$resized\" ]; do sleep 0.05; done; trap - WINCH; stty size; \
                  while read -r line; do echo \"<$line>\"; done; exit 6";
    let mut session = guest.exec(on_terminal(script));
    let out = session.until("pts/");
    assert!(out.starts_with("24 80\r\nyes\r\nxterm\r\n"), "{out:?}");
    session.send(&Frame::Resize(WindowSize { rows: 50, cols: 132 }));
    session.until("50 132");
    session.send(&Frame::Stdin(b"typed\n".to_vec()));
    session.until("<typed>");
    session.send(&Frame::StdinEof);
    assert_eq!(session.finish().exit, Some(ExitStatus::Exited(6)));
}

#[test]
fn the_terminals_interrupt_key_works() {
    let guest = Guest::new();
    let mut session = guest.exec(on_terminal("echo ready; exec sleep 1000"));
    session.until("ready");
    session.send(&Frame::Stdin(vec![3]));
    assert_eq!(session.finish().exit, Some(ExitStatus::Signaled(2)));
}

#[test]
fn signals_reach_the_process_group() {
    let guest = Guest::new();
    assert_eq!(
        guest.request(Request::Signal { signal: 15 }).error(),
        GuestErrorCode::NotRunning
    );
    assert_eq!(guest.start(sh("sleep 1000; echo not reached")), DONE);
    assert_eq!(
        guest.request(Request::Signal { signal: 0 }).error(),
        GuestErrorCode::BadRequest
    );
    assert_eq!(
        guest.request(Request::Signal { signal: 65 }).error(),
        GuestErrorCode::BadRequest
    );
    assert_eq!(
        guest.request(Request::Signal { signal: -9 }).error(),
        GuestErrorCode::BadRequest
    );
    assert_eq!(guest.request(Request::Signal { signal: 15 }).next(), Some(DONE));
    let seen = guest.attach(0, false).finish();
    assert_eq!(
        seen,
        Seen {
            exit: Some(ExitStatus::Signaled(15)),
            ..Seen::default()
        }
    );
    assert_eq!(
        guest.request(Request::Signal { signal: 15 }).error(),
        GuestErrorCode::NotRunning
    );

    let mut session = guest.exec(sh(
        "trap 'echo usr1; exit 11' USR1; echo ready; while :; do sleep 0.05; done",
    ));
    session.until("ready");
    session.send(&Frame::Signal(10));
    session.until("usr1");
    assert_eq!(session.finish().exit, Some(ExitStatus::Exited(11)));

    // The last of the real-time signals, which many a library has no name for.
    let mut session = guest.exec(sh("echo ready; exec sleep 1000"));
    session.until("ready");
    session.send(&Frame::Signal(64));
    assert_eq!(session.finish().exit, Some(ExitStatus::Signaled(64)));
}

#[test]
fn hanging_up_ends_an_exec_and_leaves_the_workload_alone() {
    let guest = Guest::new();
    assert_eq!(guest.start(sh("sleep 1000")), DONE);
    for script in [
        "echo pid $$; exec sleep 1000",
        "trap '' HUP; echo pid $$; while :; do sleep 0.1; done",
    ] {
        let mut session = guest.exec(sh(script));
        let pid = pid_of(&session.until("\n"));
        drop(session);
        wait_until_gone(pid);
    }
    drop(guest.attach(0, true));
    assert_eq!(guest.info().workload, WorkloadState::Running);
    assert_eq!(guest.request(Request::Signal { signal: 9 }).next(), Some(DONE));
}

#[test]
fn shutdown_asks_then_insists() {
    for (script, grace_ms, status, least, most) in [
        (
            "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done",
            10_000,
            ExitStatus::Exited(3),
            0,
            5000,
        ),
        (
            "trap '' TERM; echo ready; while :; do sleep 0.05; done",
            300,
            ExitStatus::Signaled(9),
            300,
            5000,
        ),
    ] {
        let guest = Guest::new();
        let mut session = guest.attach(0, false);
        assert_eq!(guest.start(sh(script)), DONE);
        session.until("ready");
        let begin = Instant::now();
        assert_eq!(guest.request(Request::Shutdown { grace_ms }).next(), Some(DONE));
        assert_eq!(session.finish().exit, Some(status));
        drop(session);
        guest.off.recv_timeout(Duration::from_secs(20)).unwrap();
        let took = begin.elapsed();
        assert!(
            took >= Duration::from_millis(least) && took < Duration::from_millis(most),
            "{took:?}"
        );
    }
}

#[test]
fn a_second_shutdown_shortens_the_grace() {
    let guest = Guest::new();
    assert_eq!(
        guest.start(sh("trap '' TERM; while :; do sleep 0.05; done")),
        DONE
    );
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(
        guest.request(Request::Shutdown { grace_ms: u64::MAX }).next(),
        Some(DONE)
    );
    assert!(guest.off.recv_timeout(Duration::from_millis(300)).is_err());
    assert_eq!(
        guest.request(Request::Shutdown { grace_ms: 0 }).next(),
        Some(DONE)
    );
    guest.off.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(
        guest.info().workload,
        WorkloadState::Ended(ExitStatus::Signaled(9))
    );
}

#[test]
fn a_guest_that_never_started_anything_powers_off_too() {
    let guest = Guest::new();
    let begin = Instant::now();
    assert_eq!(
        guest.request(Request::Shutdown { grace_ms: 60_000 }).next(),
        Some(DONE)
    );
    guest.off.recv_timeout(Duration::from_secs(5)).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(3));
}

/// It would outlive those that were killed, and hold on to their files.
#[test]
fn nothing_is_started_once_all_were_killed() {
    let guest = Guest::new();
    guest.server.shutdown(Duration::ZERO);
    guest.off.recv_timeout(Duration::from_secs(5)).unwrap();
    for late in [
        guest.start(sh("true")),
        guest.request(Request::Exec(sh("true"))).next().unwrap(),
    ] {
        match late {
            Frame::Error(error) => assert!(error.message.contains("switched off"), "{error:?}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn whoever_breaks_the_protocol_is_told_and_dropped() {
    let guest = Guest::new();
    let mut session = guest.connect();
    session.send(&Frame::StdinEof);
    assert_eq!(session.error(), GuestErrorCode::BadRequest);
    assert_eq!(session.next(), None);

    let mut session = guest.connect();
    session.socket.write_all(&[1, 6, 0, 0, 0]).unwrap();
    session.socket.write_all(b"\"nope\"").unwrap();
    assert_eq!(session.error(), GuestErrorCode::BadRequest);

    let mut session = guest.attach(0, false);
    session.send(&Frame::Stdin(b"not mine to give".to_vec()));
    assert_eq!(session.error(), GuestErrorCode::BadRequest);
    assert_eq!(session.next(), None);

    let mut session = guest.attach(0, true);
    session.socket.write_all(&[200, 0, 0, 0, 0]).unwrap();
    assert_eq!(session.error(), GuestErrorCode::BadRequest);

    let mut session = guest.exec(sh("echo pid $$; exec sleep 1000"));
    let pid = pid_of(&session.until("\n"));
    session.send(&Frame::Request(Request::Info {}));
    assert_eq!(session.error(), GuestErrorCode::BadRequest);
    wait_until_gone(pid);
}

#[test]
fn sessions_are_limited_and_come_back() {
    let guest = Guest::new();
    let held: Vec<Session> = (0..128).map(|_| guest.attach(0, false)).collect();
    assert_eq!(guest.connect().error(), GuestErrorCode::Failed);
    drop(held);
    let begin = Instant::now();
    loop {
        // A guest that is full refuses at once, and may have hung up before it is asked.
        let mut session = guest.connect();
        let asked = session
            .socket
            .write_all(&encode(&Frame::Request(Request::Info {})).unwrap());
        if asked.is_ok() && matches!(session.next(), Some(Frame::Reply(_))) {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_hundred_short_commands_leave_nothing_behind() {
    let guest = Guest::new();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let run = |i: i32| {
        let spec = if i % 2 == 0 {
            sh("exit 1")
        } else {
            on_terminal("exit 1")
        };
        assert_eq!(guest.exec(spec).finish().exit, Some(ExitStatus::Exited(1)));
    };
    (0..10).for_each(run);
    let before = open();
    (0..100).for_each(run);
    // Other tests of this program open files at the same time; a leak would show as hundreds.
    let begin = Instant::now();
    while open() > before + 60 {
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "{before} descriptors became {}",
            open()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
