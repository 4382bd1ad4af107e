//! What happened to microVMs between two looks at them, in a kubelet's words: pure.

use std::collections::BTreeMap;

use secovia_agent_api::{Vm, VmState};

use crate::events::Kind;
use crate::pod::{Identity, container_name};

/// Something that happened to a Pod's container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Happening {
    pub(super) pod: Identity,
    pub(super) kind: Kind,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// How each microVM was at the last look.
#[derive(Debug, Default)]
pub(super) struct Seen(Option<BTreeMap<String, Mark>>);

/// What a change of is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// It does not run.
    Rests,
    /// It runs for the so-manieth time.
    Runs(u32),
    /// It waits to be started for so many times and once more.
    Waits(u32),
}

impl Seen {
    /// Looks again. At the first look nothing is told: that all happened before.
    pub(super) fn look(&mut self, vms: &[Vm]) -> Vec<Happening> {
        let mut marks = BTreeMap::new();
        let mut happenings = Vec::new();
        for vm in vms {
            let Some(pod) = Identity::of_vm(vm) else {
                continue;
            };
            let mark = match &vm.state {
                VmState::Running => Mark::Runs(vm.starts),
                VmState::BackOff { .. } => Mark::Waits(vm.starts),
                _ => Mark::Rests,
            };
            let is_news = self
                .0
                .as_ref()
                .is_some_and(|before| before.get(&vm.id) != Some(&mark));
            marks.insert(vm.id.clone(), mark);
            let container = container_name(vm).unwrap_or_default();
            let (kind, reason, message) = match mark {
                Mark::Runs(_) => (Kind::Normal, "Started", format!("Started container {container}")),
                Mark::Waits(_) => (
                    Kind::Warning,
                    "BackOff",
                    format!("Back-off restarting failed container {container}"),
                ),
                Mark::Rests => continue,
            };
            if is_news {
                happenings.push(Happening {
                    pod,
                    kind,
                    reason,
                    message,
                });
            }
        }
        self.0 = Some(marks);
        happenings
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn vm(state: VmState, starts: u32) -> Vm {
        let mut vm: Vm = serde_json::from_value(json!({
            "id": "0123456789abcdef", "name": "v", "state": {"status": "running"}, "image": "i", "image_digest": "d",
            "command": [], "env": {}, "user": null, "working_dir": null, "cpus": 1, "memory_mib": 64, "disk_mib": null,
            "restart": {"policy": "always"}, "rm": false, "tty": false, "stdin": false, "created_at_ms": 1,
            "started_at_ms": 1, "ended_at_ms": null, "restarts": 0, "vmm_pid": null, "timing": null,
            "labels": {"secovia.pod/uid": "u", "secovia.pod/namespace": "n", "secovia.pod/name": "p",
                "secovia.pod/container": "main"}
        }))
        .unwrap();
        (vm.state, vm.starts) = (state, starts);
        vm
    }

    #[test]
    fn starts_and_waits_are_told_once_each_and_nothing_that_was_before() {
        let waits = || VmState::BackOff {
            until_ms: 1,
            reason: String::new(),
        };
        let mut seen = Seen::default();
        let mut told = Vec::new();
        for vm in [
            vm(VmState::Running, 1),
            vm(VmState::Running, 1),
            vm(waits(), 1),
            vm(waits(), 1),
            vm(VmState::Starting, 2),
            vm(VmState::Running, 2),
            // Between two looks it ended, and runs again.
            vm(VmState::Running, 3),
            vm(VmState::Stopping, 3),
        ] {
            told.extend(seen.look(&[vm]).into_iter().map(|happening| happening.reason));
        }
        assert_eq!(told, ["BackOff", "Started", "Started"]);
        assert!(seen.look(&[]).is_empty());
        assert_eq!(
            seen.look(&[vm(VmState::Running, 1)])[0].message,
            "Started container main"
        );
    }
}
