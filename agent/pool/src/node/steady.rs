//! When the node shows another amount: less at once, more only when it has been there for a while. Pure.
//!
//! The scheduler places what fits into what is shown. To show too much for a moment makes it place Pods that are then
//! rejected; to follow every rise makes it place Pods that the next fall would not have room for. Amounts that hardly
//! change are shown seldom: each change is a write that the whole region reads.

#[cfg(test)]
mod tests;

use secovia_agent_api::Amounts;

/// More is shown when it was there for so long.
pub const HOLD_MS: u64 = 60_000;

/// What hardly matters is shown no more often than this.
pub const QUIET_MS: u64 = 10_000;

/// A fall by less than this part of what is shown hardly matters.
const SLACK: u64 = 64;

/// Decides what is shown.
#[derive(Debug, Clone, Default)]
pub struct Steady {
    /// For CPU, memory and disk.
    lines: [Line; 3],
    /// When anything was last shown, and whether the node was closed then.
    last: Option<(u64, bool)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Line {
    shown: u64,
    /// Since when more is there, and the least that was there since.
    rise: Option<(u64, u64)>,
}

impl Line {
    /// What is to be shown, at the next occasion. A rise that is `free` waits for nothing.
    fn look(&mut self, now_ms: u64, offered: u64, free: bool) -> u64 {
        if free || offered <= self.shown {
            self.rise = None;
            return offered;
        }
        let (since_ms, least) = self.rise.unwrap_or((now_ms, offered));
        let least = least.min(offered);
        self.rise = Some((since_ms, least));
        let held = now_ms.saturating_sub(since_ms) >= HOLD_MS;
        if held { least } else { self.shown }
    }
}

impl Steady {
    /// What is to be shown from now on, where that changes. `now_ms` never goes back. A node that is closed, or was up to
    /// now, has taken nothing in, so that there is nothing to be careful about.
    pub fn look(&mut self, now_ms: u64, offered: Amounts, closed: bool) -> Option<Amounts> {
        let free = closed || self.last.is_none_or(|(_, before)| before);
        let [cpu, memory, disk] = &mut self.lines;
        let wanted = [
            cpu.look(now_ms, offered.cpu_millis, free),
            memory.look(now_ms, offered.memory_bytes, free),
            disk.look(now_ms, offered.disk_bytes, free),
        ];
        let lines = self.lines.iter().zip(wanted);
        let changed = lines.clone().any(|(line, wanted)| line.shown != wanted);
        let fell = lines.clone().any(|(line, wanted)| {
            wanted < line.shown && (wanted == 0 || line.shown - wanted > line.shown / SLACK)
        });
        let due = match self.last {
            None => true,
            Some((_, before)) if before != closed => true,
            Some((shown_ms, _)) => changed && (fell || now_ms.saturating_sub(shown_ms) >= QUIET_MS),
        };
        if !due {
            return None;
        }
        self.last = Some((now_ms, closed));
        for (line, wanted) in self.lines.iter_mut().zip(wanted) {
            if line.shown != wanted {
                *line = Line {
                    shown: wanted,
                    rise: None,
                };
            }
        }
        Some(self.shown())
    }

    /// What is shown.
    pub fn shown(&self) -> Amounts {
        let [cpu, memory, disk] = self.lines.map(|line| line.shown);
        Amounts {
            cpu_millis: cpu,
            memory_bytes: memory,
            disk_bytes: disk,
        }
    }
}
