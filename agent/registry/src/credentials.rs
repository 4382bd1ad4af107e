//! Who one is to a registry, from a file: `{"auths": {"REGISTRY": {"auth": "..."}}}`, where the last is `user:password` in
//! base64, as `docker login` and `skopeo login --authfile` write it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;

use crate::error::PullError;

/// No such file is larger.
const SIZE_MAX: u64 = 1 << 20;

/// Docker's own registry has another name in such files.
const DOCKER: [&str; 2] = ["docker.io", "index.docker.io"];
const DOCKER_KEY: &str = "https://index.docker.io/v1/";

#[derive(Deserialize)]
struct Auths {
    auths: BTreeMap<String, Auth>,
}

#[derive(Deserialize)]
struct Auth {
    auth: Option<String>,
}

/// What `file` has for `registry`.
pub(crate) fn read(file: &Path, registry: &str) -> Result<RegistryAuth, PullError> {
    let wrong = |problem: String| PullError::Credentials {
        path: file.to_path_buf(),
        problem,
    };
    let opened = File::open(file).map_err(|error| wrong(error.to_string()))?;
    let mode = opened
        .metadata()
        .map_err(|error| wrong(error.to_string()))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(wrong("others may read it; chmod 600 it".into()));
    }
    let mut text = String::new();
    opened
        .take(SIZE_MAX)
        .read_to_string(&mut text)
        .map_err(|error| wrong(error.to_string()))?;
    parse(&text, registry).map_err(wrong)
}

fn parse(text: &str, registry: &str) -> Result<RegistryAuth, String> {
    // Not what was read: an error of the parser may quote it.
    let auths: Auths = serde_json::from_str(text)
        .map_err(|error| format!("is not what `docker login` writes (line {})", error.line()))?;
    let of_docker = || {
        DOCKER
            .contains(&registry)
            .then(|| auths.auths.get(DOCKER_KEY))
            .flatten()
    };
    let Some(auth) = auths.auths.get(registry).or_else(of_docker) else {
        let known: Vec<&str> = auths.auths.keys().map(String::as_str).collect();
        return Err(format!(
            "has nothing for `{registry}`, only for: {}",
            known.join(", ")
        ));
    };
    let pair = auth.auth.as_ref().and_then(|auth| STANDARD.decode(auth).ok());
    let pair = pair.and_then(|pair| String::from_utf8(pair).ok());
    match pair.as_deref().and_then(|pair| pair.split_once(':')) {
        Some((user, password)) => Ok(RegistryAuth::Basic(user.into(), password.into())),
        None => Err(format!(
            "has no `auth` with `user:password` in base64 for `{registry}`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_writes_is_read() {
        let text = r#"{"auths": {"r.lan:5000": {"auth": "dXNlcjpwYXNzOndvcmQ="},
            "https://index.docker.io/v1/": {"auth": "YTpi"}, "odd": {"auth": "nothing"}}, "credsStore": "x"}"#;
        let basic = |user: &str, password: &str| RegistryAuth::Basic(user.into(), password.into());
        assert_eq!(parse(text, "r.lan:5000"), Ok(basic("user", "pass:word")));
        assert_eq!(parse(text, "docker.io"), Ok(basic("a", "b")));
        assert!(parse(text, "other").unwrap_err().contains("only for: https"));
        assert!(parse(text, "odd").unwrap_err().contains("in base64"));
        let secret = parse(r#"{"auths": {"x": {"auth": secret}}}"#, "x").unwrap_err();
        assert!(
            secret.contains("docker login") && !secret.contains("secret"),
            "{secret}"
        );
    }
}
