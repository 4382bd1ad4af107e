//! The Pods that are bound to this node, as the API server last told.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::Event;

use crate::pod::Identity;

/// What is known of them. Until a list was whole once, that is nothing: nothing is stopped for a list that did not come.
#[derive(Debug, Default)]
pub(super) struct Bound {
    pods: Option<BTreeMap<String, Pod>>,
    /// A list that is on its way.
    coming: BTreeMap<String, Pod>,
}

impl Bound {
    /// Takes in what the API server tells.
    pub(super) fn hear(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => self.coming.clear(),
            Event::InitApply(pod) => drop(insert(&mut self.coming, pod)),
            Event::InitDone => self.pods = Some(std::mem::take(&mut self.coming)),
            Event::Apply(pod) => drop(self.pods.as_mut().and_then(|pods| insert(pods, pod))),
            Event::Delete(pod) => {
                if let (Some(pods), Some(identity)) = (&mut self.pods, Identity::of(&pod)) {
                    pods.remove(&identity.uid);
                }
            }
        }
    }

    /// The Pods, where they are known.
    pub(super) fn pods(&self) -> Option<Vec<Pod>> {
        self.pods.as_ref().map(|pods| pods.values().cloned().collect())
    }

    /// The Pod of this uid.
    pub(super) fn get(&self, uid: &str) -> Option<&Pod> {
        self.pods.as_ref()?.get(uid)
    }
}

fn insert(pods: &mut BTreeMap<String, Pod>, pod: Pod) -> Option<Pod> {
    let mut pod = pod;
    // Who wrote which field when is much text, and nothing here.
    pod.metadata.managed_fields = None;
    pods.insert(Identity::of(&pod)?.uid, pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str) -> Pod {
        serde_json::from_value(serde_json::json!({"metadata": {"name": "p", "namespace": "n", "uid": uid}}))
            .unwrap()
    }

    fn uids(bound: &Bound) -> Option<Vec<String>> {
        let pods = bound.pods()?;
        Some(pods.into_iter().filter_map(|pod| pod.metadata.uid).collect())
    }

    #[test]
    fn a_list_counts_when_it_is_whole() {
        let mut bound = Bound::default();
        bound.hear(Event::Init);
        bound.hear(Event::InitApply(pod("a")));
        assert_eq!(uids(&bound), None);
        bound.hear(Event::InitDone);
        assert_eq!(uids(&bound), Some(vec!["a".into()]));
        bound.hear(Event::Apply(pod("b")));
        bound.hear(Event::Delete(pod("a")));
        assert_eq!(uids(&bound), Some(vec!["b".into()]));
        // The connection broke, and what was deleted meanwhile is not in the next list.
        bound.hear(Event::Init);
        assert_eq!(uids(&bound), Some(vec!["b".into()]));
        bound.hear(Event::InitApply(pod("c")));
        bound.hear(Event::InitDone);
        assert_eq!(uids(&bound), Some(vec!["c".into()]));
    }
}
