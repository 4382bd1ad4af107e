//! From parts to a guest that runs.

use std::sync::Arc;

use super::assembly::{self, Assembly, Parts};
use super::ending::FirstEnding;
use super::error::MachineError;
use super::terminal;
use crate::confine::{Confinement, Seccomp};
use crate::kvm::{self, KvmError, Questions};
use crate::vcpu::thread::{Listener, Threads};

/// What can be begun before it is known which machine it will be.
pub struct Prelude {
    questions: Result<Questions, KvmError>,
    confinement: Confinement,
}

impl Prelude {
    /// Asks KVM for what takes it long. The calling thread is under the filter `start` already.
    pub fn start(confinement: Confinement) -> Self {
        Self {
            questions: Questions::ask(&confinement.seccomp),
            confinement,
        }
    }
}

/// A machine whose guest runs.
pub(super) struct Started {
    pub(super) assembly: Assembly,
    pub(super) ending: Arc<FirstEnding>,
    pub(super) threads: Threads,
    pub(super) seccomp: Seccomp,
    pub(super) terminal: terminal::RawMode,
}

/// Makes the machine of `parts`, and lets its guest run.
pub(super) fn start(prelude: Prelude, parts: Parts) -> Result<Started, MachineError> {
    let Prelude {
        questions,
        confinement,
    } = prelude;
    let Confinement {
        seccomp,
        landlock,
        rights,
    } = confinement;
    kvm::install_kick_handler()?;
    let terminal = terminal::RawMode::enter();
    let (assembly, vcpus) = assembly::boot(questions, parts, landlock, rights)?;
    let ending = FirstEnding::new().map_err(MachineError::host("make the event that ends the machine"))?;
    let listener: Arc<dyn Listener> = ending.clone();
    let threads = Threads::start(vcpus, &assembly.buses, &listener, &seccomp)
        .map_err(MachineError::host("start vCPU threads"))?;
    Ok(Started {
        assembly,
        ending,
        threads,
        seccomp,
        terminal,
    })
}
