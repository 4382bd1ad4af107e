//! `join`: from a token to a certificate of this node's own.

use std::fs::{self, File};
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::certificate::{Purpose, validity};
use crate::error::PoolError;
use crate::home::{Home, Membership};
use crate::node::host::hostname;
use crate::region::{Who, connect, own_address};
use crate::signing::sign;

/// No token and no certificate is larger.
const FILE_MAX: u64 = 1 << 20;

/// What is known of the pool before joining it.
#[derive(Debug)]
pub struct Invitation {
    /// The URL of its API server.
    pub server: String,
    /// A file with the token that its operator gave.
    pub token: PathBuf,
    /// A file with the certificate that it is known by.
    pub ca: PathBuf,
    /// What this node is to be called there; its host name where none is given.
    pub name: Option<String>,
    /// Where the region reaches this node.
    pub address: Option<IpAddr>,
    /// At which port.
    pub port: u16,
    /// For how long the signature is waited for.
    pub patience: Duration,
}

/// Joins, or joins the same region again where it was away for so long that it does not know this node's certificate any more.
/// `tell` hears the name of the request that the operator may have to approve.
pub async fn join(
    home: &Home,
    invitation: &Invitation,
    tell: impl FnOnce(&str),
) -> Result<Membership, PoolError> {
    let before = match home.membership() {
        Err(PoolError::NotJoined { .. }) => None,
        Ok(before) if may_join_again(&before, invitation, home.read_pem(Purpose::Client)?.as_deref()) => {
            Some(before)
        }
        Ok(Membership { server, node, .. }) => return Err(PoolError::Joined { server, node }),
        Err(error) => return Err(error),
    };
    let node = match (&invitation.name, &before) {
        (Some(name), _) => node_name(name),
        (None, Some(before)) => Ok(before.node.clone()),
        (None, None) => node_name(&hostname().to_ascii_lowercase()),
    }?;
    let token = read_token(&invitation.token)?;
    let ca = fs::read(&invitation.ca).map_err(PoolError::file("read", &invitation.ca))?;
    let address = match invitation.address {
        Some(address) => address,
        None => own_address(&invitation.server)?,
    };
    let region = connect(&invitation.server, invitation.ca.clone(), Who::Token(token))?;
    let pem = sign(
        &region,
        Purpose::Client,
        (&node, address),
        invitation.patience,
        tell,
    )
    .await?;
    let membership = Membership {
        server: invitation.server.clone(),
        node,
        address,
        port: invitation.port,
        leaving: before.is_some_and(|before| before.leaving),
    };
    home.keep(&membership, &ca, pem.as_bytes())?;
    Ok(membership)
}

/// Whether a member whose certificate this is may be made one again: as the same node of the same region, and only where it
/// could not go on otherwise.
fn may_join_again(before: &Membership, invitation: &Invitation, pem: Option<&[u8]>) -> bool {
    let same = before.server == invitation.server
        && invitation.name.as_ref().is_none_or(|name| *name == before.node);
    let now_s = Timestamp::now().as_second();
    // A certificate that cannot be read is as good as none.
    let holds = pem
        .and_then(|pem| validity(pem).ok())
        .is_some_and(|validity| now_s < validity.until_s);
    same && !holds
}

/// A token that others may read is theirs too.
fn read_token(path: &Path) -> Result<String, PoolError> {
    let file = File::open(path).map_err(PoolError::file("open", path))?;
    let mode = file
        .metadata()
        .map_err(PoolError::file("read", path))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(PoolError::wrong(
            path.display(),
            "others may read it; chmod 600 it",
        ));
    }
    let mut text = String::new();
    file.take(FILE_MAX)
        .read_to_string(&mut text)
        .map_err(PoolError::file("read", path))?;
    let token = text.trim();
    // What is not one is not shown: it may be another secret.
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(PoolError::wrong(
            path.display(),
            "holds no token, which is one word on one line",
        ));
    }
    Ok(token.into())
}

/// Kubernetes' rule for the name of a node.
fn node_name(name: &str) -> Result<String, PoolError> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.len() <= 63 && name.split('.').all(label) {
        return Ok(name.into());
    }
    Err(PoolError::wrong(
        format!("the name `{name}`"),
        "use 1 to 63 of a-z, 0-9, `-` and `.`, a letter or digit at both ends of each part; say it with --name",
    ))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn a_name_is_one_that_kubernetes_takes() {
        for name in ["town", "town-1.example", "1"] {
            assert_eq!(node_name(name).unwrap(), name);
        }
        for name in ["", "Town", "a..b", "-a", "a-", "a_b", "a/b", &"x".repeat(64)] {
            assert!(node_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn only_who_cannot_go_on_joins_again() {
        let before = Membership {
            server: "https://r:6443".into(),
            node: "town".into(),
            address: IpAddr::from([10, 0, 0, 1]),
            port: 10250,
            leaving: false,
        };
        let invitation = |server: &str, name: Option<&str>| Invitation {
            server: server.into(),
            token: PathBuf::new(),
            ca: PathBuf::new(),
            name: name.map(String::from),
            address: None,
            port: 10250,
            patience: Duration::ZERO,
        };
        let until = |year| {
            let mut params = CertificateParams::default();
            params.not_after = date_time_ymd(year, 1, 1);
            let key = KeyPair::generate().unwrap();
            params.self_signed(&key).unwrap().pem()
        };
        let (over, holds) = (until(2020), until(4000));
        let may = |server, name, pem: &str| {
            may_join_again(&before, &invitation(server, name), Some(pem.as_bytes()))
        };
        for (server, name, pem, expected) in [
            ("https://r:6443", None, &over, true),
            ("https://r:6443", Some("town"), &over, true),
            ("https://r:6443", Some("other"), &over, false),
            ("https://other:6443", None, &over, false),
            ("https://r:6443", None, &holds, false),
        ] {
            assert_eq!(may(server, name, pem), expected, "{server} {name:?}");
        }
        assert!(may_join_again(&before, &invitation("https://r:6443", None), None));
    }

    #[test]
    fn a_token_is_private_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let with = |text: &str, mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            read_token(&path).map_err(|error| error.to_string())
        };
        assert_eq!(with("abc.def\n", 0o600).unwrap(), "abc.def");
        assert!(with("abc.def\n", 0o640).unwrap_err().contains("chmod 600"));
        assert!(!with("two words", 0o600).unwrap_err().contains("words\n"));
        assert!(with("\n", 0o600).is_err());
    }
}
