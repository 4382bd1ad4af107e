//! What a machine costs before a kernel is in it: its start, its end, its requests, its memory.
//!
//! Every guest here is a stub of a few instructions, so that the figures are the VMM's own, also on a KVM that
//! executes guests by software emulation.

mod api;
mod guest;
mod io;
mod job;
mod memory;
mod network;
mod processors;
mod start;
mod stats;
mod subject;

use std::process::ExitCode;

use job::{Error, Options};

const HELP: &str = "\
usage: secovia-bench start [--vmm FILE] [--jailer FILE] [--yardstick FILE] [--runs N] [--json]
       secovia-bench io [--vmm FILE] [--jailer FILE] [--runs N] [--json]
       secovia-bench api [--vmm FILE] [--runs N] [--json]
       secovia-bench memory [--vmm FILE] [--json]

  start   exec to the guest's first serial byte, and the guest's reset to the process's end, beside a program that makes
          only the KVM calls that any VMM must make. Status 1 where a goal is missed: at most 1.5 ms (with disk and
          network interface) and twice the yardstick, gone within 2 ms, and 3 ms more in a jail and with all filters than without both
  io      processor time of the VMM for one disk request: a read of 512 bytes out of the page cache, notified, interrupted
          and acknowledged alone. A run is four machines (two without filters, one with all, one with all in a jail) that
          take turns on one processor for 100 rounds of 100 requests, timed by their processes' own clocks of processor
          time. What filters add is the median of the differences to the first machine in the same round, and of that the
          median over all runs. Status 1 where it is more than equal rounds differ: from the lower to the upper quarter
          of all rounds without filters. Beside it: how far apart the two machines without filters are by the same
          measure as the filters' cost, which says how small a cost is still seen
  api     exec to the whole answer to the first request of the API, GET /, without a machine; beside it the same of the
          program that FIRECRACKER names. Status 1 where the median is more than 1.0 ms
  memory  what the idle VMM holds beyond the guest's memory, with disk and network interface. Status 1 where it is more than 2.5 MiB

  --vmm FILE        the VMM [default: secovia-vmm beside this program]
  --jailer FILE     what starts it in a jail [default: secovia-jailer beside this program]
  --yardstick FILE  the yardstick [default: secovia-yardstick beside this program]
  --runs N          how many runs of each [default: start 20, io 10, api 200]
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
        runs: None,
        json: false,
    };
    let mut job: Option<Job> = None;
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Value(name) if job.is_none() && name == "start" => job = Some(start::run),
            Value(name) if job.is_none() && name == "io" => job = Some(io::run),
            Value(name) if job.is_none() && name == "api" => job = Some(api::run),
            Value(name) if job.is_none() && name == "memory" => job = Some(memory::run),
            Long("vmm") => options.vmm = parser.value()?.into(),
            Long("jailer") => options.jailer = parser.value()?.into(),
            Long("yardstick") => options.yardstick = parser.value()?.into(),
            Long("runs") => options.runs = Some(parser.value()?.parse::<usize>()?.max(1)),
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
        None => Err(lexopt::Error::from("start, io, api or memory is missing").into()),
    }
}
