//! Does the steps of a plan, one by one, and undoes them where one fails.

use std::thread;

use crate::plan::{Plan, Stage};

mod cgroups;
mod error;
mod files;
mod folders;
mod held;
mod host;
mod jail;
mod mounts;
mod paths;
mod undo;
mod vmm;

pub use error::StepError;
use held::Held;

/// Does the plan. Comes back only where the VMM runs in a process of its own, or not at all; then everything that was made
/// is gone again.
pub fn apply(plan: &Plan) -> Result<(), StepError> {
    let mut held = Held::default();
    let outcome = all(plan, &mut held);
    outcome.map_err(|mut error| {
        for left in held.undo.run() {
            error.add(&left);
        }
        error
    })
}

fn all(plan: &Plan, held: &mut Held) -> Result<(), StepError> {
    let stage = |stage| plan.steps.iter().filter(move |step| step.stage() == stage);
    for step in stage(Stage::Host) {
        host::apply(step, held).map_err(|problem| StepError::new(step, &problem))?;
    }
    // A thread's namespaces, user and capabilities are its own: this one keeps what it takes to undo.
    thread::scope(|scope| {
        let jailed = thread::Builder::new().spawn_scoped(scope, || {
            let (jail, vmm): (Vec<_>, Vec<_>) = (stage(Stage::Jail).collect(), stage(Stage::Vmm).collect());
            jail::enter(&jail, &vmm, held)
        });
        let jailed =
            jailed.map_err(|error| StepError::told(format!("start a thread: {error}; free some memory")))?;
        jailed
            .join()
            .unwrap_or_else(|_| Err(StepError::told("the jail's thread broke; report this".into())))
    })
}
