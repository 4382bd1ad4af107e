//! Does the steps of a plan, one by one, and undoes them where one fails.

use std::fmt::{self, Display, Formatter};
use std::thread;

use crate::plan::{Plan, Stage, Step};

mod cgroups;
mod files;
mod folders;
mod held;
mod host;
mod jail;
mod mounts;
mod paths;
mod undo;
mod vmm;

use held::Held;

/// Why a step cannot be done.
#[derive(Debug)]
struct Problem {
    /// What was found or what the kernel said, with the object where that is not the step's own.
    found: String,
    /// What to do about it.
    remedy: String,
}

impl Problem {
    fn new(found: impl Display, remedy: impl Display) -> Self {
        Self {
            found: found.to_string(),
            remedy: remedy.to_string(),
        }
    }

    /// For `map_err`: what the kernel said, and what helps.
    fn os<E: Into<std::io::Error>>(remedy: impl Display) -> impl FnOnce(E) -> Self {
        move |error| {
            let error: std::io::Error = error.into();
            match error.kind() {
                std::io::ErrorKind::PermissionDenied => Self::new(
                    error,
                    format_args!("{remedy}; the jailer has to be root with all capabilities"),
                ),
                _ => Self::new(error, remedy),
            }
        }
    }
}

/// A step that failed.
#[derive(Debug)]
pub struct StepError {
    text: String,
}

impl StepError {
    fn new(step: &Step, problem: &Problem) -> Self {
        Self {
            text: format!("{step}: {}; {}", problem.found, problem.remedy),
        }
    }

    /// What a process that is no more has said.
    fn told(text: String) -> Self {
        Self { text }
    }
}

impl Display for StepError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for StepError {}

/// Does the plan. Comes back only where the VMM runs in a process of its own, or not at all; then everything that was made
/// is gone again.
pub fn apply(plan: &Plan) -> Result<(), StepError> {
    let mut held = Held::default();
    let outcome = all(plan, &mut held);
    outcome.map_err(|mut error| {
        for left in held.undo.run() {
            error.text.push_str("; ");
            error.text.push_str(&left);
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
