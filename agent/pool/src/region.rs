//! The way to the region's API server.

use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use kube::{Client, Config};
use tokio::time::timeout;

use crate::error::PoolError;

/// No single request takes longer; what does is as good as lost.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Who one is to the API server.
#[derive(Debug)]
pub enum Who {
    /// The bearer of a token.
    Token(String),
    /// The owner of the key in this file, which also holds its certificate.
    Certificate(PathBuf),
}

/// A client of the API server at `server`, which proves itself by a certificate of those in `ca`. Nothing is sent yet.
pub fn connect(server: &str, ca: PathBuf, who: Who) -> Result<Client, PoolError> {
    let mut config = config(server)?;
    // Nobody but those: not even looked for is whom this machine trusts otherwise, for there may be no such list.
    config.root_cert = Some(Vec::new());
    config.root_cert_file = Some(ca);
    config.connect_timeout = Some(PATIENCE);
    // Whoever asks knows best how long to wait before he asks again.
    config.default_retry = false;
    match who {
        Who::Token(token) => config.auth_info.token = Some(token.into()),
        Who::Certificate(pem) => {
            let pem = pem.to_string_lossy().into_owned();
            config.auth_info.client_certificate = Some(pem.clone());
            config.auth_info.client_key = Some(pem);
        }
    }
    Client::try_from(config).map_err(PoolError::region(format!("prepare to speak with {server}")))
}

fn config(server: &str) -> Result<Config, PoolError> {
    let wrong = |problem: &str| PoolError::wrong(format!("the server `{server}`"), problem);
    let uri = server
        .parse()
        .map_err(|_| wrong("is no URL; give one such as https://region.example:6443"))?;
    let config = Config::new(uri);
    match config.cluster_url.scheme_str() {
        Some("https") if config.cluster_url.host().is_some() => Ok(config),
        _ => Err(wrong(
            "has to begin with https://: without TLS anybody could be it",
        )),
    }
}

/// The address of this machine by which it reaches `server`. Nothing is sent for it.
pub fn own_address(server: &str) -> Result<IpAddr, PoolError> {
    let config = config(server)?;
    let host = config.cluster_url.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = config.cluster_url.port_u16().unwrap_or(443);
    let any = |address: &str| {
        UdpSocket::bind((address, 0)).and_then(|socket| {
            socket.connect((host, port))?;
            Ok(socket.local_addr()?.ip())
        })
    };
    any("0.0.0.0").or_else(|_| any("::")).map_err(|error| {
        let problem = format!("{error}; say with --address where it reaches this node");
        PoolError::wrong(format!("find the way to {server}"), problem)
    })
}

/// Does `request`, which is to be answered in time.
pub async fn ask<T>(operation: &str, request: impl Future<Output = kube::Result<T>>) -> Result<T, PoolError> {
    match timeout(PATIENCE, request).await {
        Ok(answer) => answer.map_err(PoolError::region(operation)),
        Err(_) => Err(PoolError::Silent {
            operation: operation.into(),
            seconds: PATIENCE.as_secs(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_that_can_prove_itself_is_spoken_to() {
        for server in ["http://r:6443", "r:6443", "", "https://", "https:// r"] {
            assert!(config(server).is_err(), "{server}");
        }
        assert!(config("https://[::1]:6443").is_ok());
    }

    #[test]
    fn the_own_address_is_the_one_that_leads_there() {
        assert_eq!(
            own_address("https://127.0.0.1:6443").unwrap(),
            IpAddr::from([127, 0, 0, 1])
        );
    }
}
