//! The program: words in, exit status out.

use std::io::Write;
use std::process::ExitCode;

use crate::api::{ApiSocket, Model, Office, ServerError, SocketError};
use crate::cli::{self, Command, Filters, RunArgs};
use crate::config::{self, ConfigError, VmConfig};
use crate::confine::{Confinement, Right, Seccomp, SeccompError};
use crate::logger::LogError;
use crate::machine::{MachineError, Prelude, Settings, Signals};
use crate::metrics::MetricsError;
use crate::mmds::{self, SharedMmds};
use crate::{logger, machine, metrics, probe, sys};
use secovia_seccomp::List;
use secovia_vmm_api::{Exit, VmSpec};

/// All of `secovia-vmm`.
pub fn main() -> ExitCode {
    sys::one_heap();
    let exit = match cli::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run(args)) => run(&args),
        Ok(Command::Probe) => measure(),
        Ok(Command::Version) => print(concat!("secovia-vmm ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Command::Help) => print(cli::HELP),
        Err(error) => fail(Exit::BadConfiguration, &error),
    };
    ExitCode::from(exit.code())
}

fn run(args: &RunArgs) -> Exit {
    if let Err(error) = logger::start(&args.id, args.log_path.as_deref(), args.level) {
        return fail(
            Exit::BadConfiguration,
            &format_args!("--log-path: {error}; give a file that can be written"),
        );
    }
    if args.show_origin {
        logger::show_origin();
    }
    match start(args) {
        Ok(exit) => exit,
        Err(Failure::Config(error)) => fail(Exit::BadConfiguration, &error),
        Err(Failure::Machine(error)) => fail(error.exit(), &error),
        Err(Failure::Seccomp(error)) => fail(error.exit(), &error),
        Err(Failure::Api(error)) => fail(Exit::Internal, &error),
        Err(Failure::Setting(error)) => fail(Exit::BadConfiguration, &error),
    }
}

fn start(args: &RunArgs) -> Result<Exit, Failure> {
    let seccomp = match &args.filters {
        Filters::BuiltIn => Seccomp::built_in(),
        Filters::File(path) => Seccomp::of_file(path)?,
        Filters::Off => Seccomp::off(),
    };
    // Before anything is read that somebody else may have written, and before there is a second thread.
    seccomp.enter(List::Start)?;
    // Clients can connect from here on; all that can wait comes afterwards.
    let socket = args
        .api
        .as_ref()
        .map(|api| ApiSocket::bind(&api.path))
        .transpose()?;
    let signals = Signals::block()?;
    let host_memory = sys::host_memory();
    let mmds = SharedMmds::new(args.mmds_size).map_err(|error| {
        Failure::Setting(format!("take random numbers for the metadata service: {error}"))
    })?;
    let mut office = match (&args.api, socket) {
        (Some(api), Some(socket)) => {
            let model = Model::new(args.id.clone(), VmSpec::default(), host_memory, args.pci);
            Some(Office::open(
                socket,
                model,
                mmds.clone(),
                &seccomp,
                api.max_payload,
            )?)
        }
        _ => None,
    };
    let prelude = Prelude::start(Confinement {
        seccomp,
        landlock: args.landlock,
        // The API's socket goes at the end.
        rights: args
            .api
            .iter()
            .filter_map(|api| api.path.parent())
            .map(|folder| Right::Remove(folder.into()))
            .collect(),
    });
    if let Some(path) = &args.metrics_path {
        metrics::open(path)?;
    }
    if let Some(path) = &args.metadata {
        mmds::read(path, &mut mmds.lock()).map_err(|error| Failure::Setting(error.to_string()))?;
    }
    let config = match &args.config_file {
        Some(path) => {
            let spec = config::read(path)?;
            if let Some(logger) = &spec.logger {
                logger::change(logger)?;
            }
            if let Some(metrics) = &spec.metrics {
                metrics::open(&metrics.metrics_path)?;
            }
            if let Some(office) = &mut office {
                office.clerk.begin_with(spec.clone());
            }
            Some(VmConfig::new(spec, host_memory)?)
        }
        None => None,
    };
    let settings = Settings {
        grace: args.grace,
        console_limit: args.console_limit,
        boot_timer: args.boot_timer,
        pci: args.pci,
        mmds,
    };
    Ok(machine::run(signals, prelude, config, settings, office)?)
}

/// Why there is no machine, or no more.
enum Failure {
    Config(ConfigError),
    Machine(MachineError),
    Seccomp(SeccompError),
    Api(ServerError),
    /// A path that the command line or the configuration names is not to be had.
    Setting(String),
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        Self::Api(error)
    }
}

impl From<SocketError> for Failure {
    fn from(error: SocketError) -> Self {
        Self::Setting(error.to_string())
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        Self::Setting(error.to_string())
    }
}

impl From<MetricsError> for Failure {
    fn from(error: MetricsError) -> Self {
        Self::Setting(error.to_string())
    }
}

impl From<SeccompError> for Failure {
    fn from(error: SeccompError) -> Self {
        Self::Seccomp(error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<MachineError> for Failure {
    fn from(error: MachineError) -> Self {
        Self::Machine(error)
    }
}

fn measure() -> Exit {
    match probe::measure() {
        Ok(report) => print(&report),
        Err(error) => fail(Exit::Internal, &error),
    }
}

fn print(text: &str) -> Exit {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => Exit::GuestShutdown,
        Err(_) => Exit::Internal,
    }
}

/// Says in one line what went wrong.
fn fail(exit: Exit, error: &dyn std::fmt::Display) -> Exit {
    eprintln!("secovia-vmm: {error}");
    exit
}
