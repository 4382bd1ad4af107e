//! How this node proves itself to whoever asks, and whom it takes at his certificate's word.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::rustls::{self, crypto::ring};

use crate::error::PoolError;

/// TLS with key and certificate in `serving`, both in PEM. A client may prove himself with a certificate of an authority of
/// those in `client_ca`; one who shows none has to have a token.
pub(super) fn config(serving: &[u8], client_ca: Option<&[u8]>) -> Result<Arc<ServerConfig>, PoolError> {
    let wrong = |problem: &dyn std::fmt::Display| PoolError::wrong("the serving certificate", problem);
    let chain: Vec<_> = CertificateDer::pem_slice_iter(serving)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(&error))?;
    let key = PrivateKeyDer::from_pem_slice(serving).map_err(|error| wrong(&error))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities(pem)?), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| PoolError::wrong(CLIENT_CA, error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| wrong(&error))?;
    // Nobody is known for longer than his connection.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

const CLIENT_CA: &str = "the region's authority for clients";

fn authorities(pem: &[u8]) -> Result<RootCertStore, PoolError> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| PoolError::wrong(CLIENT_CA, error))?;
        store
            .add(certificate)
            .map_err(|error| PoolError::wrong(CLIENT_CA, error))?;
    }
    Ok(store)
}
