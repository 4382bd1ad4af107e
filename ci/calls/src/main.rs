//! `secovia-calls`: which rules of system calls do runs of `secovia-vmm` need?

mod error;
mod hits;
mod sys;
mod trace;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use lexopt::prelude::*;

use self::error::Error;
use self::hits::Hits;

const HELP: &str = "\
Which rules of vmm/seccomp/rules.json do tests need?

usage: secovia-calls watch --out FOLDER -- PROGRAM [ARGUMENT]...
       secovia-calls record FOLDER
       secovia-calls report [--recorded FILE] FOLDER

watch   becomes PROGRAM, while a child process watches the system calls of all its threads; every rule that one of them
        needed, on which kind of thread, is left in a file in FOLDER
record  prints what runs left in FOLDER, to be kept
report  prints every rule that neither a run in FOLDER nor FILE, which record made, shows to be needed; status 1 if
        there is one, or one in FILE that is no rule any more
";

/// What the child is started with; not for people.
const TRACE: &str = "trace";

fn main() -> ExitCode {
    match run() {
        Ok(status) => status,
        Err(error) => {
            eprintln!("secovia-calls: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<ExitCode, Error> {
    let mut parser = lexopt::Parser::from_env();
    let (mut out, mut recorded) = (None::<PathBuf>, None::<PathBuf>);
    let mut words: Vec<OsString> = Vec::new();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("out") => out = Some(parser.value()?.into()),
            Long("recorded") => recorded = Some(parser.value()?.into()),
            Long("help") | Short('h') => {
                print!("{HELP}");
                return Ok(ExitCode::SUCCESS);
            }
            Value(word) => words.push(word),
            other => return Err(other.unexpected().into()),
        }
    }
    let mut words = words.into_iter();
    let verb = words.next().ok_or(Error::Usage("no command"))?;
    let mut next = |what| words.next().ok_or(Error::Usage(what));
    match verb.to_str() {
        Some("watch") => {
            let program = next("watch needs a program")?;
            watch(&out.ok_or(Error::Usage("watch needs --out"))?, &program, words)
        }
        Some(TRACE) => {
            let pid = next("trace needs a process")?;
            let pid = pid.parse().map_err(|_| Error::Usage("that is no process"))?;
            trace::run(pid, &out.ok_or(Error::Usage("trace needs --out"))?)?;
            Ok(ExitCode::SUCCESS)
        }
        Some("record") => {
            print!("{}", Hits::of_folder(Path::new(&next("record needs a folder")?))?);
            Ok(ExitCode::SUCCESS)
        }
        Some("report") => {
            let runs = Hits::of_folder(Path::new(&next("report needs a folder")?))?;
            let recorded = recorded.map(|path| Hits::of_file(&path)).transpose()?;
            report(runs, recorded.unwrap_or_default())
        }
        _ => Err(Error::Usage("that is no command")),
    }
}

/// Becomes the program. Whoever started it waits for it, signals it and reads its output as if nobody watched.
fn watch(
    out: &Path,
    program: &OsString,
    arguments: impl Iterator<Item = OsString>,
) -> Result<ExitCode, Error> {
    let this = std::env::current_exe().map_err(Error::at("find", "this program"))?;
    let mut tracer = Command::new(this)
        .arg(TRACE)
        .arg("--out")
        .arg(out)
        .arg(std::process::id().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // A terminal's signals are not for it.
        .process_group(0)
        .spawn()
        .map_err(Error::at("start", "the process that watches"))?;
    // It says one byte when it is ready; none if it has failed, about which it has spoken.
    let mut ready = [0];
    let count = tracer
        .stdout
        .take()
        .map_or(Ok(0), |mut output| output.read(&mut ready));
    if count.map_err(Error::at("hear from", "the process that watches"))? == 0 {
        return Ok(ExitCode::from(2));
    }
    Err(Error::at("execute", program)(
        Command::new(program).args(arguments).exec(),
    ))
}

/// Says which rules nothing needs.
fn report(mut hits: Hits, recorded: Hits) -> Result<ExitCode, Error> {
    let rules = trace::rules()?;
    let mut good = true;
    let mut out = io::stdout().lock();
    let mut say = |line: String| writeln!(out, "{line}").map_err(Error::at("write to", "standard output"));
    for stale in recorded.that_are_none_of(&rules) {
        good = false;
        say(format!("recorded, but no rule any more: {stale}"))?;
    }
    hits.join(recorded);
    let mut count = 0;
    for rule in rules.all() {
        for list in rule.on() {
            count += 1;
            if !hits.have(*list, rule) {
                good = false;
                say(format!(
                    "never needed on {}: {} ({})",
                    list.name(),
                    rule.name(),
                    rule.why()
                ))?;
            }
        }
    }
    if good {
        say(format!(
            "all {} rules are needed, on each of their threads ({count})",
            rules.all().len()
        ))?;
    }
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
