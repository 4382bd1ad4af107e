//! Keys that never leave this node, requests for certificates, and what the certificates say.

mod renewal;

use std::net::IpAddr;

use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::PoolError;
pub use renewal::Validity;

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To be known by the API server.
    Client,
    /// To be known by whoever asks this node for logs and figures.
    Serving,
}

impl Purpose {
    /// Who signs it, in Kubernetes' words.
    pub fn signer(self) -> &'static str {
        match self {
            Self::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Self::Serving => "kubernetes.io/kubelet-serving",
        }
    }

    /// What its key may do: exactly what its signer demands.
    pub fn usages(self) -> [&'static str; 3] {
        let role = match self {
            Self::Client => "client auth",
            Self::Serving => "server auth",
        };
        ["digital signature", "key encipherment", role]
    }
}

/// A key that was made for a request.
#[derive(Debug)]
pub struct Request {
    key: KeyPair,
    /// The request, in PEM.
    pub pem: String,
}

impl Request {
    /// Makes a key, and asks for a certificate of the node `node`.
    pub fn new(purpose: Purpose, node: &str, address: IpAddr) -> Result<Self, PoolError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "system:nodes");
        params
            .distinguished_name
            .push(DnType::CommonName, format!("system:node:{node}"));
        // The signer of client certificates refuses requests that name addresses.
        if purpose == Purpose::Serving {
            params.subject_alt_names = vec![SanType::DnsName(node.try_into()?), SanType::IpAddress(address)];
        }
        let pem = params.serialize_request(&key)?.pem()?;
        Ok(Self { key, pem })
    }

    /// Key and certificate in one text, where the certificate is for this key.
    pub fn completed(&self, certificate: &[u8]) -> Result<String, PoolError> {
        let text = str::from_utf8(certificate).map_err(|error| wrong_certificate(&error.to_string()))?;
        let (_, key) = read(certificate)?;
        if key != self.key.public_key_raw() {
            return Err(wrong_certificate("it is for another key"));
        }
        Ok(format!("{}{text}", self.key.serialize_pem()))
    }
}

/// From when to when the first certificate in `pem` holds.
pub fn validity(pem: &[u8]) -> Result<Validity, PoolError> {
    read(pem).map(|(validity, _)| validity)
}

fn wrong_certificate(problem: &str) -> PoolError {
    PoolError::wrong("the certificate that the region gave", problem)
}

/// The first certificate's validity, and its public key.
fn read(pem: &[u8]) -> Result<(Validity, Vec<u8>), PoolError> {
    let blocks = Pem::iter_from_buffer(pem).map_while(Result::ok);
    let Some(block) = blocks.into_iter().find(|block| block.label == "CERTIFICATE") else {
        return Err(wrong_certificate("there is none in it"));
    };
    let (_, certificate) =
        X509Certificate::from_der(&block.contents).map_err(|error| wrong_certificate(&error.to_string()))?;
    let validity = Validity {
        from_s: certificate.validity().not_before.timestamp(),
        until_s: certificate.validity().not_after.timestamp(),
    };
    let key = certificate.public_key().subject_public_key.data.to_vec();
    Ok((validity, key))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateSigningRequestParams, CertifiedIssuer, Issuer};

    use super::*;

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        CertifiedIssuer::self_signed(CertificateParams::default(), KeyPair::generate().unwrap()).unwrap()
    }

    fn sign(authority: &Issuer<'_, KeyPair>, request: &str) -> String {
        let request = CertificateSigningRequestParams::from_pem(request).unwrap();
        request.signed_by(authority).unwrap().pem()
    }

    #[test]
    fn a_certificate_is_kept_with_its_key_and_no_other() {
        let authority = authority();
        let address = IpAddr::from([10, 0, 0, 1]);
        let request = Request::new(Purpose::Serving, "town", address).unwrap();
        let other = Request::new(Purpose::Client, "town", address).unwrap();
        let certificate = sign(&authority, &request.pem);
        let pem = request.completed(certificate.as_bytes()).unwrap();
        assert!(pem.contains("PRIVATE KEY") && pem.ends_with(&certificate));
        assert!(validity(pem.as_bytes()).unwrap().until_s > 0);
        let error = other.completed(certificate.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("another key"), "{error}");
        for nonsense in [
            "",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            assert!(request.completed(nonsense.as_bytes()).is_err());
        }
    }

    #[test]
    fn only_what_serves_says_where() {
        let address = IpAddr::from([10, 0, 0, 1]);
        for (purpose, names) in [(Purpose::Client, 0), (Purpose::Serving, 2)] {
            let request = Request::new(purpose, "town", address).unwrap();
            let parsed = CertificateSigningRequestParams::from_pem(&request.pem).unwrap();
            assert_eq!(parsed.params.subject_alt_names.len(), names);
            let name = parsed.params.distinguished_name.get(&DnType::CommonName).unwrap();
            assert!(format!("{name:?}").contains("system:node:town"));
        }
    }
}
