//! Whose certificates the region's clients have.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};

use crate::error::PoolError;
use crate::region::ask;

/// Where the API server tells of it, to whom the region's operator lets read it (`region.yaml`).
const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";
const KEY: &str = "client-ca-file";

/// The certificates of the authority that signs clients', in PEM.
pub(super) async fn client_authority(region: &Client) -> Result<String, PoolError> {
    let maps: Api<ConfigMap> = Api::namespaced(region.clone(), NAMESPACE);
    let operation = format!("read whom the region's clients are known by (ConfigMap {NAMESPACE}/{NAME})");
    let mut map = ask(&operation, maps.get(NAME)).await?;
    let found = map.data.as_mut().and_then(|data| data.remove(KEY));
    found.filter(|pem| !pem.trim().is_empty()).ok_or_else(|| {
        PoolError::wrong(
            operation,
            format!("it has no `{KEY}`: the API server takes no client certificates"),
        )
    })
}
