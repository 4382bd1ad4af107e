//! Several containers at their real place: our kernel, our VMM, two images. Run by `ci/test linux`.

mod common;

use secovia_guest_protocol::{
    Check, ExitStatus, FileSpec, Frame, PodRestart, ProbeSpec, Reply, Request, VolumeKind,
};

use common::machine::{Machine, needed};
use common::pod::{container, mount, output, pod, runs, until, volume};
use common::{DONE, sh};

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn containers_have_their_own_roots_and_share_what_they_are_given() {
    let image = needed("SECOVIA_IMAGE_BASE").join("rootfs.erofs");
    // The second image is where a disk for the layer would be.
    let mut guest = Machine::boot_with(1, &[(&image, true), (&image, true)], " secovia_pod=1");
    let mut file = guest.stream(Request::Write(FileSpec {
        volume: "secret".into(),
        path: "key".into(),
        mode: 0o400,
        gid: 0,
    }));
    file.send(&Frame::Stdin(b"hush".to_vec()));
    file.send(&Frame::StdinEof);
    assert_eq!(file.next(), Some(DONE));

    let mut init = container("init", "echo made > /shared/file; echo init says; touch /mine");
    init.mounts = vec![mount("shared", "/shared", false)];
    let mut main = container(
        "main",
        "cat /shared/file; ls /mine 2>&1; echo pid $$; hostname; trap 'exit 0' TERM; sleep 1000 & wait",
    );
    main.mounts = vec![
        mount("shared", "/deep/er", true),
        mount("shared", "/shared", false),
    ];
    let mut side = container(
        "side",
        "echo side; touch /tmp/ok; trap 'exit 0' TERM; sleep 1000 & wait",
    );
    side.disk = "vdb".into();
    side.mounts = vec![
        mount("secret", "/var/run/secret", false),
        mount("fast", "/fast", false),
        mount("shared", "/shared", false),
    ];
    side.liveness = Some(ProbeSpec {
        check: Check::Exec {
            argv: sh("test -e /tmp/ok").argv,
        },
        initial_delay_ms: 0,
        period_ms: 200,
        timeout_ms: 20_000,
        success: 1,
        failure: 2,
    });
    let mut spec = pod(PodRestart::Always, vec![init], vec![main, side]);
    spec.volumes = vec![
        volume("shared", VolumeKind::Layer {}),
        volume("fast", VolumeKind::Memory { size: Some(1 << 20) }),
        volume("secret", VolumeKind::Files {}),
    ];
    assert_eq!(
        guest.request(Request::StartPod(spec)).next(),
        Some(DONE),
        "{}",
        guest.console()
    );
    let mut watch = guest.stream(Request::Watch {});
    let report = until(&mut watch, "both run", |report| {
        runs(report, 1) && runs(report, 2)
    });
    assert!(report.containers[0].ready, "{report:?}");

    let attach = |container: &str, run| {
        guest.request(Request::AttachTo {
            container: container.into(),
            run,
            from: 0,
            stdin: false,
        })
    };
    assert_eq!(text(output(attach("init", None), 0).out), "init says\n");
    let mut main = attach("main", None);
    assert_eq!(main.next(), Some(Frame::Reply(Reply::Run(0))));
    let said = main.until("pod-1\n");
    assert!(said.starts_with("made\n"), "{said}");
    assert!(
        said.contains("No such file"),
        "a root is its container's own: {said}"
    );
    assert!(said.contains("pid 1\n"), "{said}");

    let exec = |container: &str, script: &str| {
        let mut session = guest.request(Request::ExecIn {
            container: container.into(),
            process: sh(script),
        });
        assert_eq!(session.next(), Some(DONE), "{}", guest.console());
        let seen = session.finish();
        (text(seen.out) + &text(seen.err), seen.exit)
    };
    let good = Some(ExitStatus::Exited(0));
    assert_eq!(exec("main", "cat /deep/er/file"), ("made\n".into(), good));
    let (denied, status) = exec("main", "echo x > /deep/er/file");
    assert!(denied.contains("Read-only") && status != good, "{denied}");
    assert_eq!(exec("main", "echo more >> /shared/file").1, good);
    assert_eq!(exec("side", "cat /shared/file").0, "made\nmore\n");
    assert_eq!(
        exec(
            "side",
            "stat -c '%a %u' /var/run/secret/key; cat /var/run/secret/key"
        )
        .0,
        "400 0\nhush"
    );
    assert_ne!(exec("side", "echo x > /var/run/secret/key").1, good);
    assert_ne!(exec("side", "dd if=/dev/zero of=/fast/x bs=1M count=2").1, good);
    assert_ne!(exec("main", "ls /fast").1, good, "who mounts it has it");
    // Each sees its own processes: its first, the sleep, and those of the question.
    let (processes, _) = exec("main", "ls -d /proc/[0-9]* | wc -l; cat /proc/1/comm");
    let (count, name) = processes.split_once('\n').unwrap();
    assert!(count.trim().parse::<u32>().unwrap() <= 6, "{processes}");
    assert_eq!(name, "sh\n");

    // What its probe finds ill is started again, with a fresh root and the same volumes.
    assert_eq!(
        exec("side", "echo kept > /fast/x; touch /own; rm /tmp/ok").1,
        good
    );
    let report = until(&mut watch, "side runs again", |report| {
        report.containers[2].restarts == 1 && runs(report, 2)
    });
    let last = report.containers[2].last.as_ref().unwrap();
    assert_eq!(last.reason.as_deref(), Some("its liveness probe failed"));
    assert!(
        runs(&report, 1) && report.containers[1].restarts == 0,
        "{report:?}"
    );
    let mut side = attach("side", Some(1));
    assert_eq!(side.next(), Some(Frame::Reply(Reply::Run(1))));
    side.until("side\n");
    assert_eq!(
        exec("side", "cat /fast/x; ls /own").0.lines().next(),
        Some("kept")
    );
    assert_ne!(exec("side", "ls /own").1, good);

    guest.shut_down();
    guest.complains_of_nothing();
}
