//! Fetches an image from an OCI registry into a directory in OCI's layout, which `secovia-agent` then imports like any
//! other. It runs with the rights of whoever wants the image: the agent, which is root, speaks to no registry and sees
//! no credentials.
//!
//! What a break leaves of a blob is gone on with, in this run and in the next one; what is complete is what its digest
//! says, for it gets its name only then.

mod blob;
mod credentials;
mod error;
mod registry;

use std::path::Path;

use oci_client::Reference;
use oci_client::secrets::RegistryAuth;
use oci_spec::image::{Descriptor, DigestAlgorithm, ImageManifest};
use serde_json::json;

use blob::{blob_path, write};
pub use error::PullError;
use registry::Registry;

/// No configuration of an image is larger.
const CONFIG_MAX: u64 = 4 << 20;

/// What is wanted.
#[derive(Debug)]
pub struct Pull<'a> {
    /// `REGISTRY/REPOSITORY:TAG`, or with `@DIGEST`.
    pub reference: &'a str,
    /// Who one is to the registry.
    pub credentials: Option<&'a Path>,
    /// Registries that may be spoken to without TLS: hosts, with `:` and a port where they have one.
    pub insecure: &'a [String],
    /// Bytes that all of it may have, packed.
    pub size_max: u64,
    /// Where it is put.
    pub dir: &'a Path,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are here.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// The digest of the manifest that a pull would fetch now. Only the manifest is asked for.
pub async fn digest(pull: &Pull<'_>) -> Result<String, PullError> {
    let (registry, auth) = registry(pull)?;
    let (digest, ..) = registry.manifest(&auth).await?;
    Ok(digest)
}

fn registry(pull: &Pull<'_>) -> Result<(Registry, RegistryAuth), PullError> {
    let image: Reference = pull.reference.parse().map_err(|error| PullError::Reference {
        reference: pull.reference.to_string(),
        problem: format!("{error}"),
    })?;
    let auth = match pull.credentials {
        Some(file) => credentials::read(file, image.registry())?,
        None => RegistryAuth::Anonymous,
    };
    Ok((Registry::new(image, pull.insecure)?, auth))
}

/// Fetches the image, and returns the digest of its manifest.
pub async fn pull(pull: &Pull<'_>, mut progress: impl FnMut(Progress)) -> Result<String, PullError> {
    let (registry, auth) = registry(pull)?;
    let (manifest_digest, kind, text) = registry.manifest(&auth).await?;
    let manifest: ImageManifest = registry.parse(&text)?;
    let blobs = blobs_of(&registry, &manifest, pull.size_max)?;
    let total = blobs.iter().map(|blob| blob.size()).sum();
    let mut before = 0;
    for blob in blobs {
        let tell = |done| {
            progress(Progress {
                done: before + done,
                total,
            })
        };
        blob::fetch(&registry, blob, pull.dir, tell).await?;
        before += blob.size();
    }
    write(&blob_path(pull.dir, &manifest_digest), &text)?;
    let descriptor = json!({"mediaType": kind, "digest": manifest_digest, "size": text.len()});
    let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
    write(&pull.dir.join("index.json"), index.to_string().as_bytes())?;
    write(&pull.dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(manifest_digest)
}

/// The name that an image of this reference has where none is given: the last part of its repository.
pub fn usual_name(reference: &str) -> Option<String> {
    let image: Reference = reference.parse().ok()?;
    image.repository().rsplit('/').next().map(str::to_string)
}

/// Configuration and layers, each once, where they are not more than may be.
fn blobs_of<'a>(
    registry: &Registry,
    manifest: &'a ImageManifest,
    size_max: u64,
) -> Result<Vec<&'a Descriptor>, PullError> {
    let mut blobs = vec![manifest.config()];
    blobs.extend(manifest.layers());
    let mut seen = std::collections::BTreeSet::new();
    blobs.retain(|blob| seen.insert(blob.digest().to_string()));
    let sum = blobs
        .iter()
        .try_fold(0_u64, |sum, blob| sum.checked_add(blob.size()));
    let found = sum.unwrap_or(u64::MAX);
    if found > size_max {
        return Err(PullError::Size {
            found,
            limit: size_max,
        });
    }
    if manifest.config().size() > CONFIG_MAX {
        return Err(registry.problem("the image's configuration is too large"));
    }
    match blobs
        .iter()
        .find(|blob| *blob.digest().algorithm() != DigestAlgorithm::Sha256)
    {
        Some(blob) => Err(registry.problem(format!("has a digest that is not read: {}", blob.digest()))),
        None => Ok(blobs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_called_as_its_repository() {
        assert_eq!(
            usual_name("docker.io/library/nginx:stable").as_deref(),
            Some("nginx")
        );
        assert_eq!(usual_name("r.lan:5000/a/b@sha256:".to_string().as_str()), None);
        assert_eq!(usual_name("r.lan:5000/a/app").as_deref(), Some("app"));
    }
}
