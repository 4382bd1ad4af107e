//! The command line. Its words are Firecracker's where Firecracker has them.
//!
//! Parsed by lexopt, not clap: a machine starts in about a millisecond, of which clap alone would take a twentieth.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;
use log::LevelFilter;
use secovia_devices::serial::BoundedFile;

use crate::confine::Landlock;

/// What `--help` prints.
pub const HELP: &str = "\
One microVM.

usage: secovia-vmm --config-file FILE --no-api [--id ID] [--grace SECONDS] [--log-path FILE] [--level LEVEL]
                   [--seccomp-filter FILE | --no-seccomp] [--no-landlock]
                   [--console-limit BYTES]
       secovia-vmm --probe

  --config-file FILE  the machine as JSON: boot-source, machine-config, drives, network-interfaces, balloon, vsock,
                      entropy
  --no-api            run what the file describes and listen nowhere
  --id ID             the machine's name in messages: letters, digits and dashes, at most 64 [default: anonymous]
  --grace SECONDS     how long after SIGTERM the guest may take to power itself off [default: 10]
  --log-path FILE     write the log there instead of to standard error
  --level LEVEL       off, error, warn, info, debug or trace [default: warn]
  --seccomp-filter FILE
                      allow the system calls that these rules name, in the form of the built-in vmm/seccomp/rules.json
  --no-seccomp        allow every system call; for debugging, never for guests that are not trusted
  --no-landlock       keep the process's rights to files; for debugging, never for guests that are not trusted
  --console-limit BYTES
                      where standard output is a file, never let it grow beyond this, and keep the end of what the
                      guest wrote; at least 4096 [default: no limit]
  --probe             time a tiny guest and print as JSON how fast this host's KVM is
  --version           print the version
  --help              print this

The guest's serial console is standard input and output. SIGTERM and SIGINT press the power button; a second one ends
the machine at once.

Exit status: 0 the guest powered off, 1 the VMM or the host failed, 2 wrong command line or configuration, 3 the guest
reset itself, 4 its kernel panicked, 5 it was ended because it did not power off in time, 6 the VMM made a system call
that it must not, which the log names.
";

/// The name of a machine that was given none.
const ANONYMOUS: &str = "anonymous";
const ID_MAX: usize = 64;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Run a machine.
    Run(RunArgs),
    /// Measure this host's KVM.
    Probe,
    /// Print the version.
    Version,
    /// Print how to use this.
    Help,
}

/// How to run it.
#[derive(Debug, PartialEq, Eq)]
pub struct RunArgs {
    /// The configuration file.
    pub config_file: PathBuf,
    /// The machine's name.
    pub id: String,
    /// What the guest gets to power off.
    pub grace: Duration,
    /// The log's file.
    pub log_path: Option<PathBuf>,
    /// What is logged.
    pub level: LevelFilter,
    /// Which system calls are allowed.
    pub filters: Filters,
    /// Whether rights to files are given up.
    pub landlock: Landlock,
    /// The most that a file on standard output holds of the guest's console.
    pub console_limit: Option<u64>,
}

/// Which system calls are allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filters {
    /// Those that this version is known to need.
    BuiltIn,
    /// Those that a file of rules names.
    File(PathBuf),
    /// All.
    Off,
}

/// A command line that means nothing.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// An unknown word, or one without its value.
    #[error("{0}; see secovia-vmm --help")]
    Word(#[from] lexopt::Error),
    /// A word is missing.
    #[error("{0} is missing; see secovia-vmm --help")]
    Missing(&'static str),
    /// A word is there twice.
    #[error("{0} is there twice; give it once")]
    Doubled(&'static str),
    /// Two words exclude each other.
    #[error("{0} and {1} exclude each other; give one")]
    Both(&'static str, &'static str),
    /// A machine's name is out of bounds.
    #[error("--id: {0:?}; give 1 to 64 letters, digits and dashes")]
    Id(String),
    /// There is no such level.
    #[error("--level: {0:?}; give off, error, warn, info, debug or trace")]
    Level(String),
    /// That is no limit.
    #[error("--console-limit: {0:?}; give whole bytes, at least {min}", min = BoundedFile::LIMIT_MIN)]
    ConsoleLimit(String),
    /// That is no time.
    #[error("--grace: {0:?}; give whole seconds, at most a day")]
    Grace(String),
}

/// Reads the arguments, without the program's name.
pub fn parse(args: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Command, CliError> {
    let mut parser = lexopt::Parser::from_args(args);
    let (mut config_file, mut id, mut grace, mut log_path, mut level) = (None, None, None, None, None);
    let mut rules = None;
    let (mut no_api, mut probe, mut no_seccomp, mut no_landlock) = (false, false, false, false);
    let mut console_limit = None;
    while let Some(arg) = parser.next()? {
        match arg {
            Long("config-file") => once("--config-file", &mut config_file, parser.value()?.into())?,
            Long("id") => once("--id", &mut id, checked_id(parser.value()?.string()?)?)?,
            Long("grace") => once("--grace", &mut grace, checked_grace(&parser.value()?.string()?)?)?,
            Long("log-path") => once("--log-path", &mut log_path, parser.value()?.into())?,
            Long("level") => once("--level", &mut level, checked_level(&parser.value()?.string()?)?)?,
            Long("seccomp-filter") => once("--seccomp-filter", &mut rules, parser.value()?.into())?,
            Long("no-seccomp") => no_seccomp = true,
            Long("no-landlock") => no_landlock = true,
            Long("console-limit") => once(
                "--console-limit",
                &mut console_limit,
                checked_limit(&parser.value()?.string()?)?,
            )?,
            Long("no-api") => no_api = true,
            Long("probe") => probe = true,
            Long("version") => return Ok(Command::Version),
            Long("help") | Short('h') => return Ok(Command::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    if probe {
        return Ok(Command::Probe);
    }
    if !no_api {
        return Err(CliError::Missing("--no-api"));
    }
    let filters = match (rules, no_seccomp) {
        (None, false) => Filters::BuiltIn,
        (Some(path), false) => Filters::File(path),
        (None, true) => Filters::Off,
        (Some(_), true) => return Err(CliError::Both("--seccomp-filter", "--no-seccomp")),
    };
    Ok(Command::Run(RunArgs {
        config_file: config_file.ok_or(CliError::Missing("--config-file"))?,
        id: id.unwrap_or_else(|| ANONYMOUS.into()),
        grace: grace.unwrap_or(Duration::from_secs(10)),
        log_path,
        level: level.unwrap_or(LevelFilter::Warn),
        filters,
        landlock: if no_landlock { Landlock::Off } else { Landlock::On },
        console_limit,
    }))
}

fn once<T>(word: &'static str, place: &mut Option<T>, value: T) -> Result<(), CliError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(CliError::Doubled(word)),
    }
}

fn checked_id(id: String) -> Result<String, CliError> {
    let good = (1..=ID_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if good { Ok(id) } else { Err(CliError::Id(id)) }
}

fn checked_level(level: &str) -> Result<LevelFilter, CliError> {
    level.parse().map_err(|_| CliError::Level(level.into()))
}

fn checked_limit(bytes: &str) -> Result<u64, CliError> {
    match bytes.parse() {
        Ok(bytes @ BoundedFile::LIMIT_MIN..) => Ok(bytes),
        _ => Err(CliError::ConsoleLimit(bytes.into())),
    }
}

fn checked_grace(seconds: &str) -> Result<Duration, CliError> {
    match seconds.parse() {
        Ok(number @ 0..=86_400) => Ok(Duration::from_secs(number)),
        _ => Err(CliError::Grace(seconds.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Command, CliError> {
        parse(line.split_whitespace())
    }

    #[test]
    fn a_machine_is_run_from_a_file() {
        let Ok(Command::Run(args)) = run("--config-file vm.json --no-api --id a-1 --level Debug --grace 3")
        else {
            panic!()
        };
        assert_eq!(args.config_file, PathBuf::from("vm.json"));
        assert_eq!(
            (args.id.as_str(), args.level, args.grace),
            ("a-1", LevelFilter::Debug, Duration::from_secs(3))
        );
        assert!(matches!(
            run("--config-file=vm.json --no-api"),
            Ok(Command::Run(_))
        ));
    }

    #[test]
    fn other_things_can_be_asked_for() {
        assert_eq!(run("--probe").unwrap(), Command::Probe);
        assert_eq!(run("--version").unwrap(), Command::Version);
        assert_eq!(run("-h").unwrap(), Command::Help);
    }

    #[test]
    fn filters_are_on_unless_told_otherwise() {
        for (words, expected) in [
            ("", Filters::BuiltIn),
            ("--no-seccomp", Filters::Off),
            ("--seccomp-filter a.json", Filters::File("a.json".into())),
        ] {
            let Ok(Command::Run(args)) = run(&format!("--config-file vm.json --no-api {words}")) else {
                panic!("{words}")
            };
            assert_eq!((args.filters, args.landlock), (expected, Landlock::On));
        }
        let Ok(Command::Run(args)) = run("--config-file vm.json --no-api --no-landlock") else {
            panic!()
        };
        assert_eq!(args.landlock, Landlock::Off);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, expected) in [
            ("", "--no-api is missing"),
            ("--no-api", "--config-file is missing"),
            ("--config-file", "missing argument"),
            (
                "--no-api --config-file a --config-file b",
                "--config-file is there twice",
            ),
            (
                "--no-api --config-file a --no-seccomp --seccomp-filter b",
                "--seccomp-filter and --no-seccomp exclude each other",
            ),
            ("--api-sock x", "invalid option '--api-sock'"),
            ("extra", "unexpected argument \"extra\""),
            ("--id a_b", "--id: \"a_b\"; give 1 to 64"),
            ("--level loud", "--level: \"loud\"; give off"),
            ("--grace -1", "--grace: \"-1\"; give whole"),
        ] {
            let message = run(line).unwrap_err().to_string();
            assert!(message.contains(expected), "{line}: {message}");
        }
    }
}
