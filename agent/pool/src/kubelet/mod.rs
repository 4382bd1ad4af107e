//! The port at which the region asks this node for the logs and figures of its Pods, as it asks a kubelet.
//!
//! Over TLS alone, with the certificate that the region signed for it; so nothing listens before there is one. Whoever asks
//! proves himself with a certificate of the region's authority for clients, as the API server does, or with a token that the
//! region knows; and may ask what the region says that he may. That authority is the one that the API server itself tells of, in
//! the ConfigMap `kube-system/extension-apiserver-authentication`: the one that its *serving* certificate is known by may be
//! anybody's. Nothing is let in that the region cannot be asked about.
//!
//! | path | what it gives |
//! |---|---|
//! | `/containerLogs/{namespace}/{pod}/{container}` | output of a container: `follow`, `previous`, `timestamps`, `tailLines`, `sinceSeconds`, `sinceTime`, `limitBytes`, `stream` |
//! | `/metrics/resource` | what Pods use, for Prometheus and metrics-server |
//! | `/stats/summary` | the same as JSON |
//! | `/healthz` | whether the agent answers |

mod access;
mod authority;
mod cache;
mod doors;
mod figures;
mod logs;
mod review;
mod routes;
mod tls;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use kube::Client as Region;
use secovia_agent_api::client::Client as Agent;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::backoff::{Backoff, chance};
use crate::certificate::Purpose;
use crate::error::PoolError;
use crate::home::Home;
use access::User;
use authority::client_authority;
use doors::Doors;
use figures::Tally;
use review::Reviewer;
use routes::{Desk, Peer, router};

/// How long a peer may take to prove himself, and to say what he wants.
const HANDSHAKE: Duration = Duration::from_secs(10);
const REQUEST: Duration = Duration::from_secs(30);

/// A peer that takes nothing of what is sent to him for so long is gone; one that is silent is asked after so long.
const STALLED: Duration = Duration::from_secs(60);

/// The longest head of a request, in bytes, and the most headers.
const HEAD_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;

/// How often is looked whether the region has another authority for clients: where it is known, and where it is not yet.
const LOOK: Duration = Duration::from_secs(600);
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// One such port.
pub struct Kubelet {
    /// The way to the agent.
    pub agent: Agent,
    /// The way to the API server.
    pub region: Region,
    /// Where the serving certificate is.
    pub home: Home,
    /// The node's name.
    pub node: String,
    /// Where the region reaches this node.
    pub address: SocketAddr,
    /// There is a new serving certificate.
    pub renewed: Arc<Notify>,
}

impl Kubelet {
    /// Serves for as long as it is let.
    pub async fn serve(self) {
        let (tell, configs) = watch::channel(None);
        tokio::select! {
            () = self.keep_tls(&tell) => {}
            () = self.answer(configs) => {}
        }
    }

    /// Keeps what TLS is made of up to date.
    async fn keep_tls(&self, tell: &watch::Sender<Option<Arc<ServerConfig>>>) {
        let mut authority: Option<String> = None;
        let mut is_told = false;
        loop {
            match client_authority(&self.region).await {
                Ok(found) => {
                    authority = Some(found);
                    is_told = false;
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_told, true) {
                        log::warn!("{error}; until then nobody is known by his certificate");
                    }
                }
            }
            match self.config(authority.as_deref()) {
                Ok(config) => {
                    tell.send_replace(config);
                }
                Err(error) => log::warn!("{error}"),
            }
            tokio::select! {
                () = self.renewed.notified() => {}
                () = sleep(if is_told || authority.is_none() { LOOK_AGAIN } else { LOOK }) => {}
            }
        }
    }

    fn config(&self, authority: Option<&str>) -> Result<Option<Arc<ServerConfig>>, PoolError> {
        let pem = self.home.read_pem(Purpose::Serving)?;
        let config = pem.map(|pem| tls::config(&pem, authority.map(str::as_bytes)));
        config.transpose()
    }

    async fn answer(&self, mut configs: watch::Receiver<Option<Arc<ServerConfig>>>) {
        let desk = Desk {
            agent: self.agent.clone(),
            node: self.node.clone(),
            reviewer: Reviewer::new(&self.region, self.node.clone()),
            tally: Mutex::new(Tally::default()),
        };
        let router = router(Arc::new(desk));
        if configs.wait_for(Option::is_some).await.is_err() {
            return;
        }
        let listener = self.listen().await;
        let doors = Doors::default();
        let mut connections = JoinSet::new();
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
        loop {
            while connections.try_join_next().is_some() {}
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    log::debug!("accept a connection at port {}: {error}", self.address.port());
                    sleep(backoff.failed(chance())).await;
                    continue;
                }
            };
            backoff.succeeded();
            let (Some(door), Some(config)) = (doors.enter(peer.ip()), configs.borrow().clone()) else {
                continue;
            };
            let router = router.clone();
            connections.spawn(async move {
                if let Err(error) = connection(stream, config, router).await {
                    log::debug!("connection from {peer}: {error}");
                }
                drop(door);
            });
        }
    }

    async fn listen(&self) -> TcpListener {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        loop {
            match bind(self.address).await {
                Ok(listener) => {
                    log::info!("logs and figures of Pods are given at {}", self.address);
                    return listener;
                }
                Err(error) => {
                    if backoff.failures() == 0 {
                        log::warn!("listen at {}: {error}; join with another --port", self.address);
                    }
                    sleep(backoff.failed(chance())).await;
                }
            }
        }
    }
}

/// At this address; at all, where it is not this machine's own but that of something before it.
async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            let any: IpAddr = match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            TcpListener::bind((any, address.port())).await
        }
        bound => bound,
    }
}

async fn connection(stream: TcpStream, config: Arc<ServerConfig>, router: Router) -> io::Result<()> {
    let socket = SockRef::from(&stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(STALLED))?;
    socket.set_tcp_user_timeout(Some(STALLED))?;
    let stream = timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await??;
    let shown = stream.get_ref().1.peer_certificates();
    let peer: Peer = shown.and_then(|chain| User::of_certificate(chain.first()?));
    let service = TowerToHyperService::new(router.layer(Extension(peer)));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST)
        .max_buf_size(HEAD_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(io::Error::other)
}
