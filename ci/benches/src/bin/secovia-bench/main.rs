//! What a machine costs before a kernel is in it: its start, its end, its memory.
//!
//! Every guest here is a stub of a few instructions, so that the figures are the VMM's own, also on a KVM that
//! executes guests by software emulation.

mod guest;
mod job;
mod memory;
mod start;
mod stats;

use std::process::ExitCode;

use job::{Error, Options};

const HELP: &str = "\
usage: secovia-bench start [--vmm FILE] [--jailer FILE] [--yardstick FILE] [--runs N] [--json]
       secovia-bench memory [--vmm FILE] [--json]

  start   exec to the guest's first serial byte, and the guest's reset to the process's end, beside a program that makes
          only the KVM calls that any VMM must make. Status 1 where a goal is missed: at most 1.5 ms and twice the
          yardstick, gone within 2 ms, and 3 ms more in a jail and with all filters than without both
  memory  what the idle VMM holds beyond the guest's memory. Status 1 where it is more than 2.5 MiB

  --vmm FILE        the VMM [default: secovia-vmm beside this program]
  --jailer FILE     what starts it in a jail [default: secovia-jailer beside this program]
  --yardstick FILE  the yardstick [default: secovia-yardstick beside this program]
  --runs N          how many starts of each [default: 20]
  --json            print one line of JSON instead of a table
";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("secovia-bench: {error}");
            ExitCode::from(2)
        }
    }
}

/// A subcommand; `false` where a goal was missed.
type Job = fn(&Options) -> Result<bool, Error>;

fn run() -> Result<bool, Error> {
    use lexopt::prelude::*;
    let own = std::env::current_exe().map_err(Error::host("find this program"))?;
    let mut options = Options {
        vmm: own.with_file_name("secovia-vmm"),
        jailer: own.with_file_name("secovia-jailer"),
        yardstick: own.with_file_name("secovia-yardstick"),
        runs: 20,
        json: false,
    };
    let mut job: Option<Job> = None;
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Value(name) if job.is_none() && name == "start" => job = Some(start::run),
            Value(name) if job.is_none() && name == "memory" => job = Some(memory::run),
            Long("vmm") => options.vmm = parser.value()?.into(),
            Long("jailer") => options.jailer = parser.value()?.into(),
            Long("yardstick") => options.yardstick = parser.value()?.into(),
            Long("runs") => options.runs = parser.value()?.parse::<usize>()?.max(1),
            Long("json") => options.json = true,
            Long("help") | Short('h') => {
                print!("{HELP}");
                return Ok(true);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    match job {
        Some(job) => job(&options),
        None => Err(lexopt::Error::from("start or memory is missing").into()),
    }
}
