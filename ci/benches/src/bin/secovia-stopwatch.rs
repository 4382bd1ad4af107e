//! Times a program from its start to a mark on its output, and from there to its end.
//!
//! `secovia-stopwatch --mark BYTE --runs N [--status CODE] [--limit SECONDS] -- PROGRAM ARGUMENT...` prints one line of
//! JSON for each run: `{"mark_ns":..,"gone_ns":..}`: nanoseconds from just before the program's start to the first
//! occurrence of the byte on its standard output, and from there to the end of the process. The clock is the monotonic
//! one, so that in a machine whose clock counts instructions the figures are counts.
//!
//! A run that ends without the mark, or with another status than `--status`, is a failure, never a figure.

use std::io::{self, Read, Write};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

const HELP: &str =
    "usage: secovia-stopwatch --mark BYTE --runs N [--status CODE] [--limit SECONDS] -- PROGRAM ARGUMENT...";

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0} (see --help)")]
    Usage(#[from] lexopt::Error),
    #[error("cannot start {program}: {source}")]
    Start { program: String, source: io::Error },
    #[error("cannot read the output of {program}: {source}")]
    Output { program: String, source: io::Error },
    #[error("cannot wait for {program}: {source}")]
    Wait { program: String, source: io::Error },
    #[error("{program} ended with {status} before the mark; its output began with {output:?}")]
    NoMark {
        program: String,
        status: ExitStatus,
        output: String,
    },
    #[error("{program} ended with {status} where status {wanted} was asked for")]
    Status {
        program: String,
        status: ExitStatus,
        wanted: i32,
    },
    #[error("{program} was not done after {limit:?}; its output began with {output:?}")]
    TooLong {
        program: String,
        limit: Duration,
        output: String,
    },
}

/// What to time, and how often.
#[derive(Debug)]
struct Job {
    mark: u8,
    runs: u32,
    /// The status that a good run ends with; any where it is not given.
    status: Option<i32>,
    limit: Duration,
    program: String,
    arguments: Vec<std::ffi::OsString>,
}

/// One run.
#[derive(Debug, Serialize)]
struct Lap {
    mark_ns: u64,
    gone_ns: u64,
}

fn parse() -> Result<Option<Job>, lexopt::Error> {
    use lexopt::prelude::*;
    let (mut mark, mut runs, mut status, mut limit) = (None, 1, None, 300);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("mark") => mark = Some(parser.value()?.parse()?),
            Long("runs") => runs = parser.value()?.parse()?,
            Long("status") => status = Some(parser.value()?.parse()?),
            Long("limit") => limit = parser.value()?.parse()?,
            Long("help") | Short('h') => return Ok(None),
            Value(program) => {
                return Ok(Some(Job {
                    mark: mark.ok_or("--mark is missing")?,
                    runs,
                    status,
                    limit: Duration::from_secs(limit),
                    program: program.string()?,
                    arguments: parser.raw_args()?.collect(),
                }));
            }
            other => return Err(other.unexpected()),
        }
    }
    Err("no program given".into())
}

/// What the reader of the output saw.
enum Seen {
    Mark(Instant),
    Failed(io::Error),
}

/// Reads to the end; sends the time of the mark's first occurrence. Gives back how the output began.
fn watch(mut output: impl Read, mark: u8, seen: &mpsc::Sender<Seen>) -> Vec<u8> {
    let (mut buffer, mut head, mut found) = ([0; 4096], Vec::new(), false);
    loop {
        match output.read(&mut buffer) {
            Ok(0) => return head,
            Ok(length) => {
                let now = Instant::now();
                let bytes = buffer.get(..length).unwrap_or_default();
                if !found && bytes.contains(&mark) {
                    found = true;
                    // The receiver may have given up on this run.
                    let _ = seen.send(Seen::Mark(now));
                }
                head.extend(bytes.iter().take(2000_usize.saturating_sub(head.len())));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let _ = seen.send(Seen::Failed(error));
                return head;
            }
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits for the end, but not for ever: a run that hangs is killed.
fn wait(child: &mut Child, job: &Job, start: Instant) -> Result<Option<(ExitStatus, Instant)>, Error> {
    let failed = |source| Error::Wait {
        program: job.program.clone(),
        source,
    };
    // A thread that sleeps would cost nothing that is counted, but would race with the wait for the process; asking
    // every so often costs instructions. Wait blocking, and let a watchdog kill what takes too long.
    let identifier = child.id().to_string();
    let (done, over) = mpsc::channel::<()>();
    let limit = job.limit.saturating_sub(start.elapsed());
    let watchdog = thread::spawn(move || {
        if over.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            // The process is not waited for yet, so its identifier cannot be another's.
            let _ = Command::new("kill").args(["-KILL", &identifier]).status();
            return true;
        }
        false
    });
    let status = child.wait().map_err(failed)?;
    let now = Instant::now();
    drop(done);
    let killed = watchdog.join().unwrap_or(false);
    Ok((!killed).then_some((status, now)))
}

fn lap(job: &Job) -> Result<Lap, Error> {
    let mut command = Command::new(&job.program);
    command
        .args(&job.arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn().map_err(|source| Error::Start {
        program: job.program.clone(),
        source,
    })?;
    let (sender, seen) = mpsc::channel();
    let (mark, output) = (job.mark, child.stdout.take());
    let reader = thread::spawn(move || {
        output
            .map(|output| watch(output, mark, &sender))
            .unwrap_or_default()
    });
    let end = wait(&mut child, job, start)?;
    let head = reader.join().unwrap_or_default();
    let Some((status, end)) = end else {
        return Err(Error::TooLong {
            program: job.program.clone(),
            limit: job.limit,
            output: text(&head),
        });
    };
    let at = match seen.try_recv() {
        Ok(Seen::Mark(at)) => at,
        Ok(Seen::Failed(source)) => {
            return Err(Error::Output {
                program: job.program.clone(),
                source,
            });
        }
        Err(_) => {
            return Err(Error::NoMark {
                program: job.program.clone(),
                status,
                output: text(&head),
            });
        }
    };
    if let Some(wanted) = job.status
        && status.code() != Some(wanted)
    {
        return Err(Error::Status {
            program: job.program.clone(),
            status,
            wanted,
        });
    }
    let nanoseconds = |from: Instant, to: Instant| u64::try_from((to - from).as_nanos()).unwrap_or(u64::MAX);
    Ok(Lap {
        mark_ns: nanoseconds(start, at),
        gone_ns: nanoseconds(at, end),
    })
}

fn run() -> Result<(), Error> {
    let Some(job) = parse()? else {
        println!("{HELP}");
        return Ok(());
    };
    for _ in 0..job.runs {
        let lap = lap(&job)?;
        // Integers alone: serialising cannot fail.
        println!("{}", serde_json::json!(lap));
        let _ = io::stdout().flush();
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Usage(error)) => {
            eprintln!("secovia-stopwatch: {error}\n{HELP}");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("secovia-stopwatch: {error}");
            ExitCode::FAILURE
        }
    }
}
