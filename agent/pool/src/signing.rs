//! Has a certificate signed by the region.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep};

use crate::backoff::{Backoff, chance};
use crate::certificate::{Purpose, Request};
use crate::error::PoolError;
use crate::region::ask;

/// How often is looked whether it is signed.
const POLL: Duration = Duration::from_secs(1);

/// Asks for a certificate, waits for it, and gives key and certificate in PEM. `tell` hears the name of the request.
pub async fn sign(
    client: &Client,
    purpose: Purpose,
    (node, address): (&str, IpAddr),
    patience: Duration,
    tell: impl FnOnce(&str),
) -> Result<String, PoolError> {
    let request = Request::new(purpose, node, address)?;
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let wanted = CertificateSigningRequest {
        metadata: ObjectMeta {
            generate_name: Some("secovia-".into()),
            ..ObjectMeta::default()
        },
        spec: CertificateSigningRequestSpec {
            request: ByteString(request.pem.clone().into_bytes()),
            signer_name: purpose.signer().into(),
            usages: Some(purpose.usages().map(String::from).into()),
            ..CertificateSigningRequestSpec::default()
        },
        ..CertificateSigningRequest::default()
    };
    let made = ask(
        "ask for a certificate",
        api.create(&PostParams::default(), &wanted),
    )
    .await?;
    let name = made.metadata.name.unwrap_or_default();
    tell(&name);
    let operation = format!("look at the certificate request `{name}`");
    let mut backoff = Backoff::new(POLL, Duration::from_secs(30));
    let begun = Instant::now();
    while begun.elapsed() < patience {
        match ask(&operation, api.get(&name)).await {
            Ok(found) => {
                backoff.succeeded();
                if let Some(certificate) = outcome(&name, found)? {
                    return request.completed(&certificate);
                }
                sleep(POLL).await;
            }
            Err(error) if error.is_passing() => sleep(backoff.failed(chance())).await,
            Err(error) => return Err(error),
        }
    }
    Err(PoolError::Unapproved {
        request: name,
        seconds: patience.as_secs(),
    })
}

/// The certificate, where it is there.
fn outcome(name: &str, found: CertificateSigningRequest) -> Result<Option<Vec<u8>>, PoolError> {
    let status = found.status.unwrap_or_default();
    if let Some(certificate) = status.certificate.filter(|certificate| !certificate.0.is_empty()) {
        return Ok(Some(certificate.0));
    }
    let refused = status.conditions.into_iter().flatten();
    match refused
        .into_iter()
        .find(|condition| ["Denied", "Failed"].contains(&condition.type_.as_str()))
    {
        Some(condition) => Err(PoolError::Denied {
            request: name.into(),
            reason: condition.message.unwrap_or(condition.type_),
        }),
        None => Ok(None),
    }
}
