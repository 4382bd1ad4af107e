//! From exec to the API's first answer.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::guest::Folder;
use super::job::{Error, Options};
use super::stats::Stats;

/// How many are timed, unless it is said.
const RUNS: usize = 200;
const GOAL_US: u64 = 1000;
/// A VMM that has not answered by then hangs.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Serialize)]
struct Report {
    runs: usize,
    /// Exec to a socket that takes connections.
    socket: Stats,
    /// Exec to the whole answer to `GET /`.
    ready: Stats,
    /// The same of the program that FIRECRACKER names.
    firecracker: Option<Stats>,
    met: bool,
}

/// Measures, and prints the report.
pub(super) fn run(options: &Options) -> Result<bool, Error> {
    let runs = options.runs.unwrap_or(RUNS);
    let folder = Folder::new("api")?;
    let socket = folder.path().join("api.sock");
    let peer = std::env::var_os("FIRECRACKER");
    let (mut laps, mut peers) = (Vec::new(), Vec::new());
    // The first of each only warms the caches.
    for run in 0..=runs {
        let own = lap(&options.vmm, &socket)?;
        let other = peer
            .as_ref()
            .map(|peer| lap(peer.as_ref(), &socket))
            .transpose()?;
        if run > 0 {
            laps.push(own);
            peers.extend(other);
        }
    }
    let (sockets, answers) = laps.into_iter().unzip();
    let (Some(socket), Some(ready)) = (Stats::of(sockets), Stats::of(answers)) else {
        return Ok(false);
    };
    let report = Report {
        runs,
        socket,
        ready,
        firecracker: Stats::of(peers.into_iter().map(|(_, answer)| answer).collect()),
        met: ready.median_us <= GOAL_US,
    };
    let text = if options.json {
        serde_json::to_string(&report)? + "\n"
    } else {
        table(&report)
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(Error::host("print the report"))?;
    Ok(report.met)
}

/// Exec to the socket, and to the answer.
fn lap(program: &Path, socket: &Path) -> Result<(Duration, Duration), Error> {
    let begin = Instant::now();
    let mut child = Command::new(program)
        .arg("--api-sock")
        .arg(socket)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(Error::host(format!("start {}", program.display())))?;
    let times = ask(&mut child, program, socket, begin);
    // It may be gone already; what matters is that it is.
    let _ = child.kill();
    let _ = child.wait();
    let _ = std::fs::remove_file(socket);
    times
}

fn ask(
    child: &mut Child,
    program: &Path,
    socket: &Path,
    begin: Instant,
) -> Result<(Duration, Duration), Error> {
    let misbehaved = |reason: String| Error::Program {
        program: super::guest::name(program),
        reason,
    };
    // Asking again at once costs a processor, which the VMM is not on; a sleep would count as the VMM's.
    let mut stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(_) if begin.elapsed() < LIMIT => {
                if let Ok(Some(status)) = child.try_wait() {
                    return Err(misbehaved(format!("{status} before it served its API")));
                }
            }
            Err(error) => return Err(Error::host("connect to the API's socket")(error)),
        }
    };
    let connected = begin.elapsed();
    stream
        .set_read_timeout(Some(LIMIT))
        .map_err(Error::host("limit the wait for an answer"))?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n")
        .map_err(Error::host("ask the API"))?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    // The answer's body is one JSON object without another one in it.
    while !answer.ends_with(b"}") {
        match stream
            .read(&mut buffer)
            .map_err(Error::host("read the API's answer"))?
        {
            0 => break,
            length => answer.extend_from_slice(&buffer[..length]),
        }
    }
    let answered = begin.elapsed();
    if answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"}") {
        Ok((connected, answered))
    } else {
        let text = String::from_utf8_lossy(&answer);
        Err(misbehaved(format!("it answered {text:?} to GET /")))
    }
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
    let mut text = line(
        &format!("microseconds, {} runs", report.runs),
        ["min", "median", "max"],
    );
    text += &row("secovia-vmm: exec to the API's socket", &report.socket);
    text += &row("secovia-vmm: exec to the answer to GET /", &report.ready);
    if let Some(firecracker) = &report.firecracker {
        text += &row("firecracker: exec to the answer to GET /", firecracker);
    }
    let met = if report.met { "met" } else { "missed" };
    text + &format!("goal (median at most {GOAL_US}): {met}\n")
}
