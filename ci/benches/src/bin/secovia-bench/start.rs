//! From exec to the first serial byte, and from the guest's reset to the process's end.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use rustix::process::geteuid;
use secovia_stub_guests::HELLO;
use secovia_vmm_api::Exit;
use serde::Serialize;

use super::guest::{Files, MEMORY_MIB};
use super::job::{Error, Options};
use super::network::{TAP, make_tap};
use super::stats::Stats;
use super::subject::Subject;

/// What the stub guest prints before it resets.
const GREETING: &[u8] = b"stub\n";
/// How many of each are timed, unless it is said.
const RUNS: usize = 20;
const START_GOAL_US: u64 = 1500;
const START_GOAL_RATIO: f64 = 2.0;
const GONE_GOAL_US: u64 = 2000;
/// What jail and filters may add to a start.
const JAIL_GOAL_US: i64 = 3000;

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
    /// The VMM without filters of system calls and without Landlock.
    bare: Figures,
    /// The VMM with a network interface beside its disk; only root can make a tap.
    networked: Option<Figures>,
    /// The VMM in a jail, from the jailer's exec on; only root can have one.
    jailed: Option<Figures>,
    yardstick: Figures,
    /// Of the medians: the VMM to the yardstick.
    ratio: f64,
    /// Of the medians: what jail and filters add.
    jail_us: Option<i64>,
    met: bool,
}

/// Measures all programs in turn, so that a busy moment meets all.
pub(super) fn run(options: &Options) -> Result<bool, Error> {
    let runs = options.runs.unwrap_or(RUNS);
    let files = Files::new("start", HELLO)?;
    let jail = files.jail(&options.vmm)?;
    let network = make_tap("start")?;
    let mut subjects = vec![
        Subject::new(&options.vmm, files.arguments()),
        Subject::new(&options.yardstick, Vec::new()),
        Subject::new(&options.vmm, files.unfiltered()),
    ];
    if network {
        subjects.push(Subject::new(&options.vmm, files.networked(TAP)?));
    }
    if geteuid().is_root() {
        subjects.push(Subject::jailed(&options.jailer, &jail));
    } else {
        eprintln!("secovia-bench: start: no figures of a jailed machine, since only root can make a jail");
    }
    let mut laps: Vec<Vec<_>> = subjects.iter().map(|_| Vec::new()).collect();
    // The first of each only warms the caches.
    for run in 0..=runs {
        for (subject, laps) in subjects.iter().zip(&mut laps) {
            let lap = lap(subject)?;
            if run > 0 {
                laps.push(lap);
            }
        }
    }

    let mut figures = laps.into_iter().map(figures);
    let (Some(Some(vmm)), Some(Some(yardstick)), Some(Some(bare))) =
        (figures.next(), figures.next(), figures.next())
    else {
        return Ok(false);
    };
    let networked = if network { figures.next().flatten() } else { None };
    let jailed = figures.next().flatten();
    let median = |figures: &Figures| i64::try_from(figures.start.median_us).unwrap_or(i64::MAX);
    let jail_us = jailed.as_ref().map(|jailed| median(jailed) - median(&bare));
    let ratio = vmm.start.median_us as f64 / yardstick.start.median_us.max(1) as f64;
    let full = networked.as_ref().unwrap_or(&vmm);
    let met = full.start.median_us <= START_GOAL_US
        && ratio <= START_GOAL_RATIO
        && vmm.gone.median_us <= GONE_GOAL_US
        && jail_us.is_none_or(|us| us <= JAIL_GOAL_US);
    let report = Report {
        memory_mib: MEMORY_MIB,
        runs,
        vmm,
        bare,
        networked,
        jailed,
        yardstick,
        ratio: (ratio * 100.0).round() / 100.0,
        jail_us,
        met,
    };
    print(&report, options.json)?;
    Ok(met)
}

/// Start and end of one run.
fn lap(subject: &Subject) -> Result<(Duration, Duration), Error> {
    let mut command = subject.command();
    let begin = Instant::now();
    let mut child = subject.spawn(&mut command)?;
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
    let status = subject.end(&mut child)?;
    let gone = last.elapsed();
    subject.clear()?;
    match first {
        Some(first) if seen == GREETING && status == Some(Exit::GuestReset.code().into()) => {
            Ok((first, gone))
        }
        _ => Err(subject.misbehaved(format!(
            "status {status:?} after printing {:?}",
            String::from_utf8_lossy(&seen)
        ))),
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
    let text = if json {
        serde_json::to_string(report)? + "\n"
    } else {
        table(report)
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(Error::host("print the report"))
}

fn table(report: &Report) -> String {
    let line = |label: &str, cells: [&str; 3]| {
        let [min, median, max] = cells;
        format!("{label:<48} {min:>8} {median:>8} {max:>8}\n")
    };
    let row = |label: &str, stats: &Stats| {
        let cells = [stats.min_us, stats.median_us, stats.max_us].map(|us| us.to_string());
        line(label, cells.each_ref().map(String::as_str))
    };
    let subjects = [
        ("secovia-vmm", Some(&report.vmm)),
        ("secovia-vmm, no filters", Some(&report.bare)),
        ("secovia-vmm with network", report.networked.as_ref()),
        ("secovia-jailer", report.jailed.as_ref()),
        ("yardstick", Some(&report.yardstick)),
    ];
    let subjects: Vec<_> = subjects
        .into_iter()
        .filter_map(|(name, figures)| Some((name, figures?)))
        .collect();
    let mut text = line(
        &format!("microseconds, {} runs", report.runs),
        ["min", "median", "max"],
    );
    for (name, figures) in &subjects {
        text += &row(&format!("{name}: exec to first serial byte"), &figures.start);
    }
    for (name, figures) in &subjects {
        text += &row(&format!("{name}: guest's reset to gone"), &figures.gone);
    }
    let jail = report.jail_us.map(|us| format!(", {us} for jail and filters"));
    text + &format!(
        "{:.2} of the yardstick{}; goals ({START_GOAL_US} and {START_GOAL_RATIO:.2} times, gone in {GONE_GOAL_US}, \
         {JAIL_GOAL_US} for jail and filters): {}\n",
        report.ratio,
        jail.unwrap_or_default(),
        if report.met { "met" } else { "missed" }
    )
}
