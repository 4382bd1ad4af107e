//! Who asks, and what he has to be allowed for it: pure.
//!
//! Source: "Kubelet authentication/authorization" in Kubernetes' documentation.

use std::collections::BTreeMap;

use axum::http::Method;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The group of everybody who is known.
const KNOWN: &str = "system:authenticated";

/// Somebody whom the region knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct User {
    /// His name.
    pub(super) name: String,
    /// What tells him from another of that name, where there is something.
    pub(super) uid: Option<String>,
    /// What he belongs to.
    pub(super) groups: Vec<String>,
    /// What else the region says of him, which it wants to hear again.
    pub(super) extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// Whose this certificate is, which the region's authority has signed: name and groups are its common name and its
    /// organisations, as the API server itself has it.
    pub(super) fn of_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?;
        let groups = subject
            .iter_organization()
            .filter_map(|group| Some(group.as_str().ok()?.to_string()));
        (!name.is_empty()).then(|| Self {
            name: name.into(),
            groups: groups.chain([KNOWN.to_string()]).collect(),
            ..Self::default()
        })
    }
}

/// What has to be allowed: a verb on a part of this Node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Need {
    /// In the API's words.
    pub(super) verb: &'static str,
    /// The part, as a subresource.
    pub(super) part: &'static str,
}

impl Need {
    /// What a kubelet demands for this request.
    pub(super) fn of(method: &Method, path: &str) -> Self {
        let verb = match *method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "get",
        };
        let below =
            |part: &str| path == part || path.strip_prefix(part).is_some_and(|rest| rest.starts_with('/'));
        let part = match () {
            () if below("/stats") => "stats",
            () if below("/metrics") => "metrics",
            () if below("/logs") => "log",
            () => "proxy",
        };
        Self { verb, part }
    }
}

/// The token that is shown, where one is.
pub(super) fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    let token = token.trim();
    let is_one = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    (scheme.eq_ignore_ascii_case("bearer") && is_one).then_some(token)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    #[test]
    fn a_request_needs_what_a_kubelet_demands() {
        for (method, path, verb, part) in [
            (Method::GET, "/containerLogs/ns/pod/main", "get", "proxy"),
            (Method::GET, "/metrics/resource", "get", "metrics"),
            (Method::GET, "/metrics", "get", "metrics"),
            (Method::GET, "/metricsx", "get", "proxy"),
            (Method::GET, "/stats/summary", "get", "stats"),
            (Method::GET, "/logs/x", "get", "log"),
            (Method::GET, "/healthz", "get", "proxy"),
            (Method::POST, "/exec/ns/pod/main", "create", "proxy"),
            (Method::HEAD, "/stats/summary", "get", "stats"),
        ] {
            assert_eq!(Need::of(&method, path), Need { verb, part }, "{method} {path}");
        }
    }

    #[test]
    fn a_user_is_who_the_certificate_says() {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "system:masters");
        params
            .distinguished_name
            .push(DnType::CommonName, "kube-apiserver");
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let user = User::of_certificate(certificate.der()).unwrap();
        assert_eq!(user.name, "kube-apiserver");
        assert_eq!(user.groups, ["system:masters", KNOWN]);
        let mut nobody = CertificateParams::default();
        nobody.distinguished_name = DistinguishedName::new();
        let nobody = nobody.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(User::of_certificate(nobody.der()), None);
        assert_eq!(User::of_certificate(b"\x30\x03"), None);
    }

    #[test]
    fn a_token_is_one_word() {
        assert_eq!(bearer("Bearer a.b"), Some("a.b"));
        assert_eq!(bearer("bearer  a.b "), Some("a.b"));
        for text in ["", "Bearer", "Bearer ", "Basic a", "Bearer a b"] {
            assert_eq!(bearer(text), None, "{text}");
        }
    }
}
