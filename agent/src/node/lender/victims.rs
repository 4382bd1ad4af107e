//! The VMs as the ladder sees them, and whom it ends first.

use crate::lifecycle::State;
use crate::records::VmId;
use crate::supervisor::{Handle, View};

/// A VM that holds a part of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) id: VmId,
    /// Unix time in milliseconds.
    pub(super) created_ms: u64,
    /// Its workload runs.
    pub(super) running: bool,
    /// It is on its way out.
    pub(super) ending: bool,
    pub(super) vmm_pid: Option<u32>,
}

impl Seen {
    /// A VM that is active; nothing of one that rests.
    pub(super) fn of(handle: &Handle) -> Option<Self> {
        Self::of_view(&handle.view.borrow())
    }

    fn of_view(view: &View) -> Option<Self> {
        let life = &view.record.life;
        let active = !view.removed && (life.is_live() || view.vmm_pid.is_some());
        active.then(|| Self {
            id: view.record.id,
            created_ms: view.record.created_ms,
            running: life.state == State::Running,
            ending: matches!(life.state, State::Stopping { .. }),
            vmm_pid: view.vmm_pid,
        })
    }
}

/// Who is ended next: the youngest, which has the least to lose, of those that are not on their way out already.
pub(super) fn newest(vms: &[Seen]) -> Option<&Seen> {
    vms.iter()
        .filter(|vm| !vm.ending)
        .max_by_key(|vm| (vm.created_ms, vm.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_youngest_goes_first_and_nobody_twice() {
        let vm = |number: u8, created_ms, ending| Seen {
            id: format!("{number:016x}").parse().unwrap(),
            created_ms,
            running: true,
            ending,
            vmm_pid: None,
        };
        let vms = [vm(1, 5, false), vm(2, 9, true), vm(3, 7, false), vm(4, 7, false)];
        assert_eq!(newest(&vms), Some(&vms[3]));
        assert_eq!(newest(&vms[1..2]), None);
    }
}
