//! An agent that answers as a test says, and remembers what it was asked.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use secovia_guest_protocol::{Decoder, Frame, encode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::runtime::Runtime;

/// A guest's end of a session.
pub(crate) struct Guest {
    stream: TokioIo<Upgraded>,
    decoder: Decoder,
}

impl Guest {
    /// The next frame; `None` when the client hung up.
    pub(crate) async fn receive(&mut self) -> Option<Frame> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            match self.stream.read(&mut buffer).await {
                Ok(n) if n > 0 => self.decoder.push(&buffer[..n]),
                Ok(_) | Err(_) => return None,
            }
        }
    }

    /// Sends a frame; a client that hung up does not mind.
    pub(crate) async fn send(&mut self, frame: Frame) {
        let _ = self.stream.write_all(&encode(&frame).unwrap()).await;
        let _ = self.stream.flush().await;
    }
}

type Session = Box<dyn FnOnce(Guest) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// What the agent answers to one request.
pub(crate) enum Answer {
    /// This status with this JSON.
    Json(u16, Value),
    /// This status with this text.
    Text(u16, String),
    /// 101, then this conversation.
    Session(Session),
    /// Nothing, ever.
    Never,
}

impl Answer {
    /// An upgrade to a conversation.
    pub(crate) fn session<F>(talk: impl FnOnce(Guest) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::Session(Box::new(|guest| Box::pin(talk(guest))))
    }

    /// An error of the agent's.
    pub(crate) fn error(status: u16, code: &str, message: &str) -> Self {
        Self::Json(status, json!({"error": {"code": code, "message": message}}))
    }
}

/// A rule: method, path with query, and the answers in turn; the last is given again where it can be.
struct Rule {
    request: String,
    answers: VecDeque<Answer>,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    seen: Vec<(String, Value)>,
}

impl State {
    fn answer(&mut self, request: &str) -> Answer {
        let Some(rule) = self.rules.iter_mut().find(|rule| rule.request == request) else {
            return Answer::error(
                404,
                "route_not_found",
                &format!("the test has no answer to {request}"),
            );
        };
        match rule.answers.pop_front() {
            Some(Answer::Json(status, value)) => {
                if rule.answers.is_empty() {
                    rule.answers.push_back(Answer::Json(status, value.clone()));
                }
                Answer::Json(status, value)
            }
            Some(answer) => answer,
            None => Answer::error(
                500,
                "internal",
                &format!("the test has no more answers to {request}"),
            ),
        }
    }
}

/// The agent.
pub(crate) struct FakeAgent {
    dir: TempDir,
    state: Arc<Mutex<State>>,
    // Ends the server when it is dropped.
    _runtime: Runtime,
}

impl FakeAgent {
    /// An agent that answers 404 to everything.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(dir.path().join("agent.sock")).unwrap()
        };
        runtime.spawn(serve(listener, Arc::clone(&state)));
        Self {
            dir,
            state,
            _runtime: runtime,
        }
    }

    /// Answers `request`, for example `GET /v1/vms/web`, so; several calls answer in turn.
    pub(crate) fn on(&self, request: &str, answer: Answer) -> &Self {
        let mut state = self.state.lock().unwrap();
        match state.rules.iter_mut().find(|rule| rule.request == request) {
            Some(rule) => rule.answers.push_back(answer),
            None => state.rules.push(Rule {
                request: request.into(),
                answers: [answer].into(),
            }),
        }
        self
    }

    /// The bodies of all requests of this kind.
    pub(crate) fn seen(&self, request: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        let bodies = state.seen.iter().filter(|(seen, _)| seen == request);
        bodies.map(|(_, body)| body.clone()).collect()
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("agent.sock")
    }

    /// A command line for it.
    pub(crate) fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_secovia"));
        command.env("SECOVIA_SOCKET", self.socket()).args(line);
        command
    }

    /// Runs a command line to its end, with an empty standard input.
    pub(crate) fn run(&self, line: &[&str]) -> Output {
        self.command(line)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap()
    }
}

async fn serve(listener: UnixListener, state: Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(|request| respond(request, Arc::clone(&state)));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
        });
    }
}

async fn respond(
    mut request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let line = format!("{} {}", request.method(), request.uri());
    let body = request.body_mut().collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let answer = {
        let mut state = state.lock().unwrap();
        state.seen.push((line.clone(), body));
        state.answer(&line)
    };
    let (status, text) = match answer {
        Answer::Json(status, value) => (status, value.to_string()),
        Answer::Text(status, text) => (status, text),
        Answer::Never => std::future::pending().await,
        Answer::Session(talk) => {
            let upgrade = hyper::upgrade::on(request);
            tokio::spawn(async move {
                let guest = Guest {
                    stream: TokioIo::new(upgrade.await.unwrap()),
                    decoder: Decoder::default(),
                };
                talk(guest).await;
            });
            let answer = Response::builder()
                .status(101)
                .header("connection", "upgrade")
                .header("upgrade", "secovia-guest/1")
                .body(Full::default());
            return Ok(answer.unwrap());
        }
    };
    Ok(Response::builder().status(status).body(Full::from(text)).unwrap())
}

/// A microVM named `web` in this state, as the agent shows it.
pub(crate) fn web(state: Value) -> Value {
    json!({
        "id": "0123456789abcdef", "name": "web", "state": state, "image": "web", "image_digest": "sha256:00",
        "command": ["nginx"], "env": {"PATH": "/bin"}, "user": null, "working_dir": null, "cpus": 1,
        "memory_mib": 256, "disk_mib": null, "restart": {"policy": "no"}, "rm": false, "tty": false, "stdin": false,
        "created_at_ms": 1, "started_at_ms": 2, "ended_at_ms": null, "restarts": 0, "vmm_pid": 7, "timing": null,
    })
}

/// What was written to standard output and to standard error.
pub(crate) fn texts(output: &Output) -> (String, String) {
    (
        String::from_utf8(output.stdout.clone()).unwrap(),
        String::from_utf8(output.stderr.clone()).unwrap(),
    )
}
