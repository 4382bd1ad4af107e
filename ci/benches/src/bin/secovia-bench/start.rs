//! From exec to the first serial byte, and from the guest's reset to the process's end.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitOptions, geteuid, waitpid};
use secovia_stub_guests::HELLO;
use secovia_vmm_api::Exit;
use serde::Serialize;

use super::guest::{Files, Jail, MEMORY_MIB, name};
use super::job::{Error, Options};
use super::stats::Stats;

/// What the stub guest prints before it resets.
const GREETING: &[u8] = b"stub\n";
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
    /// The VMM in a jail, from the jailer's exec on; only root can have one.
    jailed: Option<Figures>,
    yardstick: Figures,
    /// Of the medians: the VMM to the yardstick.
    ratio: f64,
    /// Of the medians: what jail and filters add.
    jail_us: Option<i64>,
    met: bool,
}

/// One of the programs that are measured.
struct Subject<'a> {
    program: &'a Path,
    arguments: Vec<OsString>,
    jail: Option<&'a Jail>,
    laps: Vec<(Duration, Duration)>,
}

/// Measures all programs in turn, so that a busy moment meets all.
pub(super) fn run(options: &Options) -> Result<bool, Error> {
    let files = Files::new(HELLO)?;
    let jail = files.jail(&options.vmm)?;
    let subject = |program, arguments, jail| Subject {
        program,
        arguments,
        jail,
        laps: Vec::new(),
    };
    let mut bare = files.arguments();
    bare.extend(["--no-seccomp", "--no-landlock"].map(OsString::from));
    let mut subjects = vec![
        subject(&options.vmm, files.arguments(), None),
        subject(&options.yardstick, Vec::new(), None),
        subject(&options.vmm, bare, None),
    ];
    if geteuid().is_root() {
        subjects.push(subject(&options.jailer, jail.arguments(), Some(&jail)));
    } else {
        eprintln!("secovia-bench: start: no figures of a jailed machine, since only root can make a jail");
    }
    // The first of each only warms the caches.
    for run in 0..=options.runs {
        for subject in &mut subjects {
            let lap = lap(subject)?;
            if run > 0 {
                subject.laps.push(lap);
            }
        }
    }

    let mut figures = subjects.into_iter().map(|subject| figures(subject.laps));
    let (Some(Some(vmm)), Some(Some(yardstick)), Some(Some(bare))) =
        (figures.next(), figures.next(), figures.next())
    else {
        return Ok(false);
    };
    let jailed = figures.next().flatten();
    let median = |figures: &Figures| i64::try_from(figures.start.median_us).unwrap_or(i64::MAX);
    let jail_us = jailed.as_ref().map(|jailed| median(jailed) - median(&bare));
    let ratio = vmm.start.median_us as f64 / yardstick.start.median_us.max(1) as f64;
    let met = vmm.start.median_us <= START_GOAL_US
        && ratio <= START_GOAL_RATIO
        && vmm.gone.median_us <= GONE_GOAL_US
        && jail_us.is_none_or(|us| us <= JAIL_GOAL_US);
    let report = Report {
        memory_mib: MEMORY_MIB,
        runs: options.runs,
        vmm,
        bare,
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
    let mut command = Command::new(subject.program);
    command
        .args(&subject.arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let begin = Instant::now();
    let mut child = command
        .spawn()
        .map_err(Error::host(format!("start {}", subject.program.display())))?;
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
    let status = end(&mut child, subject)?;
    let gone = last.elapsed();
    if let Some(jail) = subject.jail {
        jail.remove()?;
    }
    match first {
        Some(first) if seen == GREETING && status == Some(Exit::GuestReset.code().into()) => {
            Ok((first, gone))
        }
        _ => Err(misbehaved(
            subject,
            format!(
                "status {status:?} after printing {:?}",
                String::from_utf8_lossy(&seen)
            ),
        )),
    }
}

/// Waits for the end of the machine's process; its status.
fn end(child: &mut Child, subject: &Subject) -> Result<Option<i32>, Error> {
    let wait = || format!("wait for {}", subject.program.display());
    let status = child.wait().map_err(Error::host(wait()))?;
    match subject.jail {
        None => Ok(status.code()),
        // The jailer is gone; the machine is this program's own child.
        Some(jail) if status.success() => {
            let machine = waitpid(Pid::from_raw(jail.process()?), WaitOptions::empty());
            let machine = machine.map_err(|error| Error::host(wait())(error.into()))?;
            Ok(machine.and_then(|(_, status)| status.exit_status()))
        }
        Some(_) => Err(misbehaved(subject, status.to_string())),
    }
}

fn misbehaved(subject: &Subject, reason: String) -> Error {
    Error::Program {
        program: name(subject.program),
        reason,
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
