//! What an idle VMM holds beyond its guest's memory.

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

use secovia_stub_guests::IDLE;
use serde::Serialize;

use super::guest::{Files, MEMORY_MIB, name};
use super::job::{Error, Options};
use super::network::{TAP, make_tap};

/// What the stub guest prints before it halts.
const GREETING: &[u8] = b"ready\n";
const GOAL_KIB: u64 = 2560;

#[derive(Debug, Serialize)]
struct Report {
    /// Proportional set size of everything but guest memory.
    vmm_pss_kib: u64,
    /// Of it, what no other process shares.
    vmm_private_kib: u64,
    /// Proportional set size of guest memory.
    guest_pss_kib: u64,
    /// How many threads it has.
    threads: usize,
    /// It has a network interface beside its disk.
    network: bool,
    met: bool,
}

/// Runs the idle guest and looks at its process.
pub(super) fn run(options: &Options) -> Result<bool, Error> {
    let files = Files::new("memory", IDLE)?;
    let network = make_tap("memory")?;
    let arguments = match network {
        true => files.networked(TAP)?,
        false => files.arguments(),
    };
    let mut child = Command::new(&options.vmm)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(Error::host(format!("start {}", options.vmm.display())))?;
    let report = look(&mut child, &name(&options.vmm), network);
    let _ = child.kill();
    let _ = child.wait();
    let report = report?;

    let text = if options.json {
        serde_json::to_string(&report)? + "\n"
    } else {
        format!(
            "idle VMM with {} beyond guest memory: {} KiB PSS, of it {} private; {} threads; guest memory: {} KiB of {} MiB\n\
             goal (at most {GOAL_KIB} KiB): {}\n",
            if report.network {
                "disk and network interface"
            } else {
                "a disk"
            },
            report.vmm_pss_kib,
            report.vmm_private_kib,
            report.threads,
            report.guest_pss_kib,
            MEMORY_MIB,
            if report.met { "met" } else { "missed" }
        )
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(Error::host("print the report"))?;
    Ok(report.met)
}

fn look(child: &mut Child, program: &str, network: bool) -> Result<Report, Error> {
    let mut greeting = [0; GREETING.len()];
    let misbehaved = |reason: &str| Error::Program {
        program: program.into(),
        reason: reason.into(),
    };
    let output = child
        .stdout
        .as_mut()
        .ok_or_else(|| misbehaved("it has no output"))?;
    output
        .read_exact(&mut greeting)
        .map_err(Error::host("read the guest's output"))?;
    if greeting != GREETING {
        return Err(misbehaved("its guest is not the idle one"));
    }
    let read = |file: &str| {
        let path = format!("/proc/{}/{file}", child.id());
        fs::read_to_string(&path).map_err(Error::host(format!("read {path}")))
    };
    let maps = Mappings::parse(&read("smaps")?);
    if !maps.guest_found {
        return Err(misbehaved("no mapping has the size of guest memory"));
    }
    let threads = read("status")?
        .lines()
        .find_map(|line| line.strip_prefix("Threads:")?.trim().parse().ok())
        .unwrap_or(0);
    Ok(Report {
        vmm_pss_kib: maps.own_pss,
        vmm_private_kib: maps.own_private,
        guest_pss_kib: maps.guest_pss,
        threads,
        network,
        met: maps.own_pss <= GOAL_KIB,
    })
}

/// Sums over `/proc/PID/smaps`, in KiB.
#[derive(Debug, Default, PartialEq, Eq)]
struct Mappings {
    own_pss: u64,
    own_private: u64,
    guest_pss: u64,
    guest_found: bool,
}

/// Anonymous mappings without a gap between them (pieces of one that are treated differently), or one of another kind.
#[derive(Debug, Default)]
struct Run {
    end: u64,
    anonymous: bool,
    size: u64,
    pss: u64,
    private: u64,
}

impl Mappings {
    /// What has the size of the guest's memory is the guest's; all others are the VMM's own.
    fn parse(smaps: &str) -> Self {
        let mut runs: Vec<Run> = Vec::new();
        for line in smaps.lines() {
            let mut words = line.split_whitespace();
            let Some(first) = words.next() else { continue };
            if let Some((start, end)) = range(first) {
                // Permissions, offset, device, inode, and the name where there is one.
                let anonymous = words.next() == Some("rw-p") && words.nth(3).is_none();
                match runs.last_mut() {
                    Some(last) if anonymous && last.anonymous && last.end == start => last.end = end,
                    _ => runs.push(Run {
                        end,
                        anonymous,
                        ..Run::default()
                    }),
                }
            } else if let (Some(run), Some(Ok(value))) =
                (runs.last_mut(), words.next().map(str::parse::<u64>))
            {
                match first {
                    "Size:" => run.size += value,
                    "Pss:" => run.pss += value,
                    "Private_Clean:" | "Private_Dirty:" => run.private += value,
                    _ => {}
                }
            }
        }
        let mut sums = Self::default();
        for run in runs {
            if run.size == MEMORY_MIB << 10 {
                sums.guest_found = true;
                sums.guest_pss += run.pss;
            } else {
                sums.own_pss += run.pss;
                sums.own_private += run.private;
            }
        }
        sums
    }
}

/// Start and end of a mapping, as a line of its own gives them.
fn range(word: &str) -> Option<(u64, u64)> {
    let (start, end) = word.split_once('-')?;
    Some((
        u64::from_str_radix(start, 16).ok()?,
        u64::from_str_radix(end, 16).ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_memory_is_told_from_the_rest() {
        let smaps = "7f0000000000-7f0000200000 rw-p 00000000 00:00 0 \nSize: 2048 kB\nPss: 36 kB\nPrivate_Dirty: 36 kB\n\
                     7f0000200000-7f0008000000 rw-p 00000000 00:00 0 \nSize: 129024 kB\nPss: 4 kB\nPrivate_Dirty: 4 kB\n\
                     7f0008000000-7f0008001000 ---p 00000000 00:00 0 \nSize: 4 kB\nPss: 0 kB\n\
                     7f0008001000-7f0008002000 rw-p 00000000 00:00 0 [stack]\nSize: 4 kB\nPss: 4 kB\nPrivate_Dirty: 4 kB\n\
                     5500-5510 r-xp 00000000 08:01 7 /vmm\nSize: 1024 kB\nPss: 300 kB\nPrivate_Clean: 100 kB\n";
        let expected = Mappings {
            own_pss: 304,
            own_private: 104,
            guest_pss: 40,
            guest_found: true,
        };
        assert_eq!(Mappings::parse(smaps), expected);
    }
}
