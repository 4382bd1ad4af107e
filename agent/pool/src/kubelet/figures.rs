//! What the node's Pods use, in the words in which a kubelet tells it: pure.
//!
//! What the owner himself uses is nobody's business in the region: the node's own figures are the sum of its Pods'.
//!
//! Source: "Node metrics data" and "Resource metrics" in Kubernetes' documentation; the Prometheus text format.

use std::collections::BTreeMap;
use std::fmt::Write;

use k8s_openapi::jiff::Timestamp;
use secovia_agent_api::{Vm, VmStats};
use serde_json::{Value, json};

use crate::pod::{Identity, container_name};

/// What one Pod's microVM uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Used {
    /// Whose it is.
    pub(super) pod: Identity,
    /// Its container's name.
    pub(super) container: String,
    /// The microVM's identifier.
    pub(super) vm: String,
    /// When it was measured, in milliseconds since 1970-01-01 UTC.
    pub(super) at_ms: u64,
    /// When its workload was started, in the same unit.
    pub(super) started_at_ms: u64,
    /// CPU time of this run, in microseconds.
    pub(super) cpu_us: u64,
    /// The host's memory that it holds, in bytes.
    pub(super) memory_bytes: u64,
}

impl Used {
    /// Of a microVM that came from a Pod and runs.
    pub(super) fn of(vm: &Vm, stats: &VmStats) -> Option<Self> {
        Some(Self {
            pod: Identity::of_vm(vm)?,
            container: container_name(vm)?,
            vm: vm.id.clone(),
            at_ms: stats.at_ms,
            started_at_ms: vm.started_at_ms?,
            cpu_us: stats.cpu_time_us,
            memory_bytes: stats.memory_bytes,
        })
    }
}

/// What all Pods have used since this program started, so that the sum never falls when one of them is gone.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    /// Of runs that are over.
    past_us: u64,
    /// Of each that runs: when it was looked at, what it had used then, and how much of a CPU that was lately, in
    /// thousandths of a thousandth of a thousandth.
    last: BTreeMap<String, (u64, u64, Option<u64>)>,
}

impl Tally {
    /// Takes in what was measured.
    pub(super) fn look(&mut self, used: &[Used]) {
        let mut now = BTreeMap::new();
        for one in used {
            let before = self.last.remove(&one.vm);
            let rate = match before {
                Some((at_ms, cpu_us, rate)) if cpu_us <= one.cpu_us => {
                    match one.at_ms.saturating_sub(at_ms) {
                        0 => rate,
                        ms => Some((one.cpu_us - cpu_us).saturating_mul(1_000_000) / ms),
                    }
                }
                Some((_, cpu_us, _)) => {
                    self.past_us = self.past_us.saturating_add(cpu_us);
                    None
                }
                None => None,
            };
            now.insert(one.vm.clone(), (one.at_ms, one.cpu_us, rate));
        }
        for (_, cpu_us, _) in self.last.values() {
            self.past_us = self.past_us.saturating_add(*cpu_us);
        }
        self.last = now;
    }

    fn cpu_us(&self) -> u64 {
        let running = self.last.values().map(|(_, cpu_us, _)| *cpu_us);
        running.fold(self.past_us, u64::saturating_add)
    }

    /// How much of a CPU one microVM used lately, in billionths; none where it was looked at only once.
    fn rate(&self, vm: &str) -> Option<u64> {
        self.last.get(vm)?.2
    }
}

/// `/metrics/resource`, in Prometheus' text format.
pub(super) fn metrics(used: &[Used], tally: &Tally, now_ms: u64) -> String {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, lines: Vec<(String, String, u64)>| {
        let _ = writeln!(text, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}");
        for (labels, value, at_ms) in lines {
            let _ = writeln!(text, "{name}{labels} {value} {at_ms}");
        }
    };
    let each = |labels: fn(&Used) -> String, value: fn(&Used) -> String| {
        let line = |one: &Used| (labels(one), value(one), one.at_ms);
        used.iter().map(line).collect::<Vec<_>>()
    };
    let cpu = |one: &Used| seconds(one.cpu_us);
    let memory = |one: &Used| one.memory_bytes.to_string();
    let all_memory = used
        .iter()
        .fold(0, |sum: u64, one| sum.saturating_add(one.memory_bytes));
    let counter = "counter";
    let gauge = "gauge";
    family(
        "container_cpu_usage_seconds_total",
        counter,
        "CPU time of the container's microVM, in seconds",
        each(of_container, cpu),
    );
    family(
        "container_memory_working_set_bytes",
        gauge,
        "Memory of the host's that the container's microVM holds, in bytes",
        each(of_container, memory),
    );
    family(
        "container_start_time_seconds",
        gauge,
        "When the container was started, in seconds of Unix time",
        each(of_container, |one| {
            seconds(one.started_at_ms.saturating_mul(1_000))
        }),
    );
    family(
        "node_cpu_usage_seconds_total",
        counter,
        "CPU time of all Pods of the node, in seconds",
        vec![(String::new(), seconds(tally.cpu_us()), now_ms)],
    );
    family(
        "node_memory_working_set_bytes",
        gauge,
        "Memory that all Pods of the node hold, in bytes",
        vec![(String::new(), all_memory.to_string(), now_ms)],
    );
    family(
        "pod_cpu_usage_seconds_total",
        counter,
        "CPU time of the Pod's microVM, in seconds",
        each(of_pod, cpu),
    );
    family(
        "pod_memory_working_set_bytes",
        gauge,
        "Memory of the host's that the Pod's microVM holds, in bytes",
        each(of_pod, memory),
    );
    let _ = writeln!(
        text,
        "# HELP resource_scrape_error [STABLE] 1 if something could not be measured, 0 otherwise\n\
         # TYPE resource_scrape_error gauge\nresource_scrape_error 0"
    );
    text
}

/// `/stats/summary`.
pub(super) fn summary(node: &str, used: &[Used], tally: &Tally, now_ms: u64) -> Value {
    let cpu = |at_ms: u64, total_us: u64, rate: Option<u64>| json!({"time": time(at_ms), "usageNanoCores": rate.unwrap_or(0), "usageCoreNanoSeconds": total_us.saturating_mul(1_000)});
    let memory = |at_ms: u64, bytes: u64| json!({"time": time(at_ms), "usageBytes": bytes, "workingSetBytes": bytes, "rssBytes": bytes});
    let pods: Vec<Value> = used
        .iter()
        .map(|one| {
            let (cpu, memory) = (
                cpu(one.at_ms, one.cpu_us, tally.rate(&one.vm)),
                memory(one.at_ms, one.memory_bytes),
            );
            json!({
                "podRef": {"name": one.pod.name, "namespace": one.pod.namespace, "uid": one.pod.uid},
                "startTime": time(one.started_at_ms),
                "containers": [{"name": one.container, "startTime": time(one.started_at_ms), "cpu": cpu, "memory": memory}],
                "cpu": cpu,
                "memory": memory,
            })
        })
        .collect();
    let rates = used.iter().filter_map(|one| tally.rate(&one.vm));
    let bytes = used
        .iter()
        .fold(0, |sum: u64, one| sum.saturating_add(one.memory_bytes));
    json!({
        "node": {
            "nodeName": node,
            "cpu": cpu(now_ms, tally.cpu_us(), Some(rates.fold(0, u64::saturating_add))),
            "memory": memory(now_ms, bytes),
        },
        "pods": pods,
    })
}

fn seconds(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

fn time(ms: u64) -> String {
    let time = Timestamp::from_millisecond(i64::try_from(ms).unwrap_or(i64::MAX)).unwrap_or(Timestamp::MAX);
    time.to_string()
}

fn of_container(one: &Used) -> String {
    format!(
        "{{container=\"{}\",namespace=\"{}\",pod=\"{}\"}}",
        escape(&one.container),
        escape(&one.pod.namespace),
        escape(&one.pod.name)
    )
}

fn of_pod(one: &Used) -> String {
    format!(
        "{{namespace=\"{}\",pod=\"{}\"}}",
        escape(&one.pod.namespace),
        escape(&one.pod.name)
    )
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(vm: &str, at_ms: u64, cpu_us: u64) -> Used {
        Used {
            pod: Identity {
                uid: "u".into(),
                namespace: "town".into(),
                name: vm.into(),
            },
            container: "main".into(),
            vm: vm.into(),
            at_ms,
            started_at_ms: 1_500,
            cpu_us,
            memory_bytes: 1_000,
        }
    }

    #[test]
    fn the_nodes_sum_never_falls() {
        let mut tally = Tally::default();
        tally.look(&[used("a", 1_000, 500_000), used("b", 1_000, 100)]);
        assert_eq!(tally.cpu_us(), 500_100);
        // One is gone, the other was started again.
        tally.look(&[used("a", 2_000, 20)]);
        assert_eq!(tally.cpu_us(), 500_120);
        assert_eq!(tally.rate("a"), None);
        tally.look(&[used("a", 4_000, 1_000_020)]);
        assert_eq!(tally.rate("a"), Some(500_000_000), "a second of CPU in two");
        assert_eq!(tally.cpu_us(), 1_500_120);
    }

    #[test]
    fn figures_are_told_as_they_are_read() {
        let all = [used("web", 2_000, 1_250_000)];
        let mut tally = Tally::default();
        tally.look(&all);
        let text = metrics(&all, &tally, 2_001);
        for line in [
            "# TYPE container_cpu_usage_seconds_total counter",
            "container_cpu_usage_seconds_total{container=\"main\",namespace=\"town\",pod=\"web\"} 1.250000 2000",
            "container_start_time_seconds{container=\"main\",namespace=\"town\",pod=\"web\"} 1.500000 2000",
            "node_cpu_usage_seconds_total 1.250000 2001",
            "pod_memory_working_set_bytes{namespace=\"town\",pod=\"web\"} 1000 2000",
            "resource_scrape_error 0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        let summary = summary("node", &all, &tally, 2_001);
        assert_eq!(summary["node"]["cpu"]["usageCoreNanoSeconds"], 1_250_000_000);
        let pod = &summary["pods"][0];
        assert_eq!(pod["podRef"]["name"], "web");
        assert_eq!(pod["containers"][0]["memory"]["workingSetBytes"], 1_000);
        assert_eq!(pod["startTime"], "1970-01-01T00:00:01.5Z");
    }

    #[test]
    fn no_name_breaks_out_of_its_quotes() {
        assert_eq!(escape("a\"\\\n"), "a\\\"\\\\\\n");
    }
}
