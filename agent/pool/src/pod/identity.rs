//! Which microVM is which Pod's.
//!
//! A microVM that came from a Pod carries the Pod's identity in its labels, in the agent's own records. Its name is made from
//! the Pod's uid, and the agent gives no name twice: so there are never two for one Pod, whoever asks how often.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use secovia_agent_api::Vm;

/// Labels of a microVM that came from a Pod.
pub mod label {
    /// The Pod's uid.
    pub const UID: &str = "secovia.pod/uid";
    /// Its namespace.
    pub const NAMESPACE: &str = "secovia.pod/namespace";
    /// Its name.
    pub const NAME: &str = "secovia.pod/name";
    /// Its container's name.
    pub const CONTAINER: &str = "secovia.pod/container";
    /// How many seconds its workload has between SIGTERM and SIGKILL; known here even when the Pod is gone.
    pub const GRACE_S: &str = "secovia.pod/grace-s";
}

/// Which Pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// Never used twice.
    pub uid: String,
    /// Where it is.
    pub namespace: String,
    /// Unique in its namespace at one time.
    pub name: String,
}

/// Of a name's 63 letters, what the Pod's own name may take.
const NAME_PART: usize = 50;

/// Letters of the uid that a name has: 48 random bits.
const UID_PART: usize = 12;

impl Identity {
    /// This Pod's. A Pod from the API server always has one.
    pub fn of(pod: &Pod) -> Option<Self> {
        let meta = &pod.metadata;
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Some(Self {
            uid: given(&meta.uid)?,
            namespace: given(&meta.namespace)?,
            name: given(&meta.name)?,
        })
    }

    /// That of the Pod that a microVM came from, where it came from one.
    pub fn of_vm(vm: &Vm) -> Option<Self> {
        let given = |key: &str| vm.labels.get(key).cloned();
        Some(Self {
            uid: given(label::UID)?,
            namespace: given(label::NAMESPACE)?,
            name: given(label::NAME)?,
        })
    }

    /// The microVM's labels.
    pub fn labels(&self) -> BTreeMap<String, String> {
        [
            (label::UID, &self.uid),
            (label::NAMESPACE, &self.namespace),
            (label::NAME, &self.name),
        ]
        .map(|(key, value)| (key.to_string(), value.clone()))
        .into()
    }

    /// The microVM's name: the Pod's, for people, and the beginning of its uid.
    pub fn vm_name(&self) -> String {
        let plain = |c: char| {
            if c.is_ascii_lowercase() || c.is_ascii_digit() {
                c
            } else {
                '-'
            }
        };
        let name: String = self.name.chars().map(plain).take(NAME_PART).collect();
        let uid = self.uid.chars().filter(char::is_ascii_alphanumeric);
        let uid: String = uid.map(|c| c.to_ascii_lowercase()).take(UID_PART).collect();
        format!("{}-{uid}", name.trim_matches('-'))
            .trim_matches('-')
            .to_string()
    }
}

/// What the microVM's labels say of its grace.
pub fn grace_s(vm: &Vm) -> Option<u32> {
    vm.labels.get(label::GRACE_S)?.parse().ok()
}

/// What the container of a microVM that came from a Pod is called there.
pub fn container_name(vm: &Vm) -> Option<String> {
    vm.labels.get(label::CONTAINER).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_for_each_uid_and_one_that_the_agent_takes() {
        let name = |name: &str, uid: &str| {
            let identity = Identity {
                uid: uid.into(),
                namespace: "default".into(),
                name: name.into(),
            };
            identity.vm_name()
        };
        let uid = "0A1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";
        assert_eq!(name("web", uid), "web-0a1b2c3d4e5f");
        assert_eq!(name("web.0", uid), "web-0-0a1b2c3d4e5f");
        assert_ne!(
            name("web", uid),
            name("web", "1a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9")
        );
        let long = name(&format!("{}.{}", "a".repeat(49), "b".repeat(200)), uid);
        assert_eq!(long, format!("{}-0a1b2c3d4e5f", "a".repeat(49)));
        assert!(name(&"a".repeat(253), uid).len() <= 63);
    }
}
