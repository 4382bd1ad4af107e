//! What a process uses, from `/proc`: what everybody may read there of a process that is another user's.

use std::fs;
use std::io;

/// What a VM has used since it started, and holds now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of all its threads.
    pub cpu_us: u64,
    /// Memory of its own.
    pub memory_bytes: u64,
    /// Read from disks; 0 where the host does not count it (it has no control groups).
    pub read_bytes: u64,
    /// Written to disks; as above.
    pub written_bytes: u64,
}

impl Usage {
    /// What the process `pid` uses. Fails where it is gone.
    pub fn of(pid: u32) -> io::Result<Self> {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
        let ticks_per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)
            .ok()
            .flatten()
            .and_then(|ticks| u64::try_from(ticks).ok())
            .filter(|ticks| *ticks > 0)
            .unwrap_or(100);
        let ticks = cpu_ticks(&read("stat")?).ok_or(io::ErrorKind::InvalidData)?;
        let memory = read("status").unwrap_or_default();
        Ok(Self {
            cpu_us: ticks.saturating_mul(1_000_000 / ticks_per_second),
            memory_bytes: field(&memory, "VmRSS:").unwrap_or(0).saturating_mul(1024),
            read_bytes: 0,
            written_bytes: 0,
        })
    }
}

/// Ticks of user and system time, fields 14 and 15 of proc_pid_stat(5); the second field may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user.saturating_add(system))
}

fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "7 (a) b ( c) S 1 7 7 0 -1 4194560 100 0 0 0 120 45 0 0 20 0 3 0 12 34 56";
        assert_eq!(cpu_ticks(stat), Some(165));
        assert_eq!(cpu_ticks("7 (a"), None);
        assert_eq!(field("VmHWM:  1 kB\nVmRSS:      12 kB\n", "VmRSS:"), Some(12));
    }

    #[test]
    fn this_process_uses_something() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.memory_bytes > 100_000, "{usage:?}");
        assert!(Usage::of(u32::MAX >> 1).is_err());
    }
}
