//! Metrics: what a machine counts, in Firecracker's groups and under its names where they mean the same.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::iter;
use std::sync::Arc;

use secovia_devices::serial::SerialCounters;
use serde_json::{Map, Value, json};

use super::inventory::Control;
use crate::api::RequestCounts;
use crate::logger;
use crate::vcpu::counters::{Counter, ExitCounters};

/// Everything that is counted, since the start. Devices of a kind are a group each (`block_ID`), and one together.
pub(super) fn groups<'a>(
    controls: impl Iterator<Item = &'a Control>,
    vcpus: &[Arc<ExitCounters>],
    console: SerialCounters,
    requests: &RequestCounts,
) -> Value {
    let mut groups = Map::new();
    for control in controls {
        let (kind, id, counted) = device(control);
        if let Some(id) = id {
            groups.insert(format!("{kind}_{id}"), counted.clone());
        }
        match groups.get_mut(kind) {
            Some(sum) => combine(sum, &counted, u64::wrapping_add),
            None => drop(groups.insert(kind.into(), counted)),
        }
    }
    for ((group, name), (made, refused)) in requests {
        let group = groups.entry(*group).or_insert_with(|| json!({}));
        group[format!("{name}_count")] = json!(made);
        group[format!("{name}_fails")] = json!(refused);
    }
    let sum = |counter: fn(&ExitCounters) -> &Counter| -> u64 {
        vcpus
            .iter()
            .fold(0, |sum, vcpu| sum.wrapping_add(counter(vcpu).get()))
    };
    let vcpu = json!({
        "exit_io_in": sum(|vcpu| &vcpu.io_in),
        "exit_io_out": sum(|vcpu| &vcpu.io_out),
        "exit_mmio_read": sum(|vcpu| &vcpu.mmio_read),
        "exit_mmio_write": sum(|vcpu| &vcpu.mmio_write),
        "failures": sum(|vcpu| &vcpu.failures),
    });
    groups.insert("vcpu".into(), vcpu);
    let uart = json!({
        "missed_write_count": console.lost,
        "rate_limiter_dropped_bytes": console.limited,
    });
    groups.insert("uart".into(), uart);
    groups.insert("logger".into(), json!({ "missed_log_count": logger::left_out() }));
    // A violation is the end of the process, and is told by whoever notices it (`confine`).
    groups.insert("seccomp".into(), json!({ "num_faults": 0 }));
    Value::Object(groups)
}

/// A device's group, its name, and what it counts.
fn device(control: &Control) -> (&'static str, Option<&str>, Value) {
    match control {
        Control::Disk(id, handle) => {
            let counted = handle.counters();
            let counted = json!({
                "read_count": counted.reads,
                "read_bytes": counted.read_bytes,
                "write_count": counted.writes,
                "write_bytes": counted.written_bytes,
                "flush_count": counted.flushes,
                "execute_fails": counted.host_errors,
                "invalid_reqs_count": counted.failed.saturating_sub(counted.host_errors),
                "rate_limiter_throttled_events": counted.limited,
                "io_engine_throttled_events": counted.full,
            });
            ("block", Some(id), counted)
        }
        Control::Backend(id, handle) => {
            let counted = handle.counters();
            let counted = json!({
                "activate_fails": counted.activate_fails,
                "cfg_fails": counted.config_fails,
                "lost_count": counted.lost,
            });
            ("vhost_user_block", Some(id), counted)
        }
        Control::Memory(id, counters) => {
            let counted = counters.get();
            let counted = json!({
                "flush_count": counted.flushes,
                "execute_fails": counted.host_errors,
                "invalid_reqs_count": counted.invalid,
            });
            ("pmem", Some(id), counted)
        }
        Control::Network(id, handle) => {
            let counted = handle.counters.get();
            let counted = json!({
                "rx_packets_count": counted.rx_packets,
                "rx_bytes_count": counted.rx_bytes,
                "rx_fails": counted.rx_dropped,
                "rx_rate_limiter_throttled": counted.rx_limited,
                "tx_packets_count": counted.tx_packets,
                "tx_bytes_count": counted.tx_bytes,
                "tx_malformed_frames": counted.tx_malformed,
                "tx_rate_limiter_throttled": counted.tx_limited,
                "tap_fails": counted.host_errors,
            });
            ("net", Some(id), counted)
        }
        Control::Hotplug(handle) => {
            let counted = handle.counters();
            let counted = json!({
                "plug_count": counted.plugged.requests,
                "plug_bytes": counted.plugged.bytes,
                "plug_fails": counted.plugged.failed,
                "unplug_count": counted.unplugged.requests,
                "unplug_bytes": counted.unplugged.bytes,
                "unplug_fails": counted.unplugged.failed,
                "unplug_discard_fails": counted.host_errors,
                "queue_event_fails": counted.invalid,
            });
            ("memory_hotplug", None, counted)
        }
        Control::Balloon(handle) => {
            let counted = handle.counters();
            let counted = json!({
                "inflated_pages": counted.inflated,
                "deflated_pages": counted.deflated,
                "reported_bytes": counted.reported,
                "hinted_bytes": counted.hinted,
                "event_fails": counted.host_errors,
            });
            ("balloon", None, counted)
        }
        Control::Vsock(counters) => {
            let counted = counters.get();
            let counted = json!({
                "rx_packets_count": counted.rx_packets,
                "rx_bytes_count": counted.rx_bytes,
                "tx_packets_count": counted.tx_packets,
                "tx_bytes_count": counted.tx_bytes,
            });
            ("vsock", None, counted)
        }
        Control::Entropy(handle) => {
            let counted = handle.counters.get();
            let counted = json!({
                "entropy_event_count": counted.served,
                "entropy_bytes": counted.bytes,
                "entropy_rate_limiter_throttled": counted.limited,
            });
            ("entropy", None, counted)
        }
    }
}

/// The same in Prometheus' text form: each number as `secovia_vmm_GROUP_NAME`, those of devices with a name by `id`.
pub(super) fn prometheus<'a>(
    controls: impl Iterator<Item = &'a Control>,
    vcpus: &[Arc<ExitCounters>],
    console: SerialCounters,
    requests: &RequestCounts,
) -> String {
    let mut families = Families::default();
    for control in controls {
        let (kind, id, counted) = device(control);
        families.add(kind, id, &counted);
    }
    // What no device counts.
    let rest = groups(iter::empty(), vcpus, console, requests);
    for (group, counted) in rest.as_object().into_iter().flatten() {
        families.add(group, None, counted);
    }
    families.text()
}

/// Numbers by their names in Prometheus' form, each with the label `id` where it has one.
#[derive(Default)]
struct Families(BTreeMap<String, Vec<(Option<String>, u64)>>);

impl Families {
    fn add(&mut self, group: &str, id: Option<&str>, counted: &Value) {
        for (name, number) in counted.as_object().into_iter().flatten() {
            let family = self.0.entry(format!("secovia_vmm_{group}_{name}")).or_default();
            family.extend(number.as_u64().map(|number| (id.map(escaped), number)));
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (name, numbers) in &self.0 {
            // Writing to a string does not fail.
            let _ = writeln!(text, "# TYPE {name} counter");
            for (id, number) in numbers {
                let _ = match id {
                    Some(id) => writeln!(text, "{name}{{id=\"{id}\"}} {number}"),
                    None => writeln!(text, "{name} {number}"),
                };
            }
        }
        text
    }
}

/// A label's value.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// What was told so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    told: Value,
}

impl Report {
    /// One line: what each number of `groups` has grown by since the line before.
    pub(super) fn line(&mut self, groups: Value, milliseconds: u64) -> Vec<u8> {
        let mut line = groups.clone();
        combine(&mut line, &self.told, u64::wrapping_sub);
        self.told = groups;
        line["utc_timestamp_ms"] = json!(milliseconds);
        let mut line = line.to_string().into_bytes();
        line.push(b'\n');
        line
    }
}

/// Combines each number in `to` with the one in the same place of `from`, if there is one.
fn combine(to: &mut Value, from: &Value, how: fn(u64, u64) -> u64) {
    match (to, from) {
        (Value::Object(to), Value::Object(from)) => {
            for (name, value) in to {
                if let Some(from) = from.get(name) {
                    combine(value, from, how);
                }
            }
        }
        (to @ Value::Number(_), Value::Number(from)) => {
            if let (Some(a), Some(b)) = (to.as_u64(), from.as_u64()) {
                *to = json!(how(a, b));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_is_new() {
        let mut report = Report::default();
        let mut line = |groups: Value| -> Value {
            let line = report.line(groups, 7);
            assert!(line.ends_with(b"}\n"));
            serde_json::from_slice(&line).unwrap()
        };
        let first = json!({ "block": { "read_count": 5 }, "utc_timestamp_ms": 7 });
        assert_eq!(line(json!({ "block": { "read_count": 5 } })), first);
        let second = json!({ "block": { "read_count": 2 }, "net": { "rx": 1 }, "utc_timestamp_ms": 7 });
        assert_eq!(
            line(json!({ "block": { "read_count": 7 }, "net": { "rx": 1 } })),
            second
        );
    }

    #[test]
    fn the_text_form_has_a_line_for_each_number_and_one_type_for_each_name() {
        let mut families = Families::default();
        families.add("block", Some("a"), &json!({ "read_count": 5, "write_count": 1 }));
        families.add("block", Some("b\"\\\n"), &json!({ "read_count": 7 }));
        families.add("vcpu", None, &json!({ "failures": 0 }));
        assert_eq!(
            families.text(),
            "# TYPE secovia_vmm_block_read_count counter\n\
             secovia_vmm_block_read_count{id=\"a\"} 5\n\
             secovia_vmm_block_read_count{id=\"b\\\"\\\\\\n\"} 7\n\
             # TYPE secovia_vmm_block_write_count counter\n\
             secovia_vmm_block_write_count{id=\"a\"} 1\n\
             # TYPE secovia_vmm_vcpu_failures counter\n\
             secovia_vmm_vcpu_failures 0\n"
        );
    }
}
