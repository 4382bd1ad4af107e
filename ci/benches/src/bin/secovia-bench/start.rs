//! From exec to the first serial byte, and from the guest's reset to the process's end.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use secovia_stub_guests::HELLO;
use secovia_vmm_api::Exit;
use serde::Serialize;

use super::guest::{Files, MEMORY_MIB, name};
use super::job::{Error, Options};
use super::stats::Stats;

/// What the stub guest prints before it resets.
const GREETING: &[u8] = b"stub\n";
const START_GOAL_US: u64 = 1500;
const START_GOAL_RATIO: f64 = 2.0;
const GONE_GOAL_US: u64 = 2000;

/// One program's figures.
#[derive(Debug, Serialize)]
struct Figures {
    /// Exec to the first serial byte.
    start: Stats,
    /// The last byte, right after which the guest resets, to the end of the process.
    gone: Stats,
}

#[derive(Debug, Serialize)]
struct Report {
    memory_mib: u64,
    runs: usize,
    vmm: Figures,
    yardstick: Figures,
    /// Of the medians.
    ratio: f64,
    met: bool,
}

/// Measures both programs in turn, so that a busy moment meets both.
pub(super) fn run(options: &Options) -> Result<bool, Error> {
    let files = Files::new(HELLO)?;
    let arguments = files.arguments();
    let (mut vmm, mut yardstick) = (Vec::new(), Vec::new());
    // The first of each only warms the caches.
    for run in 0..=options.runs {
        let laps = [
            (&options.vmm, &arguments[..], &mut vmm),
            (&options.yardstick, &[], &mut yardstick),
        ];
        for (program, arguments, list) in laps {
            let lap = lap(program, arguments)?;
            if run > 0 {
                list.push(lap);
            }
        }
    }

    let (vmm, yardstick) = (figures(vmm), figures(yardstick));
    let (Some(vmm), Some(yardstick)) = (vmm, yardstick) else {
        return Ok(false);
    };
    let ratio = vmm.start.median_us as f64 / yardstick.start.median_us.max(1) as f64;
    let met = vmm.start.median_us <= START_GOAL_US
        && ratio <= START_GOAL_RATIO
        && vmm.gone.median_us <= GONE_GOAL_US;
    let report = Report {
        memory_mib: MEMORY_MIB,
        runs: options.runs,
        vmm,
        yardstick,
        ratio: (ratio * 100.0).round() / 100.0,
        met,
    };
    print(&report, options.json)?;
    Ok(met)
}

/// Start and end of one run.
fn lap(program: &Path, arguments: &[String]) -> Result<(Duration, Duration), Error> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let begin = Instant::now();
    let mut child = command
        .spawn()
        .map_err(Error::host(format!("start {}", program.display())))?;
    let mut output = child.stdout.take();
    let mut seen = Vec::with_capacity(GREETING.len());
    let mut first = None;
    while let Some(output) = &mut output
        && seen.len() < GREETING.len()
    {
        let mut buffer = [0; GREETING.len()];
        match output
            .read(&mut buffer)
            .map_err(Error::host("read the guest's output"))?
        {
            0 => break,
            length => {
                first.get_or_insert_with(|| begin.elapsed());
                seen.extend_from_slice(&buffer[..length]);
            }
        }
    }
    let last = Instant::now();
    let status = child
        .wait()
        .map_err(Error::host(format!("wait for {}", program.display())))?;
    let gone = last.elapsed();
    match first {
        Some(first) if seen == GREETING && status.code() == Some(Exit::GuestReset.code().into()) => {
            Ok((first, gone))
        }
        _ => Err(Error::Program {
            program: name(program),
            reason: format!("{status} after printing {:?}", String::from_utf8_lossy(&seen)),
        }),
    }
}

fn figures(laps: Vec<(Duration, Duration)>) -> Option<Figures> {
    let (start, gone) = laps.into_iter().unzip();
    Some(Figures {
        start: Stats::of(start)?,
        gone: Stats::of(gone)?,
    })
}

fn print(report: &Report, json: bool) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    let text = if json {
        serde_json::to_string(report)? + "\n"
    } else {
        let row = |label: &str, stats: &Stats| {
            let (min, median, max) = (stats.min_us, stats.median_us, stats.max_us);
            format!("{label:<44} {min:>8} {median:>8} {max:>8}\n")
        };
        format!(
            "{:<44} {:>8} {:>8} {:>8}\n",
            format!("microseconds, {} runs", report.runs),
            "min",
            "median",
            "max"
        ) + &row("secovia-vmm: exec to first serial byte", &report.vmm.start)
            + &row("yardstick:   exec to first serial byte", &report.yardstick.start)
            + &row("secovia-vmm: guest's reset to process gone", &report.vmm.gone)
            + &row(
                "yardstick:   guest's reset to process gone",
                &report.yardstick.gone,
            )
            + &format!(
                "{:.2} of the yardstick; goals (1500 and 2.00 times, gone in 2000): {}\n",
                report.ratio,
                if report.met { "met" } else { "missed" }
            )
    };
    out.write_all(text.as_bytes())
        .map_err(Error::host("print the report"))
}
