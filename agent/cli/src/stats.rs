//! `stats`: what microVMs use, from two looks at them. The arithmetic is pure and serves `top` too.

#[cfg(test)]
pub(crate) mod tests;

use std::time::Duration;

use secovia_agent_api::client::Client;
use secovia_agent_api::{VmState, VmStats};
use serde::Serialize;

use crate::args::StatsArgs;
use crate::failure::Failure;
use crate::output::{Table, human, print, print_json};

/// Between two looks: long enough for a CPU share of 1%, short enough to wait for.
const INTERVAL: Duration = Duration::from_millis(500);

/// What a microVM used between two looks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Usage {
    /// The figures of the second look.
    #[serde(flatten)]
    pub now: VmStats,
    /// CPU time over time, in percent: 100 is one CPU fully used.
    pub cpu_percent: f64,
    /// Bytes a second from the host's disks.
    pub read_bytes_per_s: u64,
    /// Bytes a second to them.
    pub written_bytes_per_s: u64,
}

/// The differences between two looks; zero where there is no first, or the microVM was started in between.
pub(crate) fn usage(before: Option<&VmStats>, now: &VmStats) -> Usage {
    let mut usage = Usage {
        now: now.clone(),
        cpu_percent: 0.0,
        read_bytes_per_s: 0,
        written_bytes_per_s: 0,
    };
    let Some(before) = before.filter(|before| before.cpu_time_us <= now.cpu_time_us) else {
        return usage;
    };
    let elapsed_ms = now.at_ms.saturating_sub(before.at_ms);
    if elapsed_ms == 0 {
        return usage;
    }
    let rate = |before: u64, now: u64| now.saturating_sub(before).saturating_mul(1000) / elapsed_ms;
    usage.cpu_percent = (now.cpu_time_us - before.cpu_time_us) as f64 / (elapsed_ms as f64 * 10.0);
    usage.read_bytes_per_s = rate(before.read_bytes, now.read_bytes);
    usage.written_bytes_per_s = rate(before.written_bytes, now.written_bytes);
    usage
}

/// What is used by those that run now, one look. One that ends meanwhile is left out.
pub(crate) async fn look(client: &Client) -> Result<Vec<VmStats>, Failure> {
    let vms = client.list_vms(false).await.map_err(Failure::agent("stats"))?;
    let mut stats = Vec::new();
    for vm in vms {
        match vm.state {
            VmState::Running | VmState::Stopping => {
                if let Ok(one) = client.vm_stats(&vm.id).await {
                    stats.push(one);
                }
            }
            VmState::Created
            | VmState::Starting
            | VmState::Exited { .. }
            | VmState::Failed { .. }
            | VmState::BackOff { .. } => {}
        }
    }
    Ok(stats)
}

/// `secovia stats`.
pub(crate) async fn stats(client: &Client, args: StatsArgs) -> Result<u8, Failure> {
    let before = figures(client, &args.names).await?;
    if !before.is_empty() {
        tokio::time::sleep(INTERVAL).await;
    }
    let now = figures(client, &args.names).await?;
    let usages = pair(&before, &now);
    if args.json {
        print_json(&usages)?;
    } else {
        print(&listing(&usages))?;
    }
    Ok(0)
}

async fn figures(client: &Client, names: &[String]) -> Result<Vec<VmStats>, Failure> {
    if names.is_empty() {
        return look(client).await;
    }
    let mut stats = Vec::new();
    for name in names {
        let one = client.vm_stats(name).await;
        stats.push(one.map_err(Failure::agent(format!("stats {name}")))?);
    }
    Ok(stats)
}

/// Each microVM of the second look with its figures of the first.
pub(crate) fn pair(before: &[VmStats], now: &[VmStats]) -> Vec<Usage> {
    now.iter()
        .map(|now| usage(before.iter().find(|before| before.id == now.id), now))
        .collect()
}

/// The headings of [`cells`].
pub(crate) const HEADINGS: [&str; 6] = ["NAME", "CPU", "MEMORY", "READ/S", "WRITTEN/S", "UP"];

/// A row for people.
pub(crate) fn cells(usage: &Usage) -> [String; 6] {
    [
        usage.now.name.clone(),
        format!("{:.1}%", usage.cpu_percent),
        format!(
            "{} of {}",
            human::bytes(usage.now.memory_bytes),
            human::bytes(usage.now.memory_limit_bytes)
        ),
        human::bytes(usage.read_bytes_per_s),
        human::bytes(usage.written_bytes_per_s),
        human::seconds(usage.now.uptime_s),
    ]
}

fn listing(usages: &[Usage]) -> String {
    let mut table = Table::new(HEADINGS);
    for usage in usages {
        table.row(cells(usage));
    }
    table.render()
}
