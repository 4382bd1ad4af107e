//! What the tests of several modules need.

use k8s_openapi::api::core::v1::Pod;
use secovia_agent_api::{Vm, VmState};
use serde_json::json;

use super::identity::label;

/// A Pod of this number.
pub(super) fn pod(number: u32, policy: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": format!("p{number}"), "namespace": "town", "uid": uid(number)},
        "spec": {"nodeName": "node-1", "restartPolicy": policy, "terminationGracePeriodSeconds": 11,
            "containers": [{"name": "main", "image": "web"}]}
    }))
    .unwrap()
}

/// That Pod's uid.
pub(super) fn uid(number: u32) -> String {
    format!("{number:08x}-0000-4000-8000-000000000000")
}

/// The microVM `id` of the Pod of this number.
pub(super) fn vm(number: u32, id: u32, state: VmState) -> Vm {
    let mut vm: Vm = serde_json::from_value(json!({
        "id": format!("{id:016x}"), "name": format!("p{number}-{number:08x}0000"), "state": {"status": "running"},
        "image": "web", "image_digest": "sha256:00", "command": ["x"], "env": {}, "user": null, "working_dir": null,
        "cpus": 1, "memory_mib": 64, "disk_mib": null, "restart": {"policy": "always"}, "rm": false, "tty": false,
        "stdin": false, "created_at_ms": 1_000 + u64::from(id), "started_at_ms": 5_000, "ended_at_ms": null,
        "restarts": 0, "starts": 1, "vmm_pid": null, "timing": null,
        "network": {"ipv4": "10.0.0.2", "ipv6": "fd00::2", "mac": "", "publish": []},
        "labels": {label::UID: uid(number), label::NAMESPACE: "town", label::NAME: format!("p{number}"),
            label::CONTAINER: "main", label::GRACE_S: "11"}
    }))
    .unwrap();
    vm.state = state;
    vm
}
