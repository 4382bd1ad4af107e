//! The client: one HTTP/1.1 connection over the agent's Unix socket for each request.
//!
//! Runs in any tokio runtime with I/O and time. A future that is dropped gives its request up; the agent then carries
//! on with what it has begun.

mod error;
mod stream;
#[cfg(test)]
mod tests;
mod upload;

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

pub use error::ClientError;
pub use stream::{GuestStream, LogStream};
pub use upload::{Upload, UploadWriter, upload};

use crate::{
    AuditRecord, AuditVerdict, ErrorBody, Health, ImageGc, ImageGcReport, ImageImport, ImageInfo,
    ImageUpload, KillRequest, LogQuery, Offer, ReclaimRequest, Reclaimed, StopRequest, UPGRADE_PROTOCOL,
    Version, Vm, VmCreate, VmStats, WaitUntil, route,
};

/// No answer but a log is longer: a bound for what a broken peer can make this process hold.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// How long the agent may take over a request that needs no work of a guest, a disk or a person.
const PROMPT: Duration = Duration::from_secs(30);

/// How long a request may take.
#[derive(Clone, Copy)]
enum Patience {
    /// The answer is only looked up or recorded.
    Prompt,
    /// The answer waits for something of unknown length.
    Endless,
}

/// A way to the agent; holds no connection.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the agent that listens on this socket.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// The agent's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Which agent answers.
    pub async fn version(&self) -> Result<Version, ClientError> {
        self.get(route::VERSION, Patience::Prompt).await
    }

    /// Whether the agent is able to work.
    pub async fn health(&self) -> Result<Health, ClientError> {
        self.get(route::HEALTH, Patience::Prompt).await
    }

    /// Creates a microVM, and starts it where `create.start` says so.
    pub async fn create_vm(&self, create: &VmCreate) -> Result<Vm, ClientError> {
        self.json(Method::POST, route::VMS, Some(create), Patience::Prompt)
            .await
    }

    /// The active microVMs, or all of them, oldest first.
    pub async fn list_vms(&self, all: bool) -> Result<Vec<Vm>, ClientError> {
        let path = route::with_query(route::VMS, &[("all", Some(all.to_string()))]);
        self.get(&path, Patience::Prompt).await
    }

    /// One microVM, by identifier or name.
    pub async fn vm(&self, vm: &str) -> Result<Vm, ClientError> {
        self.get(&route::for_vm(route::VM, vm), Patience::Prompt).await
    }

    /// Removes one, with its disk and its log.
    pub async fn delete_vm(&self, vm: &str, force: bool) -> Result<(), ClientError> {
        let path = route::with_query(
            &route::for_vm(route::VM, vm),
            &[("force", Some(force.to_string()))],
        );
        self.nothing(Method::DELETE, &path, Patience::Endless).await
    }

    /// Starts one that is not active.
    pub async fn start_vm(&self, vm: &str) -> Result<Vm, ClientError> {
        let path = route::for_vm(route::VM_START, vm);
        self.json(Method::POST, &path, None::<&()>, Patience::Prompt)
            .await
    }

    /// Stops one and waits until it has ended.
    pub async fn stop_vm(&self, vm: &str, request: &StopRequest) -> Result<Vm, ClientError> {
        let path = route::for_vm(route::VM_STOP, vm);
        self.json(Method::POST, &path, Some(request), Patience::Endless)
            .await
    }

    /// Ends one at once, or signals its workload.
    pub async fn kill_vm(&self, vm: &str, request: &KillRequest) -> Result<Vm, ClientError> {
        let path = route::for_vm(route::VM_KILL, vm);
        self.json(Method::POST, &path, Some(request), Patience::Endless)
            .await
    }

    /// Waits for a state.
    pub async fn wait_vm(&self, vm: &str, until: WaitUntil) -> Result<Vm, ClientError> {
        let until = match until {
            WaitUntil::Ended => "ended",
            WaitUntil::Started => "started",
        };
        let path = route::with_query(
            &route::for_vm(route::VM_WAIT, vm),
            &[("until", Some(until.to_string()))],
        );
        self.get(&path, Patience::Endless).await
    }

    /// What one uses now.
    pub async fn vm_stats(&self, vm: &str) -> Result<VmStats, ClientError> {
        self.get(&route::for_vm(route::VM_STATS, vm), Patience::Prompt)
            .await
    }

    /// The workload's output, as it was kept and, with `follow`, as it comes.
    pub async fn vm_logs(&self, vm: &str, query: &LogQuery) -> Result<LogStream, ClientError> {
        let path = route::with_query(
            &route::for_vm(route::VM_LOGS, vm),
            &[
                ("container", query.container.clone()),
                ("follow", query.follow.then(|| "true".to_string())),
                ("tail", query.tail.map(|n| n.to_string())),
                ("since", query.since.map(|ms| ms.to_string())),
            ],
        );
        let answer = self.ask(Method::GET, &path, None::<&()>).await?;
        Ok(LogStream::new(self.socket.clone(), answer.into_body()))
    }

    /// A stream of guest-protocol frames; the first to send is `Request::Attach`.
    pub async fn attach(&self, vm: &str) -> Result<GuestStream, ClientError> {
        self.upgrade(&route::for_vm(route::VM_ATTACH, vm)).await
    }

    /// A stream of guest-protocol frames; the first to send is `Request::Exec`.
    pub async fn exec(&self, vm: &str) -> Result<GuestStream, ClientError> {
        self.upgrade(&route::for_vm(route::VM_EXEC, vm)).await
    }

    /// All images, by name.
    pub async fn list_images(&self) -> Result<Vec<ImageInfo>, ClientError> {
        self.get(route::IMAGES, Patience::Prompt).await
    }

    /// Removes images that no microVM uses.
    pub async fn gc_images(&self, gc: &ImageGc) -> Result<ImageGcReport, ClientError> {
        self.json(Method::POST, route::IMAGES_GC, Some(gc), Patience::Endless)
            .await
    }

    /// Takes an image into the agent's store; returns when it is there and its digest was checked.
    pub async fn import_image(&self, import: &ImageImport) -> Result<ImageInfo, ClientError> {
        self.json(Method::POST, route::IMAGES, Some(import), Patience::Endless)
            .await
    }

    /// Sends the agent an image, as a tar of an OCI layout or of docker's; returns when it is in the store.
    pub async fn upload_image(&self, image: &ImageUpload, body: Upload) -> Result<ImageInfo, ClientError> {
        let path = route::with_query(route::IMAGES_UPLOAD, &[("name", Some(image.name.clone()))]);
        let request = Request::builder()
            .method(Method::POST)
            .uri(&path)
            .header(HOST, "secovia-agent")
            .header(CONTENT_TYPE, "application/x-tar")
            .body(body)
            .map_err(|source| ClientError::BadRequest(source.to_string()))?;
        let answer = self.succeeded(&path, self.send(request).await?).await?;
        let bytes = self.body(&path, answer.into_body()).await?;
        serde_json::from_slice(&bytes).map_err(|source| self.bad_answer(&path, source.to_string()))
    }

    /// Removes an image that no microVM uses.
    pub async fn delete_image(&self, name: &str) -> Result<(), ClientError> {
        self.nothing(Method::DELETE, &route::for_image(name), Patience::Prompt)
            .await
    }

    /// What is lent, and why it is not more.
    pub async fn offer(&self) -> Result<Offer, ClientError> {
        self.get(route::OFFER, Patience::Prompt).await
    }

    /// Takes the machine back; returns when it is free, or its deadline is over.
    pub async fn reclaim(&self, request: &ReclaimRequest) -> Result<Reclaimed, ClientError> {
        self.json(Method::POST, route::RECLAIM, Some(request), Patience::Endless)
            .await
    }

    /// Lends again.
    pub async fn release(&self) -> Result<(), ClientError> {
        self.nothing(Method::POST, route::RELEASE, Patience::Prompt).await
    }

    /// The last `tail` records of the audit log, or all, oldest first.
    pub async fn audit(&self, tail: Option<usize>) -> Result<Vec<AuditRecord>, ClientError> {
        let path = route::with_query(route::AUDIT, &[("tail", tail.map(|n| n.to_string()))]);
        self.get(&path, Patience::Prompt).await
    }

    /// Whether the audit log is whole.
    pub async fn verify_audit(&self) -> Result<AuditVerdict, ClientError> {
        self.get(route::AUDIT_VERIFY, Patience::Endless).await
    }

    async fn get<A: DeserializeOwned>(&self, path: &str, patience: Patience) -> Result<A, ClientError> {
        self.json(Method::GET, path, None::<&()>, patience).await
    }

    async fn json<B: Serialize, A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        patience: Patience,
    ) -> Result<A, ClientError> {
        let bytes = self.whole(method, path, body, patience).await?;
        serde_json::from_slice(&bytes).map_err(|source| self.bad_answer(path, source.to_string()))
    }

    async fn nothing(&self, method: Method, path: &str, patience: Patience) -> Result<(), ClientError> {
        self.whole(method, path, None::<&()>, patience).await.map(drop)
    }

    /// The whole body of a successful answer.
    async fn whole<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        patience: Patience,
    ) -> Result<Bytes, ClientError> {
        let work = async {
            let answer = self.ask(method, path, body).await?;
            self.body(path, answer.into_body()).await
        };
        match patience {
            Patience::Endless => work.await,
            Patience::Prompt => {
                let timeout = tokio::time::timeout(PROMPT, work).await;
                timeout.unwrap_or_else(|_| {
                    Err(ClientError::Timeout {
                        socket: self.socket.clone(),
                        seconds: PROMPT.as_secs(),
                    })
                })
            }
        }
    }

    async fn body(&self, path: &str, body: Incoming) -> Result<Bytes, ClientError> {
        match Limited::new(body, MAX_ANSWER).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(source) => Err(self.bad_answer(path, source.to_string())),
        }
    }

    /// Sends a request; an answer that is not a success becomes the error it holds.
    async fn ask<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "secovia-agent");
        let mut bytes = Bytes::new();
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json");
            bytes = serde_json::to_vec(body)
                .map_err(|source| ClientError::BadRequest(source.to_string()))?
                .into();
        }
        let request = request
            .body(Full::new(bytes))
            .map_err(|source| ClientError::BadRequest(source.to_string()))?;
        self.succeeded(path, self.send(request).await?).await
    }

    async fn succeeded(
        &self,
        path: &str,
        answer: Response<Incoming>,
    ) -> Result<Response<Incoming>, ClientError> {
        if answer.status().is_success() {
            Ok(answer)
        } else {
            Err(self.refusal(path, answer).await)
        }
    }

    async fn upgrade(&self, path: &str) -> Result<GuestStream, ClientError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, "secovia-agent")
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, UPGRADE_PROTOCOL)
            .body(Full::new(Bytes::new()))
            .map_err(|source| ClientError::BadRequest(source.to_string()))?;
        let answer = self.send(request).await?;
        match answer.status() {
            StatusCode::SWITCHING_PROTOCOLS => {
                let upgraded = hyper::upgrade::on(answer)
                    .await
                    .map_err(|source| self.bad_answer(path, source.to_string()))?;
                Ok(GuestStream::new(upgraded))
            }
            status if status.is_success() => {
                Err(self.bad_answer(path, format!("expected an upgrade, got status {status}")))
            }
            _ => Err(self.refusal(path, answer).await),
        }
    }

    async fn send<B>(&self, request: Request<B>) -> Result<Response<Incoming>, ClientError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::Connect {
                socket: self.socket.clone(),
                source,
            })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|source| self.lost(source))?;
        // Its error reaches the request that it breaks.
        tokio::spawn(connection.with_upgrades());
        sender
            .send_request(request)
            .await
            .map_err(|source| self.lost(source))
    }

    /// The error in an answer that is not a success.
    async fn refusal(&self, path: &str, answer: Response<Incoming>) -> ClientError {
        let status = answer.status();
        let bytes = match self.body(path, answer.into_body()).await {
            Ok(bytes) => bytes,
            Err(error) => return error,
        };
        match serde_json::from_slice::<ErrorBody>(&bytes) {
            Ok(body) => ClientError::Refused(body.error),
            Err(_) => self.bad_answer(path, format!("status {status} without an error body")),
        }
    }

    fn lost(&self, source: hyper::Error) -> ClientError {
        ClientError::Lost {
            socket: self.socket.clone(),
            source: source.into(),
        }
    }

    fn bad_answer(&self, path: &str, reason: String) -> ClientError {
        ClientError::BadAnswer {
            socket: self.socket.clone(),
            path: path.to_string(),
            reason,
        }
    }
}
