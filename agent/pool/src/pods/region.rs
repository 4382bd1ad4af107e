//! What is asked of the region's API server about Pods. Every request is answered within a bounded time, or has failed.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Event, EventSource, ObjectReference, Pod, PodStatus, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::timeout;

use super::error::Failure;
use crate::pod::{Identity, Needs, Sources};

/// No request takes longer; what does is as good as lost.
const PATIENCE: Duration = Duration::from_secs(15);

/// What shows as the source of events.
const COMPONENT: &str = "secovia-pool";

/// The longest message of an event that the API server takes, in bytes.
const MESSAGE_MAX: usize = 1_000;

/// The way to the API server.
#[derive(Clone)]
pub(super) struct Region {
    client: Client,
    node: String,
}

impl Region {
    pub(super) fn new(client: Client, node: String) -> Self {
        Self { client, node }
    }

    pub(super) fn all_pods(&self) -> Api<Pod> {
        Api::all(self.client.clone())
    }

    fn pods(&self, pod: &Identity) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace)
    }

    /// Writes the status. Where somebody else has changed the Pod since `version` nothing is written: news of the change is on
    /// its way, and what follows from it.
    pub(super) async fn report(
        &self,
        pod: &Identity,
        version: Option<&str>,
        status: &PodStatus,
    ) -> Result<(), Failure> {
        let mut status = serde_json::to_value(status).unwrap_or_default();
        for word in ["reason", "message"] {
            if let Some(fields) = status.as_object_mut() {
                // In a merge patch, what is left out stays.
                fields.entry(word).or_insert_with(|| json!(null));
            }
        }
        let patch = Patch::Merge(json!({
            "metadata": {"uid": pod.uid, "resourceVersion": version},
            "status": status,
        }));
        let api = self.pods(pod);
        let params = PatchParams::default();
        let written = api.patch_status(&pod.name, &params, &patch);
        let operation = format!("report Pod {}/{}", pod.namespace, pod.name);
        match asked(written).await {
            Ok(_) => Ok(()),
            Err(Problem::Api(404 | 409, _)) => Ok(()),
            Err(problem) => Err(problem.failure(&operation)),
        }
    }

    /// Tells that nothing is left here of a Pod that is being deleted.
    pub(super) async fn forget(&self, pod: &Identity) -> Result<(), Failure> {
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: Some(pod.uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let api = self.pods(pod);
        match asked(api.delete(&pod.name, &params)).await {
            // It is gone, or another has its name.
            Ok(_) | Err(Problem::Api(404 | 409, _)) => Ok(()),
            Err(problem) => Err(problem.failure(&format!("delete Pod {}/{}", pod.namespace, pod.name))),
        }
    }

    /// The ConfigMaps and Secrets that a Pod's environment needs, as far as they exist.
    pub(super) async fn sources(&self, namespace: &str, needs: &Needs) -> Result<Sources, Failure> {
        let mut sources = Sources::default();
        for name in &needs.config_maps {
            if let Some(map) = self.found::<ConfigMap>(namespace, "ConfigMap", name).await? {
                sources
                    .config_maps
                    .insert(name.clone(), map.data.unwrap_or_default());
            }
        }
        for name in &needs.secrets {
            if let Some(secret) = self.found::<Secret>(namespace, "Secret", name).await? {
                sources.secrets.insert(name.clone(), bytes(secret));
            }
        }
        Ok(sources)
    }

    /// One Secret's data, where it exists.
    pub(super) async fn secret(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<BTreeMap<String, Vec<u8>>>, Failure> {
        Ok(self.found::<Secret>(namespace, "Secret", name).await?.map(bytes))
    }

    async fn found<K>(&self, namespace: &str, kind: &str, name: &str) -> Result<Option<K>, Failure>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let operation = format!("read {kind} {namespace}/{name}");
        asked(api.get_opt(name))
            .await
            .map_err(|problem| problem.failure(&operation))
    }

    /// Notes something about a Pod where people look for it. That it cannot be noted changes nothing.
    pub(super) async fn note(&self, pod: &Identity, reason: &str, is_warning: bool, message: &str) {
        let now = Timestamp::now();
        let time = Some(Time(now));
        let message: String = message
            .chars()
            .scan(0, |bytes, c| {
                *bytes += c.len_utf8();
                (*bytes <= MESSAGE_MAX).then_some(c)
            })
            .collect();
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{:x}", pod.name, now.as_nanosecond())),
                namespace: Some(pod.namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(pod.name.clone()),
                namespace: Some(pod.namespace.clone()),
                uid: Some(pod.uid.clone()),
                ..ObjectReference::default()
            },
            type_: Some(if is_warning { "Warning" } else { "Normal" }.into()),
            reason: Some(reason.into()),
            message: Some(message),
            count: Some(1),
            first_timestamp: time.clone(),
            last_timestamp: time,
            source: Some(EventSource {
                component: Some(COMPONENT.into()),
                host: Some(self.node.clone()),
            }),
            ..Event::default()
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), &pod.namespace);
        if let Err(problem) = asked(api.create(&PostParams::default(), &event)).await {
            log::debug!("note {reason} of Pod {}/{}: {problem}", pod.namespace, pod.name);
        }
    }
}

fn bytes(secret: Secret) -> BTreeMap<String, Vec<u8>> {
    let data = secret.data.unwrap_or_default();
    data.into_iter().map(|(key, value)| (key, value.0)).collect()
}

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
enum Problem {
    /// It said no.
    #[error("{1}")]
    Api(u16, String),
    /// There is none.
    #[error(transparent)]
    Other(kube::Error),
    /// It came too late.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Late,
}

impl Problem {
    fn failure(self, operation: &str) -> Failure {
        match &self {
            Self::Api(code, _) if *code < 500 && *code != 429 => {
                Failure::held("CreateContainerConfigError", format!("{operation}: {self}"))
            }
            _ => Failure::Region(format!("{operation}: {self}")),
        }
    }
}

async fn asked<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Problem> {
    match timeout(PATIENCE, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => Err(Problem::Api(status.code, status.message.clone())),
        Ok(Err(error)) => Err(Problem::Other(error)),
        Err(_) => Err(Problem::Late),
    }
}
