use std::collections::BTreeSet;

use secovia_agent_api::Amounts;
use serde_json::{Value, json};

use super::*;
use crate::pod::needs;

/// What a field's value comes to.
enum Verdict {
    /// The request to the agent has this at that place (a JSON pointer).
    Done(&'static str, Value),
    /// All is as without it.
    Defaulted,
    /// The Pod is refused, and this path is named.
    Refused(&'static str),
    /// The Pod waits, and this is named.
    Waits(&'static str),
}
use Verdict::{Defaulted, Done, Refused, Waits};

fn pod() -> Value {
    json!({
        "metadata": {"name": "web-0", "namespace": "town", "uid": "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9",
            "labels": {"app": "web"}, "annotations": {"note": "hi"}},
        "spec": {"nodeName": "node-1", "serviceAccountName": "default", "containers": [{"name": "main", "image": "nginx:1"}]}
    })
}

fn facts() -> Facts {
    Facts {
        node_name: "node-1".into(),
        host_ip: "192.0.2.7".parse().unwrap(),
        cpus: 4,
        allocatable: Amounts {
            cpu_millis: 3_000,
            memory_bytes: 4 << 30,
            disk_bytes: 10 << 30,
        },
    }
}

fn sources() -> Sources {
    let texts = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect()
    };
    let bytes = |pairs: &[(&str, &[u8])]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_vec())).collect();
    Sources {
        config_maps: [("map".to_string(), texts(&[("key", "from-map"), ("odd=key", "x")]))].into(),
        secrets: [(
            "secret".to_string(),
            bytes(&[("key", b"from-secret"), ("blob", b"\xff")]),
        )]
        .into(),
        ..Sources::default()
    }
}

fn machine_of(pod: &Value) -> Result<Machine, Trouble> {
    let pod: Pod = serde_json::from_value(pod.clone()).unwrap();
    translate(&pod, &sources(), &facts())
}

/// Sets what a path names (`spec.containers[0].args`, to be read as JSON pointers are), making what is missing.
fn set(pod: &mut Value, path: &str, value: Value) {
    let mut at = pod;
    for part in path.replace('[', ".").replace(']', "").split('.') {
        at = match part.parse::<usize>() {
            Ok(index) => {
                if !at.is_array() {
                    *at = json!([]);
                }
                let list = at.as_array_mut().unwrap();
                while list.len() <= index {
                    list.push(json!({}));
                }
                &mut list[index]
            }
            Err(_) => &mut at[part],
        };
    }
    *at = value;
}

/// A Pod's specification with a volume that is mounted so.
fn with_volume(mount: Value) -> Value {
    let mut pod = pod();
    set(&mut pod, "spec.volumes", json!([{"name": "v", "emptyDir": {}}]));
    set(&mut pod, "spec.containers[0].volumeMounts", json!([mount]));
    pod["spec"].clone()
}

fn rows() -> Vec<(&'static str, Value, Verdict)> {
    let env = |value: Value| json!([{"name": "V", "valueFrom": value}]);
    let var = |value: &str| Done("/env/V", json!(value));
    vec![
        // The Pod's own.
        ("metadata.name", json!("a.b"), Done("/hostname", json!("a-b"))),
        (
            "metadata.namespace",
            json!("n"),
            Done("/labels/secovia.pod~1namespace", json!("n")),
        ),
        (
            "metadata.uid",
            json!("FFFFFFFF-FFFF-1"),
            Done("/name", json!("web-0-ffffffffffff")),
        ),
        (
            "metadata.ownerReferences",
            json!([{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "u"}]),
            Defaulted,
        ),
        ("spec.hostname", json!("h1"), Done("/hostname", json!("h1"))),
        (
            "spec.restartPolicy",
            json!("Always"),
            Done("/restart/policy", json!("always")),
        ),
        (
            "spec.restartPolicy",
            json!("OnFailure"),
            Done("/restart/policy", json!("on_failure")),
        ),
        (
            "spec.restartPolicy",
            json!("Never"),
            Done("/restart/policy", json!("no")),
        ),
        (
            "spec.restartPolicy",
            json!("Sometimes"),
            Refused("spec.restartPolicy"),
        ),
        (
            "spec.terminationGracePeriodSeconds",
            json!(7),
            Done("/labels/secovia.pod~1grace-s", json!("7")),
        ),
        ("spec.activeDeadlineSeconds", json!(60), Defaulted),
        ("spec.affinity", json!({"nodeAffinity": {}}), Defaulted),
        ("spec.automountServiceAccountToken", json!(false), Defaulted),
        (
            "spec.automountServiceAccountToken",
            json!(true),
            Refused("spec.automountServiceAccountToken"),
        ),
        ("spec.dnsPolicy", json!("ClusterFirst"), Defaulted),
        ("spec.dnsPolicy", json!("None"), Refused("spec.dnsPolicy")),
        (
            "spec.dnsConfig",
            json!({"nameservers": ["192.0.2.1"]}),
            Refused("spec.dnsConfig"),
        ),
        ("spec.enableServiceLinks", json!(true), Defaulted),
        ("spec.ephemeralContainers", json!([{"name": "debug"}]), Defaulted),
        (
            "spec.hostAliases",
            json!([{"ip": "192.0.2.1"}]),
            Refused("spec.hostAliases"),
        ),
        ("spec.hostIPC", json!(true), Refused("spec.hostIPC")),
        ("spec.hostNetwork", json!(true), Refused("spec.hostNetwork")),
        ("spec.hostPID", json!(true), Refused("spec.hostPID")),
        ("spec.hostPID", json!(false), Defaulted),
        ("spec.hostUsers", json!(false), Defaulted),
        (
            "spec.initContainers",
            json!([{"name": "init", "image": "i"}]),
            Done("/init_containers/0/image", json!("i")),
        ),
        (
            "spec.initContainers",
            json!([{"name": "init", "image": "i", "restartPolicy": "Always"}]),
            Refused("spec.initContainers[0].restartPolicy"),
        ),
        (
            "spec.initContainers",
            json!([{"name": "init", "image": "i", "livenessProbe": {"tcpSocket": {"port": 1}}}]),
            Refused("spec.initContainers[0]"),
        ),
        (
            "spec.containers[1]",
            json!({"name": "side", "image": "i"}),
            Done("/containers/1/image", json!("i")),
        ),
        ("spec.nodeSelector", json!({"a": "b"}), Defaulted),
        ("spec.os", json!({"name": "linux"}), Defaulted),
        ("spec.os", json!({"name": "windows"}), Refused("spec.os.name")),
        (
            "spec.overhead",
            json!({"memory": "1Mi"}),
            Refused("spec.overhead"),
        ),
        ("spec.preemptionPolicy", json!("Never"), Defaulted),
        ("spec.priority", json!(5), Defaulted),
        ("spec.priorityClassName", json!("high"), Defaulted),
        (
            "spec.readinessGates",
            json!([{"conditionType": "x/y"}]),
            Defaulted,
        ),
        (
            "spec.resourceClaims",
            json!([{"name": "gpu"}]),
            Refused("spec.resourceClaims"),
        ),
        (
            "spec.resources",
            json!({"limits": {"cpu": "1"}}),
            Refused("spec.resources"),
        ),
        (
            "spec.runtimeClassName",
            json!("kata"),
            Refused("spec.runtimeClassName"),
        ),
        ("spec.schedulerName", json!("mine"), Defaulted),
        ("spec.serviceAccountName", json!("robot"), Defaulted),
        (
            "spec.setHostnameAsFQDN",
            json!(true),
            Refused("spec.setHostnameAsFQDN"),
        ),
        (
            "spec.shareProcessNamespace",
            json!(true),
            Refused("spec.shareProcessNamespace"),
        ),
        ("spec.subdomain", json!("web"), Defaulted),
        ("spec.tolerations", json!([{"operator": "Exists"}]), Defaulted),
        ("spec.topologySpreadConstraints", json!([]), Defaulted),
        (
            "spec.volumes",
            json!([{"name": "v", "emptyDir": {}}]),
            Done("/volumes/0/content", json!({"empty": {}})),
        ),
        (
            "spec.volumes",
            json!([{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]),
            Done("/volumes/0/content", json!({"memory": {"size_bytes": 1048576}})),
        ),
        (
            "spec.volumes",
            json!([{"name": "v", "emptyDir": {"medium": "HugePages"}}]),
            Refused("spec.volumes[0].emptyDir.medium"),
        ),
        (
            "spec.volumes",
            json!([{"name": "v", "configMap": {"name": "map", "items": [{"key": "key", "path": "a/b", "mode": 256}]}}]),
            Done(
                "/volumes/0/content/files/files",
                json!([{"path": "a/b", "mode": 256, "gid": 0, "content": {"text": "from-map"}}]),
            ),
        ),
        (
            "spec.volumes",
            json!([{"name": "v", "configMap": {"name": "map", "items": [{"key": "none", "path": "a"}]}}]),
            Waits("key none of ConfigMap map"),
        ),
        (
            "spec.volumes",
            json!([{"name": "v", "configMap": {"name": "none"}}]),
            Waits("ConfigMap none"),
        ),
        (
            "spec.volumes",
            json!([{"name": "v", "configMap": {"name": "none", "optional": true}}]),
            Done("/volumes/0/content", json!({"files": {"files": []}})),
        ),
        (
            "spec.volumes",
            json!([{"name": "v", "secret": {"secretName": "secret", "defaultMode": 0o400}}]),
            Done(
                "/volumes/0/content/files/files/1",
                json!({"path": "key", "mode": 0o400, "gid": 0, "content": {"text": "from-secret"}}),
            ),
        ),
        (
            "spec.volumes",
            json!([{"name": "v", "secret": {"secretName": "secret", "items": [{"key": "key", "path": "../x"}]}}]),
            Refused("spec.volumes[0]"),
        ),
        (
            "spec.volumes",
            json!([{"name": "v", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]),
            Done(
                "/volumes/0/content/files/files/0/content",
                json!({"text": "app=\"web\""}),
            ),
        ),
        (
            "spec.volumes",
            json!([{"name": "v", "projected": {"sources": [{"secret": {"name": "secret"}}, {"configMap": {"name": "map"}}]}}]),
            Refused("spec.volumes[0]"),
        ),
        (
            "spec.volumes",
            json!([{"name": "v", "projected": {"sources": [{"downwardAPI": {"items": [
                {"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}}]),
            Done("/volumes/0/content/files/files/0/path", json!("n")),
        ),
        (
            "spec.volumes",
            json!([{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]),
            Refused("spec.volumes[0].projected.sources[0].serviceAccountToken"),
        ),
        (
            "spec.volumes",
            json!([{"name": "v", "hostPath": {"path": "/"}}]),
            Refused("spec.volumes[0]"),
        ),
        // Fences.
        (
            "spec.securityContext.runAsUser",
            json!(1000),
            Done("/user", json!("1000")),
        ),
        (
            "spec.securityContext.runAsUser",
            json!(-1),
            Refused("spec.securityContext.runAsUser"),
        ),
        (
            "spec.securityContext.runAsGroup",
            json!(5),
            Refused("spec.securityContext.runAsGroup"),
        ),
        (
            "spec.securityContext.runAsNonRoot",
            json!(true),
            Refused("spec.securityContext.runAsNonRoot"),
        ),
        (
            "spec.securityContext.fsGroup",
            json!(5),
            Refused("spec.securityContext.fsGroup"),
        ),
        (
            "spec.securityContext.supplementalGroups",
            json!([5]),
            Refused("spec.securityContext.supplementalGroups"),
        ),
        (
            "spec.securityContext.sysctls",
            json!([{"name": "a", "value": "b"}]),
            Refused("spec.securityContext.sysctls"),
        ),
        (
            "spec.securityContext.seLinuxOptions",
            json!({}),
            Refused("spec.securityContext.seLinuxOptions"),
        ),
        (
            "spec.securityContext.windowsOptions",
            json!({}),
            Refused("spec.securityContext.windowsOptions"),
        ),
        (
            "spec.securityContext.seccompProfile",
            json!({"type": "RuntimeDefault"}),
            Defaulted,
        ),
        (
            "spec.securityContext.seccompProfile",
            json!({"type": "Localhost"}),
            Refused("spec.securityContext.seccompProfile"),
        ),
        (
            "spec.containers[0].securityContext",
            json!({"runAsUser": 7, "runAsGroup": 8, "runAsNonRoot": true}),
            Done("/user", json!("7:8")),
        ),
        (
            "spec.containers[0].securityContext.privileged",
            json!(true),
            Refused("spec.containers[0].securityContext.privileged"),
        ),
        (
            "spec.containers[0].securityContext.privileged",
            json!(false),
            Defaulted,
        ),
        (
            "spec.containers[0].securityContext.allowPrivilegeEscalation",
            json!(false),
            Defaulted,
        ),
        (
            "spec.containers[0].securityContext.capabilities",
            json!({"drop": ["ALL"]}),
            Defaulted,
        ),
        (
            "spec.containers[0].securityContext.readOnlyRootFilesystem",
            json!(true),
            Refused("spec.containers[0].securityContext.readOnlyRootFilesystem"),
        ),
        (
            "spec.containers[0].securityContext.procMount",
            json!("Unmasked"),
            Refused("spec.containers[0].securityContext.procMount"),
        ),
        (
            "spec.containers[0].securityContext.appArmorProfile",
            json!({"type": "Localhost"}),
            Refused("spec.containers[0].securityContext.appArmorProfile"),
        ),
        // The container.
        (
            "spec.containers[0].image",
            json!("r.lan/a/b:2"),
            Done("/image", json!("r.lan/a/b:2")),
        ),
        (
            "spec.containers[0].image",
            json!(""),
            Refused("spec.containers[0].image"),
        ),
        (
            "spec.containers[0].imagePullPolicy",
            json!("Often"),
            Refused("spec.containers[0].imagePullPolicy"),
        ),
        (
            "spec.containers[0].command",
            json!(["a", "$(X)"]),
            Done("/entrypoint", json!(["a", "$(X)"])),
        ),
        (
            "spec.containers[0].command",
            json!([""]),
            Refused("spec.containers[0].command"),
        ),
        (
            "spec.containers[0].args",
            json!(["b"]),
            Done("/command", json!(["b"])),
        ),
        (
            "spec.containers[0].args",
            json!(["\0"]),
            Refused("spec.containers[0].args"),
        ),
        (
            "spec.containers[0].workingDir",
            json!("/srv"),
            Done("/working_dir", json!("/srv")),
        ),
        (
            "spec.containers[0].workingDir",
            json!("srv"),
            Refused("spec.containers[0].workingDir"),
        ),
        (
            "spec.containers[0].stdin",
            json!(true),
            Done("/stdin", json!(true)),
        ),
        (
            "spec.containers[0].stdinOnce",
            json!(true),
            Refused("spec.containers[0].stdinOnce"),
        ),
        (
            "spec.containers[0].tty",
            json!(true),
            Done("/tty/cols", json!(80)),
        ),
        (
            "spec.containers[0].ports",
            json!([{"containerPort": 80}]),
            Defaulted,
        ),
        (
            "spec.containers[0].ports",
            json!([{"containerPort": 80, "hostPort": 8080}]),
            Done("/publish/0/host_port", json!(8080)),
        ),
        (
            "spec.containers[0].ports",
            json!([{"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "192.0.2.7"}]),
            Done("/publish/0/address", json!("192.0.2.7")),
        ),
        (
            "spec.containers[0].ports",
            json!([{"containerPort": 1, "hostPort": 1, "protocol": "SCTP"}]),
            Refused("spec.containers[0].ports[0].protocol"),
        ),
        (
            "spec.containers[0].ports",
            json!([{"containerPort": 1, "hostPort": 70000}]),
            Refused("spec.containers[0].ports[0].hostPort"),
        ),
        (
            "spec.containers[0].ports",
            json!([{"containerPort": 1, "hostPort": 1, "hostIP": "here"}]),
            Refused("spec.containers[0].ports[0].hostIP"),
        ),
        (
            "spec.containers[0].lifecycle",
            json!({}),
            Refused("spec.containers[0].lifecycle"),
        ),
        (
            "spec.containers[0].livenessProbe",
            json!({}),
            Refused("spec.containers[0].livenessProbe"),
        ),
        (
            "spec.containers[0].livenessProbe",
            json!({"exec": {"command": ["a"]}, "periodSeconds": 3, "timeoutSeconds": 0}),
            Done(
                "/containers/0/liveness",
                json!({"check": {"exec": {"command": ["a"]}}, "initial_delay_s": 0,
                "period_s": 3, "timeout_s": 1, "success": 1, "failure": 3}),
            ),
        ),
        (
            "spec.containers[0].readinessProbe",
            json!({"httpGet": {"port": 8080, "path": "/h", "httpHeaders": [{"name": "A", "value": "b"}]}}),
            Done(
                "/containers/0/readiness/check/http",
                json!({"port": 8080, "path": "/h", "headers": [["A", "b"]]}),
            ),
        ),
        (
            "spec.containers[0].startupProbe",
            json!({"tcpSocket": {"port": "81", "host": "192.0.2.1"}, "failureThreshold": 30, "initialDelaySeconds": 2}),
            Done("/containers/0/startup/failure", json!(30)),
        ),
        (
            "spec.containers[0].livenessProbe",
            json!({"httpGet": {"port": "none"}}),
            Refused("spec.containers[0].livenessProbe.httpGet.port"),
        ),
        (
            "spec.containers[0].livenessProbe",
            json!({"httpGet": {"port": 1, "scheme": "HTTPS"}}),
            Refused("spec.containers[0].livenessProbe.httpGet.scheme"),
        ),
        (
            "spec.containers[0].livenessProbe",
            json!({"tcpSocket": {"port": 1, "host": "db.local"}}),
            Refused("spec.containers[0].livenessProbe.tcpSocket.host"),
        ),
        (
            "spec.containers[0].livenessProbe",
            json!({"grpc": {"port": 1}}),
            Refused("spec.containers[0].livenessProbe.grpc"),
        ),
        (
            "spec.containers[0].livenessProbe",
            json!({"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 1}),
            Refused("spec.containers[0].livenessProbe.terminationGracePeriodSeconds"),
        ),
        (
            "spec.containers[0].readinessProbe",
            json!({}),
            Refused("spec.containers[0].readinessProbe"),
        ),
        (
            "spec.containers[0].startupProbe",
            json!({}),
            Refused("spec.containers[0].startupProbe"),
        ),
        ("spec.containers[0].resizePolicy", json!([]), Defaulted),
        (
            "spec.containers[0].restartPolicy",
            json!("Always"),
            Refused("spec.containers[0].restartPolicy"),
        ),
        (
            "spec.containers[0].terminationMessagePath",
            json!("/dev/termination-log"),
            Defaulted,
        ),
        (
            "spec.containers[0].terminationMessagePolicy",
            json!("File"),
            Defaulted,
        ),
        (
            "spec.containers[0].volumeDevices",
            json!([{"name": "d", "devicePath": "/dev/x"}]),
            Refused("spec.containers[0].volumeDevices"),
        ),
        (
            "spec.containers[0].volumeMounts",
            json!([{"name": "v", "mountPath": "/data"}]),
            Refused("spec.containers[0].volumeMounts[0]"),
        ),
        (
            "spec",
            with_volume(json!({"name": "v", "mountPath": "/data", "readOnly": true})),
            Done(
                "/containers/0/mounts/0",
                json!({"volume": "v", "path": "/data", "read_only": true}),
            ),
        ),
        (
            "spec",
            with_volume(json!({"name": "v", "mountPath": "/data", "subPath": "a"})),
            Refused("spec.containers[0].volumeMounts[0].subPath"),
        ),
        (
            "spec",
            with_volume(json!({"name": "v", "mountPath": "/data", "mountPropagation": "Bidirectional"})),
            Refused("spec.containers[0].volumeMounts[0].mountPropagation"),
        ),
        (
            "spec",
            with_volume(json!({"name": "v", "mountPath": "data"})),
            Refused("spec.containers[0].volumeMounts[0].mountPath"),
        ),
        // Resources.
        (
            "spec.containers[0].resources.requests",
            json!({"cpu": "1500m"}),
            Done("/cpu_millis", json!(1500)),
        ),
        (
            "spec.containers[0].resources.requests",
            json!({"cpu": "1500m", "memory": "1"}),
            Done("/cpus", json!(2)),
        ),
        (
            "spec.containers[0].resources.limits",
            json!({"cpu": "3"}),
            Done("/cpus", json!(3)),
        ),
        (
            "spec.containers[0].resources.limits",
            json!({"cpu": "99"}),
            Done("/cpus", json!(4)),
        ),
        (
            "spec.containers[0].resources.limits",
            json!({"memory": "300M"}),
            Done("/memory_mib", json!(287)),
        ),
        (
            "spec.containers[0].resources.requests",
            json!({"memory": "1Mi"}),
            Done("/memory_mib", json!(64)),
        ),
        (
            "spec.containers[0].resources.limits",
            json!({"ephemeral-storage": "1Gi"}),
            Done("/disk_mib", json!(1024)),
        ),
        (
            "spec.containers[0].resources.limits",
            json!({"nvidia.com/gpu": "1"}),
            Refused("spec.containers[0].resources.limits.nvidia.com/gpu"),
        ),
        (
            "spec.containers[0].resources.requests",
            json!({"cpu": "lots"}),
            Refused("spec.containers[0].resources.requests.cpu"),
        ),
        (
            "spec.containers[0].resources.claims",
            json!([{"name": "x"}]),
            Refused("spec.containers[0].resources.claims"),
        ),
        // The environment.
        (
            "spec.containers[0].env",
            json!([{"name": "A", "value": "1"}, {"name": "V", "value": "$(A)$(B)"}]),
            var("1$(B)"),
        ),
        (
            "spec.containers[0].env",
            json!([{"name": "", "value": "1"}]),
            Refused("spec.containers[0].env[0].name"),
        ),
        (
            "spec.containers[0].env",
            env(json!({"configMapKeyRef": {"name": "map", "key": "key"}})),
            var("from-map"),
        ),
        (
            "spec.containers[0].env",
            env(json!({"configMapKeyRef": {"name": "none", "key": "key"}})),
            Waits("ConfigMap none"),
        ),
        (
            "spec.containers[0].env",
            env(json!({"configMapKeyRef": {"name": "none", "key": "key", "optional": true}})),
            Defaulted,
        ),
        (
            "spec.containers[0].env",
            env(json!({"secretKeyRef": {"name": "secret", "key": "key"}})),
            var("from-secret"),
        ),
        (
            "spec.containers[0].env",
            env(json!({"secretKeyRef": {"name": "secret", "key": "gone"}})),
            Waits("key gone of Secret secret"),
        ),
        (
            "spec.containers[0].env",
            env(json!({"secretKeyRef": {"name": "secret", "key": "blob"}})),
            Refused("spec.containers[0].env[0].valueFrom.secretKeyRef"),
        ),
        (
            "spec.containers[0].env",
            env(json!({"fileKeyRef": {}})),
            Refused("spec.containers[0].env[0].valueFrom"),
        ),
        (
            "spec.containers[0].env",
            env(json!({"fieldRef": {"fieldPath": "metadata.name"}})),
            var("web-0"),
        ),
        (
            "spec.containers[0].env",
            env(json!({"fieldRef": {"fieldPath": "metadata.labels['app']"}})),
            var("web"),
        ),
        (
            "spec.containers[0].env",
            env(json!({"fieldRef": {"fieldPath": "metadata.annotations['none']"}})),
            var(""),
        ),
        (
            "spec.containers[0].env",
            env(json!({"fieldRef": {"fieldPath": "spec.nodeName"}})),
            var("node-1"),
        ),
        (
            "spec.containers[0].env",
            env(json!({"fieldRef": {"fieldPath": "spec.serviceAccountName"}})),
            var("default"),
        ),
        (
            "spec.containers[0].env",
            env(json!({"fieldRef": {"fieldPath": "status.hostIP"}})),
            var("192.0.2.7"),
        ),
        (
            "spec.containers[0].env",
            env(json!({"fieldRef": {"fieldPath": "status.podIP"}})),
            Refused("spec.containers[0].env[0].valueFrom.fieldRef"),
        ),
        (
            "spec.containers[0].env",
            env(json!({"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}})),
            var("4096"),
        ),
        (
            "spec.containers[0].env",
            env(json!({"resourceFieldRef": {"resource": "requests.cpu"}})),
            var("0"),
        ),
        (
            "spec.containers[0].env",
            env(json!({"resourceFieldRef": {"resource": "limits.gpu"}})),
            Refused("spec.containers[0].env[0].valueFrom.resourceFieldRef.resource"),
        ),
        (
            "spec.containers[0].env",
            env(json!({"resourceFieldRef": {"resource": "limits.cpu", "containerName": "other"}})),
            Refused("spec.containers[0].env[0].valueFrom.resourceFieldRef.containerName"),
        ),
        (
            "spec.containers[0].envFrom",
            json!([{"prefix": "P_", "configMapRef": {"name": "map"}}]),
            Done("/env", json!({"P_key": "from-map"})),
        ),
        (
            "spec.containers[0].envFrom",
            json!([{"secretRef": {"name": "none"}}]),
            Waits("Secret none"),
        ),
        (
            "spec.containers[0].envFrom",
            json!([{"secretRef": {"name": "none", "optional": true}}]),
            Defaulted,
        ),
        (
            "spec.containers[0].envFrom",
            json!([{"secretRef": {"name": "secret"}}]),
            Refused("spec.containers[0].envFrom[0].secretRef"),
        ),
    ]
}

#[test]
fn every_field_is_done_defaulted_or_refused_by_name() {
    let plain = machine_of(&pod()).unwrap();
    let mut fields = BTreeSet::new();
    for (path, value, verdict) in rows() {
        let mut pod = pod();
        set(&mut pod, path, value.clone());
        fields.insert(path);
        let row = format!("{path} = {value}");
        match (verdict, machine_of(&pod)) {
            (Done(pointer, expected), Ok(machine)) => {
                let create = serde_json::to_value(&machine.create).unwrap();
                assert_eq!(create.pointer(pointer), Some(&expected), "{row}");
                let without = serde_json::to_value(&plain.create).unwrap();
                let is_default = path == "spec.restartPolicy" && value == "Always"
                    || value.to_string().contains("requests.cpu");
                assert!(
                    is_default || without.pointer(pointer) != Some(&expected),
                    "{row} changes nothing"
                );
            }
            (Defaulted, Ok(machine)) => assert_eq!(machine, plain, "{row}"),
            (Refused(field), Err(Trouble::Refused(refusals))) => {
                let named: Vec<&str> = refusals.iter().map(|refusal| refusal.field.as_str()).collect();
                assert_eq!(named, [field], "{row}");
                assert!(refusals.iter().all(|refusal| refusal.why.len() > 5), "{row}");
            }
            (Waits(what), Err(Trouble::Missing(message))) => {
                assert!(message.contains(what), "{row}: {message}")
            }
            (_, outcome) => panic!("{row}: {outcome:?}"),
        }
    }
    assert!(fields.len() >= 60, "{} fields", fields.len());
}

#[test]
fn the_simplest_pod_is_whole() {
    let machine = machine_of(&pod()).unwrap();
    let expected = VmCreate {
        name: Some("web-0-0a1b2c3d4e5f".into()),
        hostname: Some("web-0".into()),
        cpu_millis: Some(10),
        restart: RestartPolicy::Always,
        labels: [
            (label::UID, "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"),
            (label::NAMESPACE, "town"),
            (label::NAME, "web-0"),
            (label::CONTAINER, "main"),
            (label::GRACE_S, "30"),
        ]
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .into(),
        ..VmCreate::new("nginx:1")
    };
    assert_eq!(machine.create, expected);
    assert_eq!(
        (machine.pull, machine.pull_secrets.len()),
        (PullPolicy::IfNotPresent, 0)
    );
}

#[test]
fn the_token_that_the_api_server_mounts_is_left_out_and_nothing_else() {
    let mut pod = pod();
    let token = "/var/run/secrets/kubernetes.io/serviceaccount";
    let mount = json!([{"name": "kube-api-access-x", "mountPath": token, "readOnly": true}]);
    set(
        &mut pod,
        "spec.volumes",
        json!([{"name": "kube-api-access-x", "projected": {"sources": []}}]),
    );
    set(&mut pod, "spec.containers[0].volumeMounts", mount);
    assert_eq!(machine_of(&pod), machine_of(&self::pod()));
    set(
        &mut pod,
        "spec.volumes[0]",
        json!({"name": "kube-api-access-x", "hostPath": {"path": "/etc"}}),
    );
    let refused = machine_of(&pod).unwrap_err().to_string();
    assert!(refused.contains("spec.volumes[0]"), "{refused}");
}

#[test]
fn an_author_learns_of_everything_at_once_and_of_what_to_do() {
    let mut pod = pod();
    set(&mut pod, "spec.hostNetwork", json!(true));
    set(
        &mut pod,
        "spec.containers[0].securityContext.privileged",
        json!(true),
    );
    let text = machine_of(&pod).unwrap_err().to_string();
    assert_eq!(
        text,
        "this node does not do spec.hostNetwork: nothing of this host is handed to a Pod; leave it out; \
         spec.containers[0].securityContext.privileged: nothing of this host is handed to a Pod; leave it out"
    );
}

#[test]
fn what_the_environment_is_made_of_is_known_before() {
    let mut pod = pod();
    set(
        &mut pod,
        "spec.containers[0].envFrom",
        json!([{"configMapRef": {"name": "a"}}, {"secretRef": {"name": "b"}}]),
    );
    set(
        &mut pod,
        "spec.containers[0].env",
        json!([
        {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
        {"name": "Y", "valueFrom": {"secretKeyRef": {"name": "d", "key": "k"}}}]),
    );
    let needs = needs(&serde_json::from_value(pod).unwrap());
    assert_eq!(needs.config_maps, ["a", "c"].map(String::from).into());
    assert_eq!(needs.secrets, ["b", "d"].map(String::from).into());
}

#[test]
fn several_containers_share_a_machine_that_is_as_large_as_all_of_them() {
    let mut pod = pod();
    let container = |name: &str, cpu: &str, memory: &str| {
        json!({"name": name, "image": "i", "resources": {"limits": {"cpu": cpu, "memory": memory}},
            "ports": [{"containerPort": 80, "hostPort": if name == "a" { 8080 } else { 0 }}]})
    };
    set(
        &mut pod,
        "spec.containers",
        json!([container("a", "500m", "100Mi"), container("b", "700m", "200Mi")]),
    );
    set(
        &mut pod,
        "spec.initContainers",
        json!([container("c", "100m", "400Mi"), container("d", "2", "64Mi")]),
    );
    let machine = machine_of(&pod).unwrap();
    let create = &machine.create;
    assert_eq!(
        (create.cpus, create.cpu_millis, create.memory_mib),
        (2, Some(2_000), 400)
    );
    assert_eq!((create.publish.len(), create.image.as_str()), (1, "i"));
    let names =
        |all: &[secovia_agent_api::Container]| all.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&create.init_containers), ["c", "d"]);
    assert_eq!(names(&create.containers), ["a", "b"]);
    assert_eq!(machine.more.len(), 3);
    assert!(create.command.is_empty() && create.env.is_empty());
    assert!(create.containers.iter().all(|one| one.grace_s == 30));
}
