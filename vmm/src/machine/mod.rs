//! One machine: put together (`assembly`), run, and brought to its end (`events`, `life`).

mod assembly;
mod console;
mod ending;
mod error;
mod events;
mod inventory;
mod life;
mod terminal;

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signalfd::SignalFd;
use secovia_seccomp::List;
use secovia_vmm_api::Exit;

use crate::config::VmConfig;
use crate::confine::Confinement;
use crate::kvm::{self, KvmError, Questions};
use crate::vcpu::thread::{Listener, Threads};

pub use error::MachineError;

use self::assembly::Assembly;
use self::ending::FirstEnding;
use self::events::EventLoop;

/// What can be begun before it is known which machine it will be.
pub struct Prelude {
    signals: SignalFd,
    questions: Result<Questions, KvmError>,
    confinement: Confinement,
}

impl Prelude {
    /// Blocks SIGTERM, SIGINT and SIGHUP for the process, and asks KVM for what takes it long.
    ///
    /// The calling thread is under the filter `start` already.
    pub fn start(confinement: Confinement) -> Result<Self, MachineError> {
        // Before any other thread exists, so that none of them ever takes these signals.
        let signals = events::block_signals().map_err(MachineError::host("watch for signals"))?;
        let questions = Questions::ask(&confinement.seccomp);
        Ok(Self {
            signals,
            questions,
            confinement,
        })
    }
}

/// Runs the machine to its end. `grace` is what the guest gets to power off after SIGTERM.
///
/// Takes standard input and output for the serial console. Where that is a file, it holds at most `console_limit` bytes of
/// what the guest writes.
pub fn run(
    prelude: Prelude,
    config: VmConfig,
    grace: Duration,
    console_limit: Option<u64>,
) -> Result<Exit, MachineError> {
    let Prelude {
        signals,
        questions,
        confinement: Confinement { seccomp, landlock },
    } = prelude;
    kvm::install_kick_handler()?;
    let terminal = terminal::RawMode::enter();

    let Assembly {
        vm,
        vcpus,
        buses,
        serial,
        events,
        transports,
    } = assembly::boot(questions, config, landlock, console::output(console_limit)?)?;
    let ending = FirstEnding::new().map_err(MachineError::host("make the event that ends the machine"))?;
    let listener: Arc<dyn Listener> = ending.clone();

    let threads = Threads::start(vcpus, &buses, &listener, &seccomp)
        .map_err(MachineError::host("start vCPU threads"))?;

    // The guest runs while the event loop is set up; what happens meanwhile waits in descriptors.
    let outcome = EventLoop::new(ending, signals, serial, events, &transports, grace).and_then(|events| {
        // Everything is open and every thread started.
        seccomp.enter(List::Main)?;
        events.run()
    });

    // First the vCPUs, which hold the buses, then the devices, whose sockets go with them.
    threads.finish();
    drop(transports);
    drop(buses);
    drop(terminal);
    // The virtual machine goes before the process does: left to the exit, memory would be taken down while KVM still
    // watches it, which costs a second grace period, on a busy host one of many milliseconds.
    drop(vm);
    outcome
}
