//! The Node object, and what is changed in it: pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeSpec, Taint};
use kube::api::ObjectMeta;
use secovia_agent_api::{Amounts, Labels};
use serde_json::{Value, json};

/// Only Pods that tolerate it come to a lent machine: it may be taken back at any time.
pub const TAINT: &str = "secovia/lent";

/// So many Pods may be here, which is what Kubernetes takes for usual.
const PODS_MAX: u32 = 110;

/// What the scheduler may place on a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allocatable {
    /// CPU, memory and disk.
    pub amounts: Amounts,
    /// Whether there is room for one more Pod at all: of a Pod that asks for nothing the scheduler counts nothing else.
    pub room: bool,
}

/// The labels that are ours alone to set, so that one whose value is gone is taken away.
const OWN_LABELS: [&str; 4] = [
    "secovia/country",
    "secovia/data-class",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// What does not change while this machine is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The node's name.
    pub name: String,
    /// Its host name.
    pub hostname: String,
    /// Where the region reaches it.
    pub address: IpAddr,
    /// At which port it asks for logs and figures of Pods.
    pub port: u16,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// The kernel's name for this boot.
    pub boot_id: String,
    /// The kernel's version.
    pub kernel: String,
    /// The distribution.
    pub os: String,
    /// `amd64` and the like, in Go's words.
    pub architecture: &'static str,
}

/// The labels of the node: what the scheduler may choose by.
pub fn labels(machine: &Machine, labels: &Labels) -> BTreeMap<String, String> {
    let own = [&labels.country, &labels.data_class, &labels.region, &labels.site];
    let own = OWN_LABELS.into_iter().zip(own);
    [
        ("kubernetes.io/hostname", &machine.name),
        ("kubernetes.io/os", &"linux".to_string()),
        ("kubernetes.io/arch", &machine.architecture.to_string()),
    ]
    .into_iter()
    .chain(own.filter_map(|(key, value)| Some((key, value.as_ref()?))))
    .map(|(key, value)| (key.to_string(), value.clone()))
    .collect()
}

/// The change that gives a node these labels, where it has others.
pub fn relabel(before: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> Option<Value> {
    let set = wanted
        .iter()
        .filter(|(key, value)| before.get(*key) != Some(value))
        .map(|(key, value)| (key.clone(), json!(value)));
    let gone = OWN_LABELS
        .into_iter()
        .filter(|key| before.contains_key(*key) && !wanted.contains_key(*key))
        .map(|key| (key.to_string(), Value::Null));
    let changes: serde_json::Map<String, Value> = set.chain(gone).collect();
    (!changes.is_empty()).then(|| json!({"metadata": {"labels": changes}}))
}

/// The object that a node registers itself with. It is not ready yet, and takes nothing. Its taint is the operator's from
/// then on: no node may change its own.
pub fn new_node(machine: &Machine, labels: BTreeMap<String, String>) -> Node {
    Node {
        metadata: ObjectMeta {
            name: Some(machine.name.clone()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: Some(vec![Taint {
                key: TAINT.into(),
                value: Some("true".into()),
                effect: "NoSchedule".into(),
                time_added: None,
            }]),
            ..NodeSpec::default()
        }),
        status: None,
    }
}

/// The change of the node's status, as a strategic merge.
pub fn status(
    machine: &Machine,
    capacity: Amounts,
    allocatable: Allocatable,
    conditions: &[NodeCondition],
) -> Value {
    json!({"status": {
        "capacity": quantities(capacity, PODS_MAX),
        "allocatable": quantities(allocatable.amounts, if allocatable.room { PODS_MAX } else { 0 }),
        "conditions": conditions,
        "addresses": [
            {"type": "InternalIP", "address": machine.address.to_string()},
            {"type": "Hostname", "address": machine.hostname},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": machine.port}},
        "nodeInfo": {
            "machineID": machine.machine_id,
            "systemUUID": machine.machine_id,
            "bootID": machine.boot_id,
            "kernelVersion": machine.kernel,
            "osImage": machine.os,
            "containerRuntimeVersion": concat!("secovia://", env!("CARGO_PKG_VERSION")),
            // Kubernetes wants a version of its own form. This one says that it is not one of its own.
            "kubeletVersion": concat!("v", env!("CARGO_PKG_VERSION"), "-secovia"),
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": machine.architecture,
        },
    }})
}

fn quantities(amounts: Amounts, pods: u32) -> Value {
    json!({
        "cpu": format!("{}m", amounts.cpu_millis),
        "memory": amounts.memory_bytes.to_string(),
        "ephemeral-storage": amounts.disk_bytes.to_string(),
        "pods": pods.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            name: "town".into(),
            hostname: "Town".into(),
            address: IpAddr::from([10, 0, 0, 1]),
            port: 10_250,
            machine_id: "m".into(),
            boot_id: "b".into(),
            kernel: "6.1".into(),
            os: "Debian".into(),
            architecture: "amd64",
        }
    }

    #[test]
    fn labels_are_the_policys_and_one_that_is_gone_is_taken_away() {
        let policy = Labels {
            country: Some("IT".into()),
            site: Some("cellar".into()),
            ..Labels::default()
        };
        let first = labels(&machine(), &policy);
        assert_eq!(first["secovia/country"], "IT");
        assert_eq!(first["topology.kubernetes.io/zone"], "cellar");
        assert_eq!(relabel(&first, &first), None);
        let mut before = first.clone();
        before.insert("of.somebody/else".into(), "x".into());
        let second = labels(
            &machine(),
            &Labels {
                site: Some("roof".into()),
                ..Labels::default()
            },
        );
        assert_eq!(
            relabel(&before, &second).unwrap(),
            json!({"metadata": {"labels": {"secovia/country": null, "topology.kubernetes.io/zone": "roof"}}})
        );
    }

    #[test]
    fn a_new_node_takes_only_who_knows_what_it_is() {
        let node = new_node(&machine(), BTreeMap::new());
        let taints = node.spec.unwrap().taints.unwrap();
        assert_eq!(
            (taints[0].key.as_str(), taints[0].effect.as_str()),
            (TAINT, "NoSchedule")
        );
    }

    #[test]
    fn a_status_is_one_that_kubernetes_reads() {
        let amounts = Amounts {
            cpu_millis: 1_500,
            memory_bytes: 1 << 30,
            disk_bytes: 5,
        };
        let status = status(&machine(), amounts, Allocatable::default(), &[]);
        let node: Node = serde_json::from_value(json!({"metadata": {}, "status": status["status"]})).unwrap();
        let status = node.status.unwrap();
        assert_eq!(status.capacity.unwrap()["cpu"].0, "1500m");
        let allocatable = status.allocatable.unwrap();
        assert_eq!(
            (allocatable["memory"].0.as_str(), allocatable["pods"].0.as_str()),
            ("0", "0")
        );
        assert_eq!(status.node_info.unwrap().boot_id, "b");
        assert_eq!(status.addresses.unwrap().len(), 2);
        assert_eq!(
            status.daemon_endpoints.unwrap().kubelet_endpoint.unwrap().port,
            10_250
        );
    }
}
