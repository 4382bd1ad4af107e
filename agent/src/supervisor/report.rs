//! What a guest says of its containers becomes what the API shows. The guest may say anything.

use secovia_agent_api::{ContainerEnd, ContainerState, VmContainer};
use secovia_guest_protocol as told;

/// The longest reason that is kept, in letters.
const REASON_MAX: usize = 512;

/// Whether a run of it has begun.
pub(super) fn has_run(container: &told::ContainerReport) -> bool {
    !matches!(container.state, told::ContainerState::Waiting {})
}

/// Takes over what the guest says; `now_ms` is the latest time that it may tell of.
pub(super) fn take(containers: &mut [VmContainer], reports: &[told::ContainerReport], now_ms: u64) {
    for (container, report) in containers.iter_mut().zip(reports) {
        let earlier = container.last.take();
        container.state = match &report.state {
            told::ContainerState::Waiting {} => ContainerState::Waiting,
            told::ContainerState::Running { since_ms } => ContainerState::Running {
                since_ms: (*since_ms).min(now_ms),
            },
            told::ContainerState::BackOff {} => ContainerState::BackOff,
            told::ContainerState::Ended(end) => ContainerState::Ended(ended(end, now_ms)),
        };
        // A guest that was just started does not know how its containers ended before.
        container.last = report.last.as_ref().map(|end| ended(end, now_ms)).or(earlier);
        // What was counted once is not taken back.
        container.restarts = container.restarts.max(report.restarts);
        container.ready = report.ready;
        container.started = report.started;
    }
}

fn ended(end: &told::ContainerEnd, now_ms: u64) -> ContainerEnd {
    let plain = |reason: &String| {
        let letters = reason.chars().filter(|c| !c.is_control());
        letters.take(REASON_MAX).collect()
    };
    ContainerEnd {
        code: end.status.code().clamp(0, 255),
        reason: end.reason.as_ref().map(plain),
        started_at_ms: end.started_ms.map(|at| at.min(now_ms)),
        ended_at_ms: end.ended_ms.min(now_ms),
    }
}

#[cfg(test)]
mod tests {
    use secovia_guest_protocol::ExitStatus;

    use super::*;

    fn container() -> VmContainer {
        VmContainer {
            name: "a".into(),
            init: false,
            image: "base".into(),
            image_digest: "sha256:00".into(),
            state: ContainerState::Waiting,
            last: None,
            restarts: 4,
            ready: false,
            started: false,
        }
    }

    #[test]
    fn what_a_guest_says_is_bounded() {
        let mut all = [container()];
        let end = told::ContainerEnd {
            status: ExitStatus::Exited(-7),
            reason: Some("x\n".repeat(1_000_000)),
            started_ms: Some(u64::MAX),
            ended_ms: u64::MAX,
        };
        let report = told::ContainerReport {
            state: told::ContainerState::Ended(end.clone()),
            last: Some(end),
            restarts: 2,
            ready: true,
            started: true,
        };
        take(&mut all, &[report.clone(), report], 99);
        let ContainerState::Ended(end) = &all[0].state else {
            panic!("{all:?}");
        };
        assert_eq!((end.code, end.started_at_ms, end.ended_at_ms), (0, Some(99), 99));
        assert_eq!(end.reason.as_ref().unwrap().len(), REASON_MAX);
        assert_eq!(all[0].restarts, 4, "what was counted is not taken back");
        take(&mut all, &[], 99);
        assert!(
            all[0].ready,
            "a report of fewer containers says nothing of the others"
        );
    }
}
