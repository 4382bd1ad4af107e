//! Several containers in one VM, as they are written down.

use std::collections::BTreeMap;

use secovia_agent_api::{Container, ContainerEnd, ContainerState, VmContainer, Volume};
use serde::{Deserialize, Serialize};

/// The containers of a VM, their images' defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodSpec {
    /// Those that run first, one after the other.
    pub init: Vec<PodContainer>,
    /// The others; at least one.
    pub containers: Vec<PodContainer>,
    /// Directories that they may share. Their files may be secrets: never logged, never shown.
    pub volumes: Vec<Volume>,
}

/// A container of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodContainer {
    /// What it is: `command` is all of it, there is no `entrypoint` any more.
    pub spec: Container,
    /// Its image's digest when the VM was created; it runs nothing else.
    pub image_digest: String,
}

impl PodSpec {
    /// All containers, in the order in which the guest tells of them.
    pub fn all(&self) -> impl Iterator<Item = &PodContainer> {
        self.init.iter().chain(&self.containers)
    }

    /// The images, by name, with their digests.
    pub fn images(&self) -> BTreeMap<&str, &str> {
        let pairs = self.all();
        pairs
            .map(|one| (one.spec.image.as_str(), one.image_digest.as_str()))
            .collect()
    }

    /// The containers before they run.
    pub fn begin(&self) -> Vec<VmContainer> {
        let inits = self.init.len();
        let all = self.all().enumerate();
        all.map(|(index, one)| VmContainer {
            name: one.spec.name.clone(),
            init: index < inits,
            image: one.spec.image.clone(),
            image_digest: one.image_digest.clone(),
            state: ContainerState::Waiting,
            last: None,
            restarts: 0,
            ready: false,
            started: false,
        })
        .collect()
    }
}

/// The containers when their VM is to run anew: what they did is what they did last, and another run is one more restart.
pub fn begin_again(containers: &mut [VmContainer], now_ms: u64) {
    end_all(containers, now_ms);
    for container in containers {
        if let ContainerState::Ended(end) = std::mem::replace(&mut container.state, ContainerState::Waiting) {
            container.last = Some(end);
            container.restarts = container.restarts.saturating_add(1);
        }
        container.ready = false;
    }
}

/// The containers when their VM is gone: what ran has ended with it.
pub fn end_all(containers: &mut [VmContainer], now_ms: u64) {
    /// The status that a shell shows for a process that SIGKILL ended.
    const KILLED: i32 = 137;
    for container in containers {
        let end = match &container.state {
            ContainerState::Waiting | ContainerState::Ended(_) => continue,
            ContainerState::Running { since_ms } => ContainerEnd {
                code: KILLED,
                reason: Some("the microVM ended".into()),
                started_at_ms: Some(*since_ms),
                ended_at_ms: now_ms,
            },
            ContainerState::BackOff => match container.last.take() {
                Some(end) => end,
                None => continue,
            },
        };
        container.state = ContainerState::Ended(end);
        container.ready = false;
        container.started = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(code: i32) -> ContainerEnd {
        ContainerEnd {
            code,
            reason: None,
            started_at_ms: Some(1),
            ended_at_ms: 2,
        }
    }

    fn container(state: ContainerState, last: Option<ContainerEnd>) -> VmContainer {
        VmContainer {
            name: "a".into(),
            init: false,
            image: "base".into(),
            image_digest: "sha256:00".into(),
            state,
            last,
            restarts: 3,
            ready: true,
            started: true,
        }
    }

    #[test]
    fn what_ran_ends_with_its_vm_and_counts_on_with_the_next() {
        let mut all = [
            container(ContainerState::Running { since_ms: 7 }, None),
            container(ContainerState::BackOff, Some(end(5))),
            container(ContainerState::Ended(end(0)), None),
            container(ContainerState::Waiting, None),
        ];
        end_all(&mut all, 9);
        let codes = all.each_ref().map(|one| match &one.state {
            ContainerState::Ended(end) => Some(end.code),
            _ => None,
        });
        assert_eq!(codes, [Some(137), Some(5), Some(0), None]);
        assert!(!all[0].ready && !all[1].started && all[2].ready);
        begin_again(&mut all, 10);
        assert!(
            all.iter()
                .all(|one| one.state == ContainerState::Waiting && !one.ready)
        );
        assert_eq!(all.each_ref().map(|one| one.restarts), [4, 4, 4, 3]);
        assert_eq!(all[0].last.as_ref().map(|end| end.ended_at_ms), Some(9));
    }
}
