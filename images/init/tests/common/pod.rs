//! Containers, for tests.

use secovia_guest_protocol::{
    ContainerSpec, ContainerState, Frame, MountSpec, PodReport, PodRestart, PodSpec, Reply, VolumeKind,
    VolumeSpec,
};

use super::{Seen, Session, sh};

pub(crate) fn container(name: &str, script: &str) -> ContainerSpec {
    ContainerSpec {
        name: name.into(),
        disk: "vda".into(),
        process: sh(script),
        stdin: false,
        mounts: Vec::new(),
        restarts: 0,
        liveness: None,
        readiness: None,
        startup: None,
        grace_ms: 1_000,
    }
}

pub(crate) fn pod(restart: PodRestart, init: Vec<ContainerSpec>, containers: Vec<ContainerSpec>) -> PodSpec {
    PodSpec {
        hostname: "pod-1".into(),
        network: None,
        volumes: Vec::new(),
        init,
        containers,
        restart,
    }
}

pub(crate) fn volume(name: &str, kind: VolumeKind) -> VolumeSpec {
    VolumeSpec {
        name: name.into(),
        kind,
    }
}

pub(crate) fn mount(volume: &str, path: &str, read_only: bool) -> MountSpec {
    MountSpec {
        volume: volume.into(),
        path: path.into(),
        read_only,
    }
}

/// Reads reports until one is as wanted.
pub(crate) fn until(watch: &mut Session, what: &str, wanted: impl Fn(&PodReport) -> bool) -> PodReport {
    let mut seen = None;
    loop {
        match watch.next() {
            Some(Frame::Pod(report)) if wanted(&report) => return report,
            Some(Frame::Pod(report)) => seen = Some(report),
            other => panic!("{what}: {other:?} after {seen:?}"),
        }
    }
}

pub(crate) fn runs(report: &PodReport, index: usize) -> bool {
    matches!(report.containers[index].state, ContainerState::Running { .. })
}

/// All that a run wrote, to its end.
pub(crate) fn output(mut session: Session, run: u32) -> Seen {
    assert_eq!(session.next(), Some(Frame::Reply(Reply::Run(run))));
    session.finish()
}
