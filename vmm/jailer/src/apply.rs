//! Does the steps of a plan, one by one, and undoes them where one fails.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::plan::{Plan, Stage, Step};

mod cgroups;
mod error;
mod files;
mod folders;
mod held;
mod host;
mod jail;
mod mounts;
mod paths;
mod process;
mod undo;
mod vmm;

pub use error::StepError;
use held::Held;

/// Does the plan. Comes back only where the VMM runs in a process of its own, or not at all; then everything that was made
/// is gone again.
pub fn apply(plan: &Plan) -> Result<(), StepError> {
    let held = Mutex::new(Held::default());
    all(plan, &held).map_err(|mut error| {
        for left in lock(&held).undo.run() {
            error.add(&left);
        }
        error
    })
}

fn all(plan: &Plan, held: &Mutex<Held>) -> Result<(), StepError> {
    let stage = |stage| -> Vec<&Step> { plan.steps.iter().filter(|step| step.stage() == stage).collect() };
    for step in stage(Stage::Process) {
        process::apply(step).map_err(|problem| StepError::new(step, &problem))?;
    }
    let mut mine = lock(held);
    // A thread's namespaces, user and capabilities are its own: this one keeps what it takes to undo. The other makes its
    // namespaces while this one works on the host, and then waits for the lock.
    thread::scope(|scope| {
        let (jail, vmm) = (stage(Stage::Jail), stage(Stage::Vmm));
        let jailed =
            thread::Builder::new().spawn_scoped(scope, move || jail::enter(&jail, &vmm, || lock(held)));
        let jailed =
            jailed.map_err(|error| StepError::told(format!("start a thread: {error}; free some memory")))?;
        let host = on_host(&stage(Stage::Host), &mut mine);
        mine.complete = host.is_ok();
        drop(mine);
        let jailed = jailed.join();
        host?;
        jailed.unwrap_or_else(|_| Err(StepError::told("the jail's thread broke; report this".into())))
    })
}

fn on_host(steps: &[&Step], held: &mut Held) -> Result<(), StepError> {
    for step in steps {
        host::apply(step, held).map_err(|problem| StepError::new(step, &problem))?;
    }
    Ok(())
}

/// What was made has to be unmade also where a thread broke over it.
fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
