//! What a Pod's microVM is made of, beside the Pod.

use k8s_openapi::api::core::v1::Pod;

use super::env::{self, Needs};
use super::volume;

/// The ConfigMaps and Secrets that a Pod names.
pub fn needs(pod: &Pod) -> Needs {
    let mut needs = Needs::default();
    if let Some(spec) = &pod.spec {
        env::needs_of(spec, &mut needs);
        volume::needs_of(spec, &mut needs);
    }
    needs
}
