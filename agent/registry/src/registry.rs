//! A registry: what is asked of it, and what its answers mean.

use std::net::IpAddr;
use std::sync::Once;
use std::time::Duration;

use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use oci_spec::image::{Arch, ImageIndex, Os};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::PullError;

/// Media types that are taken, OCI's and docker's.
const MANIFESTS: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
const INDEXES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// Nothing for so long is a break.
const SILENCE: Duration = Duration::from_secs(30);

/// A registry, and the image in it.
pub(crate) struct Registry {
    pub(crate) client: Client,
    pub(crate) image: Reference,
    is_plain: bool,
}

impl Registry {
    pub(crate) fn new(image: Reference, insecure: &[String]) -> Result<Self, PullError> {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            // Where there is one already it serves as well.
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        let host = image.resolve_registry().to_string();
        let is_plain = is_loopback(&host) || insecure.contains(&host);
        let config = ClientConfig {
            protocol: if is_plain {
                ClientProtocol::Http
            } else {
                ClientProtocol::Https
            },
            read_timeout: Some(SILENCE),
            connect_timeout: Some(SILENCE),
            user_agent: concat!("secovia/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|error| PullError::Connection {
            registry: host,
            problem: error.to_string(),
            is_plain,
        })?;
        Ok(Self {
            client,
            image,
            is_plain,
        })
    }

    /// Digest, type and text of the manifest for this kind of machine.
    pub(crate) async fn manifest(&self, auth: &RegistryAuth) -> Result<(String, String, Vec<u8>), PullError> {
        let accepted = [MANIFESTS, INDEXES].concat();
        let mut image = self.image.clone();
        // An index leads to a manifest, not to another index.
        for _ in 0..2 {
            let answer = self.client.pull_manifest_raw(&image, auth, &accepted).await;
            let (text, _) = answer.map_err(|error| self.error(error))?;
            let found = digest(&text);
            if let Some(expected) = image.digest()
                && expected != found
            {
                return Err(self.wrong_digest(expected, found));
            }
            let document: Value = self.parse(&text)?;
            let kind = kind_of(&document);
            if MANIFESTS.contains(&kind.as_str()) {
                return Ok((found, kind, text.into()));
            }
            let index: ImageIndex = self.parse(&text)?;
            let chosen = index.manifests().iter().find(|entry| {
                entry.platform().as_ref().is_some_and(|platform| {
                    *platform.architecture() == Arch::Amd64 && *platform.os() == Os::Linux
                })
            });
            let chosen = chosen.ok_or_else(|| self.problem("the image is not there for linux/amd64"))?;
            image = self.image.clone_with_digest(chosen.digest().to_string());
        }
        Err(self.problem("an index leads to an index"))
    }

    pub(crate) fn parse<T: DeserializeOwned>(&self, text: &[u8]) -> Result<T, PullError> {
        serde_json::from_slice(text)
            .map_err(|error| self.problem(format!("a manifest that cannot be read: {error}")))
    }

    pub(crate) fn problem(&self, problem: impl Into<String>) -> PullError {
        PullError::Registry {
            registry: self.image.registry().to_string(),
            problem: problem.into(),
        }
    }

    pub(crate) fn broken(&self, problem: impl ToString) -> PullError {
        PullError::Connection {
            registry: self.image.registry().to_string(),
            problem: problem.to_string(),
            is_plain: self.is_plain,
        }
    }

    pub(crate) fn wrong_digest(&self, expected: &str, found: String) -> PullError {
        PullError::Digest {
            registry: self.image.registry().to_string(),
            expected: expected.to_string(),
            found,
        }
    }

    pub(crate) fn error(&self, error: OciDistributionError) -> PullError {
        use OciDistributionError as Error;
        let registry = self.image.registry().to_string();
        match error {
            Error::AuthenticationFailure(_) | Error::UnauthorizedError { .. } => {
                PullError::Unauthorized(registry)
            }
            Error::ServerError { code: 401 | 403, .. } => PullError::Unauthorized(registry),
            Error::ImageManifestNotFoundError(_) | Error::ServerError { code: 404, .. } => {
                PullError::NotFound(registry)
            }
            Error::RegistryError { envelope, .. } => {
                let text = envelope.errors.iter().map(|error| format!("{:?}", error.code));
                match text.collect::<Vec<_>>().join(", ") {
                    codes if codes.contains("Unknown") => PullError::NotFound(registry),
                    codes if codes.contains("Unauthorized") || codes.contains("Denied") => {
                        PullError::Unauthorized(registry)
                    }
                    codes => self.problem(format!("answers {codes}")),
                }
            }
            Error::RequestError(error) => self.broken(with_causes(&error)),
            Error::IoError(error) => self.broken(error),
            other => self.problem(other.to_string()),
        }
    }
}

/// An error with what it comes from, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// The media type of a manifest or index, also where it does not name it.
fn kind_of(document: &Value) -> String {
    match document["mediaType"].as_str() {
        Some(kind) => kind.to_string(),
        None if document["manifests"].is_array() => INDEXES[0].to_string(),
        None => MANIFESTS[0].to_string(),
    }
}

/// Whether the registry is on this machine.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address: Option<IpAddr> = name.trim_matches(['[', ']']).parse().ok();
    name == "localhost" || address.is_some_and(|address| address.is_loopback())
}

/// The digest of these bytes.
fn digest(bytes: &[u8]) -> String {
    hex(Sha256::new_with_prefix(bytes))
}

/// A digest as OCI writes it.
pub(crate) fn hex(hash: Sha256) -> String {
    let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_needs_no_tls() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.8.8.8",
            "[::1]:5000",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "localhost.lan",
            "10.0.0.1:5000",
            "127.0.0.1.lan",
            "registry:5000",
            "[::2]:1",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
