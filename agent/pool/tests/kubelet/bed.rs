//! Stand-ins for the region and the agent, authorities of their own, and a client.

use std::io::{Error, Result};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream;
use rcgen::{
    CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    SerialNumber,
};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use secovia_agent_api::client::Client as Agent;
use secovia_agent_api::{LogBytes, LogEvent, LogQuery, LogRecord, route};
use secovia_pool::certificate::Purpose;
use secovia_pool::home::Home;
use secovia_pool::kubelet::Kubelet;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsConnector, client::TlsStream, rustls};

type Authority = CertifiedIssuer<'static, KeyPair>;

/// What somebody shows.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shown<'a> {
    Nothing,
    Token(&'a str),
    Certificate(&'a str),
    StrangersCertificate,
}

struct World {
    authority: String,
    fails: bool,
    reviews: (u32, u32),
    starts: u32,
    ended_ms: Option<u64>,
    records: Vec<LogRecord>,
}

type Shared = (Arc<Mutex<World>>, watch::Sender<usize>);

pub(crate) struct Bed {
    shared: Shared,
    dir: tempfile::TempDir,
    address: SocketAddr,
    region: Authority,
    strangers: Authority,
    renewed: Arc<Notify>,
    kubelet: JoinHandle<()>,
}

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn certificate(
    authority: &Authority,
    name: &str,
    purpose: ExtendedKeyUsagePurpose,
) -> (rcgen::Certificate, KeyPair) {
    static SERIAL: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_string()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![purpose];
    params.serial_number = Some(SerialNumber::from(
        SERIAL.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
    ));
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, authority).unwrap(), key)
}

fn now_ms() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64
}

impl Bed {
    pub(crate) async fn start() -> Self {
        let (region, strangers) = (authority(), authority());
        let world = World {
            authority: region.pem(),
            fails: false,
            reviews: (0, 0),
            starts: 1,
            ended_ms: None,
            records: Vec::new(),
        };
        let shared: Shared = (Arc::new(Mutex::new(world)), watch::Sender::new(0));
        let dir = tempfile::tempdir().unwrap();
        let agent = Router::new()
            .route(
                route::HEALTH,
                get(async || Json(json!({"status": "ok", "problems": [], "running": 1}))),
            )
            .route(route::VMS, get(vms))
            .route(route::VM, get(vm))
            .route(route::VM_STATS, get(stats))
            .route(route::VM_LOGS, get(logs))
            .with_state(shared.clone());
        let socket = UnixListener::bind(dir.path().join("agent.sock")).unwrap();
        tokio::spawn(async { axum::serve(socket, agent).await });
        let server = Router::new()
            .route("/apis/authentication.k8s.io/v1/tokenreviews", post(token))
            .route("/apis/authorization.k8s.io/v1/subjectaccessreviews", post(access))
            .route(
                "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication",
                get(map),
            )
            .with_state(shared.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, server).await });
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let mut config = kube::Config::new(url.parse().unwrap());
        config.default_retry = false;
        let renewed = Arc::new(Notify::new());
        let kubelet = Kubelet {
            agent: Agent::new(dir.path().join("agent.sock")),
            region: kube::Client::try_from(config).unwrap(),
            home: Home::new(dir.path().join("pool")),
            node: "node-1".into(),
            address,
            renewed: renewed.clone(),
        };
        let bed = Self {
            shared,
            dir,
            address,
            region,
            strangers,
            renewed,
            kubelet: tokio::spawn(kubelet.serve()),
        };
        for line in ["one\n", "two\n", "three\n"] {
            bed.say(line);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(
            TcpStream::connect(address).await.is_err(),
            "without a certificate nothing listens"
        );
        bed.renew();
        for _ in 0..500 {
            if TcpStream::connect(address).await.is_ok() {
                return bed;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("nothing listens at {address}");
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.shared.0.lock().unwrap()
    }

    pub(crate) fn fail(&self, fails: bool) {
        self.world().fails = fails;
    }

    /// How often it was asked about tokens and permissions.
    pub(crate) fn reviews(&self) -> (u32, u32) {
        self.world().reviews
    }

    /// The workload says something.
    pub(crate) fn say(&self, text: &str) {
        let record = LogRecord {
            at_ms: now_ms(),
            event: LogEvent::Stdout(LogBytes::Text(text.into())),
        };
        let mut world = self.world();
        world.records.push(record);
        self.shared.1.send_replace(world.records.len());
    }

    /// The workload ends, and is started again.
    pub(crate) fn start_again(&self) {
        let mut world = self.world();
        world.ended_ms = Some(now_ms());
        world.starts += 1;
        drop(world);
        std::thread::sleep(Duration::from_millis(5));
    }

    /// The node has another serving certificate.
    pub(crate) fn renew(&self) {
        let (certificate, key) = certificate(
            &self.region,
            "system:node:node-1",
            ExtendedKeyUsagePurpose::ServerAuth,
        );
        let pem = format!("{}{}", key.serialize_pem(), certificate.pem());
        let home = Home::new(self.dir.path().join("pool"));
        home.write_pem(Purpose::Serving, pem.as_bytes()).unwrap();
        self.renewed.notify_one();
    }

    /// The region takes the strangers' certificates from now on, and no others.
    pub(crate) fn change_authority(&self) {
        self.world().authority = self.strangers.pem();
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes, and gives how many of an HTTP answer come back.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> usize {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer))
            .await
            .unwrap();
        if answer.starts_with(b"HTTP") {
            answer.len()
        } else {
            0
        }
    }

    async fn tls(&self, shown: Shown<'_>) -> Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.region.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let whose = match shown {
            Shown::Certificate(name) => Some((&self.region, name)),
            Shown::StrangersCertificate => Some((&self.strangers, "apiserver")),
            _ => None,
        };
        let config = match whose {
            Some((authority, name)) => {
                let (certificate, key) = certificate(authority, name, ExtendedKeyUsagePurpose::ClientAuth);
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                builder
                    .with_client_auth_cert(vec![certificate.der().clone()], key)
                    .unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    pub(crate) async fn get(&self, path: &str, shown: Shown<'_>) -> (u16, String) {
        self.try_get(path, shown).await.unwrap()
    }

    /// The certificate that the node shows.
    pub(crate) async fn serial(&self, shown: Shown<'_>) -> Vec<u8> {
        let stream = self.tls(shown).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }

    /// Status and text of the answer.
    pub(crate) async fn try_get(&self, path: &str, shown: Shown<'_>) -> Result<(u16, String)> {
        let mut stream = self.tls(shown).await?;
        let header = match shown {
            Shown::Token(token) => format!("Authorization: Bearer {token}\r\n"),
            _ => String::new(),
        };
        let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n{header}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await??;
        let text = String::from_utf8(answer).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").ok_or(Error::other("no answer"))?;
        let status = head[9..12].parse().unwrap();
        let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        Ok((status, if is_chunked { unchunked(body) } else { body.into() }))
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.kubelet.abort();
    }
}

fn unchunked(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        text.push_str(&rest[..size]);
        body = &rest[size + 2..];
    }
    text
}

fn refusal() -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "told so", "code": 500, "reason": ""});
    (StatusCode::INTERNAL_SERVER_ERROR, Json(status)).into_response()
}

async fn token(State((world, _)): State<Shared>, Json(mut review): Json<Value>) -> Response {
    let mut world = world.lock().unwrap();
    if world.fails {
        return refusal();
    }
    world.reviews.0 += 1;
    let token = review["spec"]["token"].as_str().unwrap();
    review["status"] = match token {
        "operator" | "viewer" => {
            json!({"authenticated": true, "user": {"username": token, "groups": ["people"], "extra": {"from": ["here"]}}})
        }
        _ => json!({"authenticated": false}),
    };
    (StatusCode::CREATED, Json(review)).into_response()
}

async fn access(State((world, _)): State<Shared>, Json(mut review): Json<Value>) -> Response {
    let mut world = world.lock().unwrap();
    if world.fails {
        return refusal();
    }
    world.reviews.1 += 1;
    let wanted = &review["spec"]["resourceAttributes"];
    assert_eq!(
        (&wanted["resource"], &wanted["name"]),
        (&json!("nodes"), &json!("node-1"))
    );
    let allowed = match review["spec"]["user"].as_str().unwrap() {
        "operator" => review["spec"]["extra"]["from"][0] == "here",
        "apiserver" => true,
        _ => wanted["subresource"] == "metrics",
    };
    review["status"] = json!({"allowed": allowed});
    (StatusCode::CREATED, Json(review)).into_response()
}

async fn map(State((world, _)): State<Shared>) -> Response {
    let authority = world.lock().unwrap().authority.clone();
    Json(json!({"metadata": {"name": "x"}, "data": {"client-ca-file": authority}})).into_response()
}

fn shown(world: &World) -> Value {
    let last = world
        .ended_ms
        .map(|ended_ms| json!({"started_at_ms": 1, "ended_at_ms": ended_ms, "code": 1, "reason": null}));
    json!({
        "id": "0123456789abcdef", "name": "web-1", "state": {"status": "running"}, "image": "i", "image_digest": "d",
        "command": [], "env": {}, "user": null, "working_dir": null, "cpus": 1, "memory_mib": 64, "disk_mib": null,
        "restart": {"policy": "always"}, "rm": false, "tty": false, "stdin": false, "created_at_ms": 1,
        "started_at_ms": 1_000, "ended_at_ms": null, "restarts": 0, "vmm_pid": null, "timing": null,
        "starts": world.starts, "last_run": last,
        "labels": {"secovia.pod/uid": "u", "secovia.pod/namespace": "town", "secovia.pod/name": "web",
            "secovia.pod/container": "main"},
    })
}

async fn vms(State((world, _)): State<Shared>) -> Json<Value> {
    Json(json!([shown(&world.lock().unwrap())]))
}

async fn vm(State((world, _)): State<Shared>, Path(_): Path<String>) -> Json<Value> {
    Json(shown(&world.lock().unwrap()))
}

async fn stats(Path(_): Path<String>) -> Json<Value> {
    Json(
        json!({"id": "0123456789abcdef", "name": "web-1", "at_ms": 5_000, "cpu_time_us": 1_500_000, "memory_bytes": 4_096,
        "memory_limit_bytes": 1 << 26, "read_bytes": 0, "written_bytes": 0, "uptime_s": 4}),
    )
}

/// As the agent has it: the last lines of what is there, then what comes, for as long as the microVM is wanted.
async fn logs(
    State((world, news)): State<Shared>,
    Path(_): Path<String>,
    Query(query): Query<LogQuery>,
) -> Response {
    let records = world.lock().unwrap().records.clone();
    let from = query
        .tail
        .map_or(0, |tail| records.len().saturating_sub(tail as usize));
    let since = query.since.unwrap_or(0);
    let line = |record: &LogRecord| format!("{}\n", serde_json::to_string(record).unwrap());
    if !query.follow {
        let lines = records[from..].iter().filter(|record| record.at_ms >= since);
        return lines.map(line).collect::<String>().into_response();
    }
    let lines = stream::unfold(
        (world, news.subscribe(), from),
        move |(world, mut news, at)| async move {
            news.wait_for(|count| *count > at).await.ok()?;
            let text = line(&world.lock().unwrap().records[at]);
            Some((Ok::<_, Error>(text), (world, news, at + 1)))
        },
    );
    axum::body::Body::from_stream(lines).into_response()
}
