//! The command line. Its words are Firecracker's where Firecracker has them.
//!
//! Parsed by lexopt, not clap: a machine starts in about a millisecond, of which clap alone would take a twentieth.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;
use log::LevelFilter;
use secovia_devices::serial::BoundedFile;

use crate::api::ApiConfig;
use crate::confine::Landlock;

/// What `--help` prints.
pub const HELP: &str = "\
One microVM.

usage: secovia-vmm --api-sock PATH [--config-file FILE] [OPTION]...
       secovia-vmm --no-api --config-file FILE [OPTION]...
       secovia-vmm --probe

  --api-sock PATH     serve Firecracker's API on this Unix socket, which must not exist, and which its owner alone may
                      use [default: /run/secovia-vmm.socket]
  --http-api-max-payload-size BYTES
                      the longest body of a request [default: 51200]
  --config-file FILE  the machine as JSON: boot-source, machine-config, drives, pmem, network-interfaces, balloon,
                      memory-hotplug, vsock, entropy, serial, mmds-config, logger, metrics; it starts at once
  --no-api            run what the file describes and listen nowhere
  --id ID             the machine's name in messages: letters, digits and dashes, at most 64 [default: anonymous]
  --grace SECONDS     how long after SIGTERM the guest may take to power itself off [default: 10]
  --log-path FILE     write the log there instead of to standard error
  --level LEVEL       off, error, warn (or warning), info, debug or trace [default: warn]
  --show-level        give each line of the log its level, which it has in any case
  --show-log-origin   say in each line of the log where in the program it comes from
  --metrics-path FILE add metrics to this file or FIFO: a line of JSON every minute, on request, and at the end
  --seccomp-filter FILE
                      allow the system calls that these rules name, in the form of the built-in vmm/seccomp/rules.json
  --no-seccomp        allow every system call; for debugging, never for guests that are not trusted
  --no-landlock       keep the process's rights to files; for debugging, never for guests that are not trusted
  --console-limit BYTES
                      where standard output is a file, never let it grow beyond this, and keep the end of what the
                      guest wrote; at least 4096 [default: no limit]
  --metadata FILE     what the metadata service tells the guest, as JSON; also to be had by the API's /mmds
  --mmds-size-limit BYTES
                      the most JSON that it keeps [default: that of --http-api-max-payload-size]
  --boot-timer        log how long the guest took to boot, once it writes 123 to the address 0xd0000000, as
                      Firecracker's guests do; at level info
  --enable-pci        put devices on a PCI bus, which the guest's kernel must know; drives and network interfaces can
                      then leave while it runs, and drives come
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
/// Where the API is, if nothing is said.
const API_SOCKET: &str = "/run/secovia-vmm.socket";
/// What a request's body may have, if nothing is said: Firecracker's own limit.
const MAX_PAYLOAD: usize = 51_200;
/// What can be asked for at most: a configuration is never larger.
const MAX_PAYLOAD_MAX: usize = 1 << 20;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Run a machine.
    Run(Box<RunArgs>),
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
    /// The configuration file. Without one it is the API that says which machine it is.
    pub config_file: Option<PathBuf>,
    /// The API, if it is served.
    pub api: Option<ApiConfig>,
    /// The machine's name.
    pub id: String,
    /// What the guest gets to power off.
    pub grace: Duration,
    /// The log's file.
    pub log_path: Option<PathBuf>,
    /// What is logged.
    pub level: LevelFilter,
    /// Whether lines of the log say where they come from.
    pub show_origin: bool,
    /// The file that metrics go to.
    pub metrics_path: Option<PathBuf>,
    /// Which system calls are allowed.
    pub filters: Filters,
    /// Whether rights to files are given up.
    pub landlock: Landlock,
    /// The most that a file on standard output holds of the guest's console.
    pub console_limit: Option<u64>,
    /// Whether the guest can say that it has booted.
    pub boot_timer: bool,
    /// Whether devices are on a PCI bus.
    pub pci: bool,
    /// The metadata's file.
    pub metadata: Option<PathBuf>,
    /// The most bytes of metadata.
    pub mmds_size: usize,
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
    /// That is no size.
    #[error("{0}: {1:?}; give 1 to {max} bytes", max = MAX_PAYLOAD_MAX)]
    Size(&'static str, String),
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
    let (mut rules, mut metadata, mut mmds_size) = (None, None, None);
    let (mut no_api, mut probe, mut no_seccomp, mut no_landlock) = (false, false, false, false);
    let (mut console_limit, mut api_sock, mut max_payload, mut metrics_path) = (None, None, None, None);
    let (mut show_origin, mut boot_timer, mut pci) = (false, false, false);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("config-file") => once("--config-file", &mut config_file, parser.value()?.into())?,
            Long("api-sock") => once("--api-sock", &mut api_sock, parser.value()?.into())?,
            Long("http-api-max-payload-size") => once(
                "--http-api-max-payload-size",
                &mut max_payload,
                checked_size("--http-api-max-payload-size", &parser.value()?.string()?)?,
            )?,
            Long("metrics-path") => once("--metrics-path", &mut metrics_path, parser.value()?.into())?,
            Long("show-level") => {}
            Long("show-log-origin") => show_origin = true,
            Long("metadata") => once("--metadata", &mut metadata, parser.value()?.into())?,
            Long("mmds-size-limit") => once(
                "--mmds-size-limit",
                &mut mmds_size,
                checked_size("--mmds-size-limit", &parser.value()?.string()?)?,
            )?,
            Long("boot-timer") => boot_timer = true,
            Long("enable-pci") => pci = true,
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
    let max_payload = max_payload.unwrap_or(MAX_PAYLOAD);
    let api = match (no_api, api_sock) {
        (true, None) => None,
        (true, Some(_)) => return Err(CliError::Both("--api-sock", "--no-api")),
        (false, path) => Some(ApiConfig {
            path: path.unwrap_or_else(|| API_SOCKET.into()),
            max_payload,
        }),
    };
    if api.is_none() && config_file.is_none() {
        return Err(CliError::Missing("--config-file"));
    }
    let filters = match (rules, no_seccomp) {
        (None, false) => Filters::BuiltIn,
        (Some(path), false) => Filters::File(path),
        (None, true) => Filters::Off,
        (Some(_), true) => return Err(CliError::Both("--seccomp-filter", "--no-seccomp")),
    };
    Ok(Command::Run(Box::new(RunArgs {
        config_file,
        api,
        id: id.unwrap_or_else(|| ANONYMOUS.into()),
        grace: grace.unwrap_or(Duration::from_secs(10)),
        log_path,
        level: level.unwrap_or(LevelFilter::Warn),
        show_origin,
        metrics_path,
        filters,
        landlock: if no_landlock { Landlock::Off } else { Landlock::On },
        console_limit,
        boot_timer,
        pci,
        metadata,
        mmds_size: mmds_size.unwrap_or(max_payload),
    })))
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

fn checked_size(word: &'static str, bytes: &str) -> Result<usize, CliError> {
    match bytes.parse() {
        Ok(bytes @ 1..=MAX_PAYLOAD_MAX) => Ok(bytes),
        _ => Err(CliError::Size(word, bytes.into())),
    }
}

fn checked_level(level: &str) -> Result<LevelFilter, CliError> {
    if level.eq_ignore_ascii_case("warning") {
        return Ok(LevelFilter::Warn);
    }
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
        assert_eq!(args.config_file, Some(PathBuf::from("vm.json")));
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
    fn the_api_is_served_unless_told_otherwise() {
        let args = |line| match run(line) {
            Ok(Command::Run(args)) => args,
            other => panic!("{other:?}"),
        };
        let api = |path: &str, max_payload| {
            Some(ApiConfig {
                path: path.into(),
                max_payload,
            })
        };
        assert_eq!(args("").api, api("/run/secovia-vmm.socket", 51200));
        let given = args(
            "--api-sock a.sock --http-api-max-payload-size 1000 --metrics-path m --show-level --show-log-origin \
             --config-file c --level Warning --boot-timer --enable-pci",
        );
        assert!(given.boot_timer && !args("").boot_timer);
        assert!(given.pci && !args("").pci);
        assert_eq!((&given.metadata, given.mmds_size), (&None, 1000));
        let other = args("--metadata m.json --mmds-size-limit 70000");
        assert_eq!((other.metadata, other.mmds_size), (Some("m.json".into()), 70_000));
        assert_eq!(given.api, api("a.sock", 1000));
        assert_eq!((given.metrics_path, given.show_origin), (Some("m".into()), true));
        assert_eq!(
            (given.config_file, given.level),
            (Some("c".into()), LevelFilter::Warn)
        );
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
            (
                "--api-sock x --no-api --config-file a",
                "--api-sock and --no-api exclude each other",
            ),
            (
                "--http-api-max-payload-size 0",
                "--http-api-max-payload-size: \"0\"; give 1 to",
            ),
            ("--mystery", "invalid option '--mystery'"),
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
