//! One machine: waited for (`waiting`), put together (`assembly`), run, changed (`crew`), and brought to its end (`events`,
//! `life`).

mod assembly;
mod console;
mod crew;
mod ending;
mod error;
mod events;
mod inventory;
mod life;
mod pci;
mod report;
mod settings;
mod start;
mod terminal;
mod waiting;

use std::sync::PoisonError;

use nix::sys::signalfd::SignalFd;
use secovia_seccomp::List;
use secovia_vmm_api::Exit;

use crate::api::Office;
use crate::config::VmConfig;

pub use error::MachineError;
pub use settings::Settings;
pub use start::Prelude;

use self::assembly::{Assembly, Parts};
use self::crew::Crew;
use self::events::EventLoop;
use self::start::{Started, start};
use self::waiting::Waited;

/// The signals that ask the process to end, blocked and readable.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks SIGTERM, SIGINT and SIGHUP for the process; to be called before it has a second thread, so that none ever
    /// takes them.
    pub fn block() -> Result<Self, MachineError> {
        events::block_signals()
            .map(Self)
            .map_err(MachineError::host("watch for signals"))
    }
}

/// Runs a machine to its end: the one that `config` describes, or, where there is none, the one that the API asks for.
///
/// Takes standard input for the serial console, and standard output where the console goes nowhere else.
pub fn run(
    signals: Signals,
    prelude: Prelude,
    config: Option<VmConfig>,
    settings: Settings,
    mut office: Option<Office>,
) -> Result<Exit, MachineError> {
    let Signals(signals) = signals;
    let started = match (config, &mut office) {
        (Some(config), _) => start(prelude, Parts::open(config, &settings)?)?,
        (None, Some(office)) => match waiting::wait(prelude, &settings, &signals, office)? {
            Waited::Started(started) => *started,
            Waited::Ended => return Ok(Exit::GuestShutdown),
        },
        (None, None) => return Err(MachineError::Assembly("nothing says which machine".into())),
    };
    let Started {
        assembly:
            Assembly {
                vm,
                buses,
                serial,
                events,
                transports,
                controls,
                pci,
            },
        ending,
        threads,
        seccomp,
        terminal,
    } = started;

    // The guest runs while the event loop is set up; what happens meanwhile waits in descriptors.
    let console = serial.lock().unwrap_or_else(PoisonError::into_inner).counters();
    let crew = Crew::new(&threads, events, controls, &transports, pci, console);
    let outcome = crew.and_then(|crew| {
        let events = EventLoop::new(ending, signals, serial, &transports, crew, office, settings.grace)?;
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
