//! Events: what happens to Pods and to this node, told where people look for it, in a kubelet's words.
//!
//! What happens again is counted on the event that is there; what happens too often is not told. That something cannot be told
//! changes nothing, and nothing waits for it.

mod book;

use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::Instant;

use crate::error::PoolError;
use crate::pod::Identity;
use crate::region::ask;
use book::{Book, Entry};

/// What shows as the source of events.
const COMPONENT: &str = "secovia-pool";

/// The longest message that the API server takes, in bytes.
const MESSAGE_MAX: usize = 1_000;

/// Whether something is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is.
    Normal,
    /// Somebody may want to do something about it.
    Warning,
}

/// To what it happened.
#[derive(Debug, Clone)]
pub enum About<'a> {
    /// A Pod.
    Pod(&'a Identity),
    /// This node.
    Node,
}

/// Tells events.
#[derive(Clone)]
pub struct Events {
    client: Client,
    node: String,
    begun: Instant,
    book: Arc<Mutex<Book>>,
}

impl Events {
    /// Those of the node `node`.
    pub fn new(client: Client, node: String) -> Self {
        Self {
            client,
            node,
            begun: Instant::now(),
            book: Arc::default(),
        }
    }

    fn object(&self, about: &About<'_>) -> ObjectReference {
        let (kind, name, namespace, uid) = match about {
            About::Pod(pod) => ("Pod", &pod.name, Some(pod.namespace.clone()), &pod.uid),
            // As a kubelet has it: a node's uid here is its name.
            About::Node => ("Node", &self.node, None, &self.node),
        };
        ObjectReference {
            api_version: Some("v1".into()),
            kind: Some(kind.into()),
            name: Some(name.clone()),
            namespace,
            uid: Some(uid.clone()),
            ..ObjectReference::default()
        }
    }

    /// Tells that this happened.
    pub async fn tell(&self, about: About<'_>, kind: Kind, reason: &str, message: &str) {
        let object = self.object(&about);
        let now = Timestamp::now();
        let name = format!(
            "{}.{:x}",
            object.name.as_deref().unwrap_or_default(),
            now.as_nanosecond()
        );
        let key = (
            object.uid.clone().unwrap_or_default(),
            reason.to_string(),
            message.to_string(),
        );
        let entry = {
            let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
            book.enter(&key, &name, self.begun.elapsed().as_millis() as u64)
        };
        let namespace = object.namespace.clone().unwrap_or_else(|| "default".into());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let operation = format!(
            "tell {reason} of {} {name}",
            object.kind.as_deref().unwrap_or_default()
        );
        if let Entry::Again { name, count } = &entry {
            let patch = Patch::Merge(json!({"count": count, "lastTimestamp": Time(now)}));
            match ask(&operation, api.patch(name, &PatchParams::default(), &patch)).await {
                // The region keeps events for a while only.
                Err(error) if error.code() == Some(404) => {}
                told => return note(told),
            }
        } else if entry == Entry::Untold {
            return;
        }
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            involved_object: object,
            type_: Some(match kind {
                Kind::Normal => "Normal".into(),
                Kind::Warning => "Warning".into(),
            }),
            reason: Some(reason.into()),
            message: Some(shortened(message)),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            source: Some(EventSource {
                component: Some(COMPONENT.into()),
                host: Some(self.node.clone()),
            }),
            ..Event::default()
        };
        note(ask(&operation, api.create(&PostParams::default(), &event)).await);
    }
}

fn note<T>(told: Result<T, PoolError>) {
    if let Err(error) = told {
        log::debug!("{error}");
    }
}

fn shortened(message: &str) -> String {
    let fits = |bytes: &mut usize, c: char| {
        *bytes += c.len_utf8();
        (*bytes <= MESSAGE_MAX).then_some(c)
    };
    message.chars().scan(0, fits).collect()
}
