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

use secovia_vmm_api::Exit;

use crate::config::VmConfig;
use crate::kvm;
use crate::vcpu::thread::{Listener, Threads};

pub use error::MachineError;

use self::assembly::Assembly;
use self::ending::FirstEnding;
use self::events::EventLoop;

/// Runs the machine to its end. `grace` is what the guest gets to power off after SIGTERM.
///
/// Blocks SIGTERM, SIGINT and SIGHUP for the process, and takes standard input and output for the serial console.
pub fn run(config: VmConfig, grace: Duration) -> Result<Exit, MachineError> {
    // Before any other thread exists, so that none of them ever takes these signals.
    let signals = events::block_signals().map_err(MachineError::host("watch for signals"))?;
    kvm::install_kick_handler()?;
    let terminal = terminal::RawMode::enter();

    let Assembly {
        vm,
        vcpus,
        buses,
        serial,
        events,
        transports,
    } = assembly::boot(config)?;
    let ending = FirstEnding::new().map_err(MachineError::host("make the event that ends the machine"))?;
    let listener: Arc<dyn Listener> = ending.clone();

    // A filter of system calls belongs here: everything is open, and nothing of the guest has run.
    let threads =
        Threads::start(vcpus, &buses, &listener).map_err(MachineError::host("start vCPU threads"))?;

    // The guest runs while the event loop is set up; what happens meanwhile waits in descriptors.
    let outcome = EventLoop::new(ending, signals, serial, events, &transports, grace).map(EventLoop::run);

    // First the vCPUs, which hold the buses, then the devices, whose sockets go with them.
    threads.finish();
    drop(transports);
    drop(buses);
    drop(terminal);
    // Memory and virtual machine are left to the kernel, which takes them down faster than we can hand them back.
    std::mem::forget(vm);
    outcome?
}
