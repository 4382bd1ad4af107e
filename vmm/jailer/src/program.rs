//! The process: words in, exit status out.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use crate::cli::{self, Command, Format};
use crate::options::Options;
use crate::plan::Plan;
use crate::{apply, facts, plan};

/// A step failed, or the host has not what is needed.
const FAILED: u8 = 1;
/// The command line means nothing.
const USAGE: u8 = 2;

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    match cli::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run(options)) => match planned(&options) {
            Ok(plan) => match apply::apply(&plan) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(FAILED, &error),
            },
            Err(code) => code,
        },
        Ok(Command::Show(options, format)) => match planned(&options) {
            Ok(plan) => show(&plan, format),
            Err(code) => code,
        },
        Ok(Command::Version) => print(concat!("secovia-jailer ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Command::Help) => print(cli::HELP),
        Err(error) => fail(USAGE, &error),
    }
}

fn planned(options: &Options) -> Result<Plan, ExitCode> {
    let facts = facts::gather(options).map_err(|error| fail(FAILED, &error))?;
    plan::plan(options, &facts).map_err(|error| fail(FAILED, &error))
}

fn show(plan: &Plan, format: Format) -> ExitCode {
    match format {
        Format::Text => print(&plan.to_string()),
        Format::Json => match serde_json::to_string_pretty(plan) {
            Ok(text) => print(&(text + "\n")),
            Err(error) => fail(FAILED, &format_args!("--json: {error}; print it without --json")),
        },
    }
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(FAILED, &format_args!("write to standard output: {error}")),
    }
}

/// Says in one line what went wrong.
fn fail(code: u8, error: &dyn Display) -> ExitCode {
    // Where standard error is gone there is only the status.
    let _ = writeln!(std::io::stderr(), "secovia-jailer: {error}");
    ExitCode::from(code)
}
