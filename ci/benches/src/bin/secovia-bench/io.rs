//! Processor time of one disk request, with filters and jail and without.
//!
//! What filters cost is far less than what a busy host does to any two figures. So the machines that are held against
//! each other live at the same time and take turns, round by round of a few milliseconds, and what counts is the
//! difference within a round, on one processor. One more machine without filters tells what that difference is where
//! there is none.

mod report;

use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use rustix::process::geteuid;
use secovia_stub_guests::{DISK_ROUND, DISK_ROUNDS};
use secovia_vmm_api::Exit;

use self::report::{Report, Run};
use super::guest::Files;
use super::job::{Error, Options};
use super::processors::Processors;
use super::subject::Subject;

/// What the stub guest prints after each round of requests.
const READY: &[u8] = b"ready\n";
/// What it begins another round at.
const AGAIN: &[u8] = b"\n";
/// What it ends at.
const END: &[u8] = b"q";
/// How many sets of machines are timed, unless it is said.
const RUNS: usize = 10;
/// How many rounds of each.
const ROUNDS: usize = 100;
/// After its last round a machine is asleep by then.
const ASLEEP: Duration = Duration::from_millis(2);

/// Measures, and prints the report.
pub(super) fn run(options: &Options) -> Result<bool, Error> {
    let runs = options.runs.unwrap_or(RUNS);
    // Each has a disk of its own: a disk has one machine.
    let files = ["bare", "equal", "filtered", "jailed"].map(|name| Files::new(name, DISK_ROUNDS));
    let [bare, equal, filtered, jailed] = files;
    let (bare, equal, filtered, jailed) = (bare?, equal?, filtered?, jailed?);
    let jail = jailed.jail(&options.vmm)?;
    let mut subjects = vec![
        Subject::new(&options.vmm, bare.unfiltered()),
        Subject::new(&options.vmm, equal.unfiltered()),
        Subject::new(&options.vmm, filtered.arguments()),
    ];
    if geteuid().is_root() {
        subjects.push(Subject::jailed(&options.jailer, &jail));
    } else {
        eprintln!("secovia-bench: io: no figures of a jailed machine, since only root can make a jail");
    }
    let processors = Processors::divide()?;
    let mut measured = Vec::with_capacity(runs);
    for _ in 0..runs {
        measured.push(one_run(&subjects, &processors)?);
    }
    let Some(report) = Report::of(&measured, DISK_ROUND) else {
        return Ok(false);
    };
    let text = if options.json {
        serde_json::to_string(&report)? + "\n"
    } else {
        report.table()
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(Error::host("print the report"))?;
    Ok(report.met)
}

/// One machine of each kind, in turn.
fn one_run(subjects: &[Subject], processors: &Processors) -> Result<Run, Error> {
    let mut machines = Vec::with_capacity(subjects.len());
    for subject in subjects {
        machines.push(processors.start(|| Machine::start(subject))?);
    }
    for round in 0..ROUNDS {
        // Each is as often the first as the last of a round: none has always the same one before it.
        let first = round % machines.len().max(1);
        let (after, before) = machines.split_at_mut(first);
        for machine in before.iter_mut().chain(after) {
            machine.round()?;
        }
    }
    machines.into_iter().map(Machine::end).collect()
}

/// A machine that sleeps until it is its turn.
struct Machine<'a> {
    subject: &'a Subject<'a>,
    child: Child,
    /// Processor time at the begin of each of its rounds.
    clock: Vec<Duration>,
    over: bool,
}

impl<'a> Machine<'a> {
    /// The first round warms the caches.
    fn start(subject: &'a Subject<'a>) -> Result<Self, Error> {
        let mut command = subject.command();
        let child = subject.spawn(command.stdin(Stdio::piped()))?;
        let mut machine = Self {
            subject,
            child,
            clock: Vec::with_capacity(ROUNDS + 1),
            over: false,
        };
        machine.wait_until_ready()?;
        Ok(machine)
    }

    fn round(&mut self) -> Result<(), Error> {
        self.look_at_clock()?;
        self.type_in(AGAIN)?;
        self.wait_until_ready()
    }

    /// Ends it; processor time of each of its rounds.
    fn end(mut self) -> Result<Vec<Duration>, Error> {
        thread::sleep(ASLEEP);
        self.look_at_clock()?;
        self.type_in(END)?;
        let status = self.subject.end(&mut self.child)?;
        self.over = true;
        self.subject.clear()?;
        if status != Some(Exit::GuestReset.code().into()) {
            let reason = format!("status {status:?} at the guest's reset");
            return Err(self.subject.misbehaved(reason));
        }
        let rounds = self.clock.windows(2);
        Ok(rounds
            .filter_map(|round| round.last()?.checked_sub(*round.first()?))
            .collect())
    }

    /// What all its threads have had of the processors. Of a thread that runs at this moment the kernel tells it as it was
    /// at the last tick, of one that sleeps to the nanosecond: so it is asked as late as can be, before the next round.
    fn look_at_clock(&mut self) -> Result<(), Error> {
        let process = Pid::from_raw(self.subject.process(&self.child)?);
        let time = clock_getcpuclockid(process).and_then(ClockId::now);
        let time = time.map_err(|error| Error::host("read the machine's processor time")(error.into()))?;
        self.clock.push(time.into());
        Ok(())
    }

    fn wait_until_ready(&mut self) -> Result<(), Error> {
        let mut seen = [0; READY.len()];
        let output = self.child.stdout.as_mut();
        output
            .ok_or_else(|| self.subject.misbehaved("it has no output"))?
            .read_exact(&mut seen)
            .map_err(Error::host(
                "read the guest's output: a request or the machine failed",
            ))?;
        if seen == READY {
            Ok(())
        } else {
            Err(self
                .subject
                .misbehaved("its guest is not the one that reads in rounds"))
        }
    }

    fn type_in(&mut self, text: &[u8]) -> Result<(), Error> {
        let input = self.child.stdin.as_mut();
        input
            .ok_or_else(|| self.subject.misbehaved("it has no input"))?
            .write_all(text)
            .map_err(Error::host("type on the guest's console"))
    }
}

impl Drop for Machine<'_> {
    /// After a failure: left alone, it would wait for ever.
    fn drop(&mut self) {
        if !self.over {
            self.subject.kill(&mut self.child);
            let _ = self.subject.clear();
        }
    }
}
