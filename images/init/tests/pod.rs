//! Several containers, natively: they are programs of this machine and share its root. What real roots are like, the tests
//! in real Linux say.

mod common;

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use secovia_guest_protocol::{
    Check, ContainerState, ExitStatus, FileSpec, Frame, GuestErrorCode, PodRestart, PodSpec, ProbeSpec,
    Request, VolumeSpec, WorkloadState,
};
use secovia_init::children::Reaping;
use secovia_init::server::{Machine, Server};

use common::pod::{container, output, pod, runs, until};
use common::{DONE, Session, sh};

struct Native {
    files: PathBuf,
    off: Mutex<Sender<()>>,
}

impl Machine for Native {
    fn set_network(&self, _: &secovia_guest_protocol::NetworkSetup) -> std::io::Result<()> {
        Ok(())
    }

    fn set_hostname(&self, _: &str) -> std::io::Result<()> {
        Ok(())
    }

    fn volume_files(&self) -> Option<PathBuf> {
        Some(self.files.clone())
    }

    fn prepare_volumes(&self, _: &[VolumeSpec]) -> std::io::Result<()> {
        Ok(())
    }

    fn started_after_ns(&self) -> u64 {
        42
    }

    fn power_off(&self) {
        let _ = self.off.lock().unwrap().send(());
    }
}

struct Guest {
    server: Server,
    off: Receiver<()>,
    dir: tempfile::TempDir,
}

impl Guest {
    fn new() -> Self {
        let (sender, off) = channel();
        let dir = tempfile::tempdir().unwrap();
        let machine = Native {
            files: dir.path().to_path_buf(),
            off: Mutex::new(sender),
        };
        Self {
            server: Server::new(machine, Reaping::Own).unwrap(),
            off,
            dir,
        }
    }

    fn started(spec: PodSpec) -> (Self, Session) {
        let guest = Self::new();
        assert_eq!(guest.request(Request::StartPod(spec)).next(), Some(DONE));
        let mut watch = guest.request(Request::Watch {});
        assert_eq!(watch.next(), Some(DONE));
        (guest, watch)
    }

    fn request(&self, request: Request) -> Session {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.server.session(theirs.into());
        let mut session = Session::new(ours);
        session.send(&Frame::Request(request));
        session
    }

    fn attach(&self, container: &str, run: Option<u32>) -> Session {
        self.request(Request::AttachTo {
            container: container.into(),
            run,
            from: 0,
            stdin: false,
        })
    }
}

#[test]
fn init_containers_come_first_and_each_has_its_own_output() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    let file = file.display();
    let (guest, mut watch) = Guest::started(pod(
        PodRestart::Never,
        vec![
            container("first", &format!("echo first; echo 1 > {file}")),
            container("second", &format!("cat {file}; echo 2 >> {file}")),
        ],
        vec![
            container("main", &format!("cat {file}; sleep 60")),
            container("side", "echo side; echo err >&2; exit 3"),
        ],
    ));
    let is_over = |report: &secovia_guest_protocol::PodReport| {
        runs(report, 2) && matches!(report.containers[3].state, ContainerState::Ended(_))
    };
    let report = until(&mut watch, "main runs, side has ended", is_over);
    assert!(report.containers[0].ready && report.containers[1].ready && report.containers[2].ready);
    let ContainerState::Ended(end) = &report.containers[3].state else {
        panic!("{report:?}");
    };
    assert_eq!((end.status, end.reason.as_deref()), (ExitStatus::Exited(3), None));
    assert!(end.started_ms.is_some_and(|started| started <= end.ended_ms));

    assert_eq!(output(guest.attach("second", None), 0).out, b"1\n");
    let side = output(guest.attach("side", Some(0)), 0);
    assert_eq!((side.out, side.err), (b"side\n".to_vec(), b"err\n".to_vec()));
    assert_eq!(guest.attach("side", Some(1)).error(), GuestErrorCode::NotRunning);
    assert_eq!(
        guest.attach("none", None).error(),
        GuestErrorCode::NoSuchContainer
    );
    let exec = |container: &str| {
        guest.request(Request::ExecIn {
            container: container.into(),
            process: sh("echo here"),
        })
    };
    let mut session = exec("main");
    assert_eq!(session.next(), Some(DONE));
    assert_eq!(session.finish().out, b"here\n");
    assert_eq!(exec("side").error(), GuestErrorCode::NotRunning);

    let again = pod(PodRestart::Never, Vec::new(), vec![container("x", "true")]);
    assert_eq!(
        guest.request(Request::StartPod(again)).error(),
        GuestErrorCode::AlreadyStarted
    );
    guest.server.shutdown(Duration::from_secs(10));
    let mut last = watch.next();
    while let Some(Frame::Pod(_)) = last {
        last = watch.next();
    }
    // The first that is not 0: main was ended, and is before side.
    assert_eq!(last, Some(Frame::Exit(ExitStatus::Signaled(15))));
    guest.off.recv_timeout(Duration::from_secs(10)).unwrap();
}

#[test]
fn who_fails_is_started_again_and_each_run_is_told_apart() {
    let (guest, mut watch) = Guest::started(pod(
        PodRestart::OnFailure,
        Vec::new(),
        vec![
            container("main", "echo run; exit 5"),
            container("gone", "exec /nowhere"),
        ],
    ));
    let report = until(&mut watch, "main ran twice", |report| {
        report.containers[0].restarts == 1
            && matches!(report.containers[0].state, ContainerState::BackOff {})
            && matches!(report.containers[1].state, ContainerState::BackOff {})
    });
    let last = report.containers[0].last.as_ref().unwrap();
    assert_eq!(last.status, ExitStatus::Exited(5));
    assert_eq!(output(guest.attach("main", Some(0)), 1).out, b"run\n");
    // It waits ten seconds now, but not when the guest is to end.
    let begun = Instant::now();
    guest.server.shutdown(Duration::from_secs(60));
    guest.off.recv_timeout(Duration::from_secs(5)).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_failed_init_container_is_the_end_where_nothing_is_started_again() {
    let (guest, mut watch) = Guest::started(pod(
        PodRestart::Never,
        vec![container("init", "exit 9")],
        vec![container("main", "true")],
    ));
    let report = until(&mut watch, "init has failed", |report| {
        matches!(report.containers[0].state, ContainerState::Ended(_))
    });
    assert_eq!(report.containers[1].state, ContainerState::Waiting {});
    let mut last = watch.next();
    while let Some(Frame::Pod(_)) = last {
        last = watch.next();
    }
    assert_eq!(last, Some(Frame::Exit(ExitStatus::Exited(9))));
    match guest.request(Request::Info {}).next() {
        Some(Frame::Reply(secovia_guest_protocol::Reply::Info(info))) => {
            assert_eq!(info.workload, WorkloadState::Ended(ExitStatus::Exited(9)));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn probes_decide_who_is_ready_and_who_is_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let (up, ill) = (dir.path().join("up"), dir.path().join("ill"));
    let probe = |path: &std::path::Path, negate: &str, failure| ProbeSpec {
        check: Check::Exec {
            argv: sh(&format!("{negate} test -e {}", path.display())).argv,
        },
        initial_delay_ms: 0,
        period_ms: 20,
        timeout_ms: 5_000,
        success: 1,
        failure,
    };
    let mut main = container("main", "sleep 60");
    main.readiness = Some(probe(&up, "", 1));
    main.liveness = Some(probe(&ill, "!", 2));
    let (_guest, mut watch) = Guest::started(pod(PodRestart::Always, Vec::new(), vec![main]));
    until(&mut watch, "it runs", |report| {
        runs(report, 0) && !report.containers[0].ready
    });
    std::fs::write(&up, "").unwrap();
    until(&mut watch, "it is ready", |report| report.containers[0].ready);
    std::fs::write(&ill, "").unwrap();
    let report = until(&mut watch, "it is started again", |report| {
        report.containers[0].restarts == 1
    });
    let last = report.containers[0].last.as_ref().unwrap();
    assert_eq!(last.reason.as_deref(), Some("its liveness probe failed"));
    assert_eq!(last.status, ExitStatus::Signaled(15));
}

#[test]
fn files_are_written_before_the_containers_start() {
    let guest = Guest::new();
    let file = |path: &str| FileSpec {
        volume: "conf".into(),
        path: path.into(),
        mode: 0o400,
        gid: 0,
    };
    let mut session = guest.request(Request::Write(file("a/b")));
    assert_eq!(session.next(), Some(DONE));
    session.send(&Frame::Stdin(b"one".to_vec()));
    session.send(&Frame::Stdin(b"two".to_vec()));
    session.send(&Frame::StdinEof);
    assert_eq!(session.next(), Some(DONE));
    assert_eq!(
        std::fs::read(guest.dir.path().join("conf/a/b")).unwrap(),
        b"onetwo"
    );
    assert_eq!(
        guest.request(Request::Write(file("../x"))).error(),
        GuestErrorCode::Failed
    );
    let spec = pod(PodRestart::Never, Vec::new(), vec![container("x", "sleep 60")]);
    assert_eq!(guest.request(Request::StartPod(spec)).next(), Some(DONE));
    assert_eq!(
        guest.request(Request::Write(file("late"))).error(),
        GuestErrorCode::AlreadyStarted
    );
}

#[test]
fn what_makes_no_sense_is_refused() {
    let plain = || pod(PodRestart::Never, Vec::new(), vec![container("x", "true")]);
    type Change = fn(&mut PodSpec);
    let changes: [Change; 6] = [
        |spec| spec.containers.clear(),
        |spec| spec.init = vec![container("x", "true")],
        |spec| spec.containers[0].name = "../x".into(),
        |spec| spec.containers[0].disk = "../sda".into(),
        |spec| spec.containers[0].mounts = vec![common::pod::mount("none", "/x", false)],
        |spec| spec.hostname = String::new(),
    ];
    for (row, change) in changes.iter().enumerate() {
        let mut spec = plain();
        change(&mut spec);
        let mut session = Guest::new().request(Request::StartPod(spec));
        assert_eq!(session.error(), GuestErrorCode::BadRequest, "row {row}");
    }
}
