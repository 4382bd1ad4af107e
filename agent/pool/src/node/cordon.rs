//! When the node takes no more Pods, and who may let it: pure.
//!
//! `kubectl cordon` is the operator's. What this node did itself it remembers on the Node object, and lifts no more than
//! that, also when it was started again meanwhile.

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

/// The annotation by which the node remembers: its value says why.
pub const ANNOTATION: &str = "secovia/cordoned";

/// Why this node has cordoned itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The owner wants the machine.
    Reclaimed,
    /// It leaves the pool.
    Leaving,
}

impl Why {
    fn word(self) -> &'static str {
        match self {
            Self::Reclaimed => "reclaimed",
            Self::Leaving => "leaving",
        }
    }
}

/// How the Node object stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Nothing new is placed here.
    pub unschedulable: bool,
    /// Why that is this node's own doing, where it is.
    pub own: Option<Why>,
}

impl Standing {
    /// What the Node object says.
    pub fn of(node: &Node) -> Self {
        let spec = node.spec.as_ref();
        let annotations = node.metadata.annotations.as_ref();
        let own = annotations.and_then(|all| all.get(ANNOTATION));
        Self {
            unschedulable: spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
            own: own.map(|word| match word.as_str() {
                "leaving" => Why::Leaving,
                _ => Why::Reclaimed,
            }),
        }
    }

    /// How it has to stand, where that is otherwise.
    pub fn wanted(self, closed: bool) -> Option<Self> {
        match (closed, self.own) {
            (_, Some(Why::Leaving)) => None,
            (true, Some(Why::Reclaimed)) if self.unschedulable => None,
            // An operator's cordon needs no help, and is not to be lifted with ours.
            (true, None) if self.unschedulable => None,
            (true, _) => Some(Self {
                unschedulable: true,
                own: Some(Why::Reclaimed),
            }),
            (false, Some(Why::Reclaimed)) => Some(Self {
                unschedulable: false,
                own: None,
            }),
            (false, None) => None,
        }
    }

    /// The change of the Node object that makes it so.
    pub fn patch(self) -> Value {
        json!({
            "metadata": {"annotations": {ANNOTATION: self.own.map(Why::word)}},
            "spec": {"unschedulable": self.unschedulable.then_some(true)},
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Standing = Standing {
        unschedulable: false,
        own: None,
    };
    const OURS: Standing = Standing {
        unschedulable: true,
        own: Some(Why::Reclaimed),
    };
    const OPERATORS: Standing = Standing {
        unschedulable: true,
        own: None,
    };
    const LEAVING: Standing = Standing {
        unschedulable: true,
        own: Some(Why::Leaving),
    };

    #[test]
    fn only_its_own_cordon_is_lifted() {
        for (stands, closed, wanted) in [
            (OPEN, false, None),
            (OPEN, true, Some(OURS)),
            (OURS, true, None),
            (OURS, false, Some(OPEN)),
            (OPERATORS, true, None),
            (OPERATORS, false, None),
            (LEAVING, false, None),
            (LEAVING, true, None),
            // Somebody has lifted ours while the owner has the machine.
            (
                Standing {
                    unschedulable: false,
                    own: Some(Why::Reclaimed),
                },
                true,
                Some(OURS),
            ),
        ] {
            assert_eq!(stands.wanted(closed), wanted, "{stands:?} {closed}");
        }
    }

    #[test]
    fn what_is_remembered_comes_back() {
        for stands in [OPEN, OURS, LEAVING, OPERATORS] {
            let node: Node = serde_json::from_value(stands.patch()).unwrap_or_else(|_| {
                // A change may take an annotation away, which an object cannot say.
                serde_json::from_value(json!({"metadata": {}, "spec": stands.patch()["spec"]})).unwrap()
            });
            assert_eq!(Standing::of(&node), stands);
        }
    }
}
