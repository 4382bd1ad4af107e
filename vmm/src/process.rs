//! The program: words in, exit status out.

use std::io::Write;
use std::process::ExitCode;

use crate::cli::{self, Command, Filters, RunArgs};
use crate::config::{self, ConfigError, VmConfig};
use crate::confine::{Confinement, Seccomp, SeccompError};
use crate::machine::{MachineError, Prelude};
use crate::{logger, machine, probe, sys};
use secovia_seccomp::List;
use secovia_vmm_api::Exit;

/// All of `secovia-vmm`.
pub fn main() -> ExitCode {
    sys::one_heap();
    let exit = match cli::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run(args)) => run(args),
        Ok(Command::Probe) => measure(),
        Ok(Command::Version) => print(concat!("secovia-vmm ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Command::Help) => print(cli::HELP),
        Err(error) => fail(Exit::BadConfiguration, &error),
    };
    ExitCode::from(exit.code())
}

fn run(args: RunArgs) -> Exit {
    if let Err(error) = logger::start(&args.id, args.log_path.as_deref(), args.level) {
        return fail(
            Exit::BadConfiguration,
            &format_args!("--log-path: {error}; give a file that can be written"),
        );
    }
    match start(&args) {
        Ok(exit) => exit,
        Err(Failure::Config(error)) => fail(Exit::BadConfiguration, &error),
        Err(Failure::Machine(error)) => fail(error.exit(), &error),
        Err(Failure::Seccomp(error)) => fail(error.exit(), &error),
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
    let prelude = Prelude::start(Confinement {
        seccomp,
        landlock: args.landlock,
    })?;
    let spec = config::read(&args.config_file)?;
    let config = VmConfig::new(spec, sys::host_memory())?;
    Ok(machine::run(prelude, config, args.grace, args.console_limit)?)
}

/// Why there is no machine, or no more.
enum Failure {
    Config(ConfigError),
    Machine(MachineError),
    Seccomp(SeccompError),
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
