//! What is asked of the region's API server about Pods. Every request is answered within a bounded time, or has failed.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodStatus, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::timeout;

use super::error::Failure;
use crate::events::{About, Events, Kind};
use crate::pod::{Identity, Needs, Sources};

/// No request takes longer; what does is as good as lost.
const PATIENCE: Duration = Duration::from_secs(15);

/// The way to the API server.
#[derive(Clone)]
pub(super) struct Region {
    client: Client,
    events: Events,
}

impl Region {
    pub(super) fn new(client: Client, node: String) -> Self {
        let events = Events::new(client.clone(), node);
        Self { client, events }
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
                let binary = map.binary_data.unwrap_or_default().into_iter();
                let binary = binary.map(|(key, value)| (key, value.0)).collect();
                sources.binary.insert(name.clone(), binary);
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
        let kind = if is_warning { Kind::Warning } else { Kind::Normal };
        self.events.tell(About::Pod(pod), kind, reason, message).await;
    }
}

impl Region {
    /// The same of something that is as it should be; nothing waits for it.
    pub(super) fn note_soon(&self, pod: &Identity, reason: &'static str, message: &str) {
        let (region, pod, message) = (self.clone(), pod.clone(), message.to_string());
        tokio::spawn(async move { region.note(&pod, reason, false, &message).await });
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
            // Whom it does not know it answers nothing, whatever is asked.
            Self::Api(code, _) if *code < 500 && *code != 429 && *code != 401 => {
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
