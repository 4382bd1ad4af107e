//! Attach and exec: the connection becomes one to the guest.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use secovia_agent_api::{ErrorBody, ErrorCode, UPGRADE_PROTOCOL, VmState, route};
use secovia_guest_protocol::{Frame, GuestError, GuestErrorCode, encode};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::error::ApiError;
use crate::guest::{self, GuestCallError, first_frame};
use crate::node::{self, Node, NodeError};
use crate::supervisor::{Handle, Sessions};

/// How long a client may take to say what it wants, and a guest to answer that.
const FIRST_FRAME: Duration = Duration::from_secs(30);

const COPY_BUFFER: usize = 64 * 1024;

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Attach,
    Exec,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Attach => "attach",
            Self::Exec => "exec",
        }
    }

    fn begins_with(self, frame: &Frame) -> bool {
        use secovia_guest_protocol::Request::{Attach, AttachTo, Exec, ExecIn};
        match self {
            Self::Attach => matches!(frame, Frame::Request(Attach { .. } | AttachTo { .. })),
            Self::Exec => matches!(frame, Frame::Request(Exec(_) | ExecIn { .. })),
        }
    }
}

/// The workload's standard streams, live. After the 101 the bytes are frames of the guest protocol; the client's first
/// is `Request::Attach` or `AttachTo`. A microVM that is starting is waited for.
#[utoipa::path(
    post, path = route::VM_ATTACH, tag = "vms",
    params(
        ("vm" = String, Path, description = "Identifier or name."),
        ("Upgrade" = String, Header, description = "`secovia-guest/1`"),
    ),
    responses(
        (status = 101, description = "The guest answers; frames follow."),
        (status = 404, body = ErrorBody),
        (status = 409, description = "It does not run.", body = ErrorBody),
        (status = 426, description = "The request is no upgrade.", body = ErrorBody),
        (status = 500, description = "It did not come up.", body = ErrorBody),
        (status = 504, description = "Its guest does not answer.", body = ErrorBody),
    )
)]
pub(super) async fn attach(
    State(node): State<Arc<Node>>,
    Path(vm): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    open(&node, &vm, request, Kind::Attach).await
}

/// One more process in the guest. After the 101 the bytes are frames of the guest protocol; the client's first is
/// `Request::Exec` or `ExecIn`. A microVM that is starting is waited for.
#[utoipa::path(
    post, path = route::VM_EXEC, tag = "vms",
    params(
        ("vm" = String, Path, description = "Identifier or name."),
        ("Upgrade" = String, Header, description = "`secovia-guest/1`"),
    ),
    responses(
        (status = 101, description = "The guest answers; frames follow."),
        (status = 404, body = ErrorBody),
        (status = 409, description = "It does not run.", body = ErrorBody),
        (status = 426, description = "The request is no upgrade.", body = ErrorBody),
        (status = 500, description = "It did not come up.", body = ErrorBody),
        (status = 504, description = "Its guest does not answer.", body = ErrorBody),
    )
)]
pub(super) async fn exec(
    State(node): State<Arc<Node>>,
    Path(vm): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    open(&node, &vm, request, Kind::Exec).await
}

async fn open(node: &Node, vm: &str, mut request: Request, kind: Kind) -> Result<Response, ApiError> {
    let wanted = asks_for_upgrade(request.headers());
    let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>().filter(|_| wanted) else {
        let message = format!(
            "{} needs the headers `Connection: upgrade` and `Upgrade: {UPGRADE_PROTOCOL}`",
            kind.word()
        );
        return Err(ApiError::new(ErrorCode::UpgradeRequired, message));
    };
    let handle = node.find(vm)?;
    let guest = reach(&handle, vm, kind).await?;
    let sessions = handle.sessions.clone();
    tokio::spawn(async move {
        let result = match upgrade.await {
            Ok(client) => relay(TokioIo::new(client), guest, kind, &sessions).await,
            Err(error) => Err(io::Error::other(error).into()),
        };
        if let Err(error) = result {
            log::debug!("{} session: {error}", kind.word());
        }
    });
    let headers = [(CONNECTION, "upgrade"), (UPGRADE, UPGRADE_PROTOCOL)];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    let has = |name, wanted: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    has(CONNECTION, "upgrade") && has(UPGRADE, UPGRADE_PROTOCOL)
}

/// Waits until the guest answers, and connects to it.
async fn reach(handle: &Handle, vm: &str, kind: Kind) -> Result<UnixStream, ApiError> {
    let mut views = handle.view.clone();
    loop {
        let view = views.borrow_and_update().clone();
        let state = node::show(&view).state;
        let waiting = match &state {
            VmState::Failed { reason, .. } => {
                let message = format!("microVM `{vm}` failed: {reason}");
                return Err(ApiError::new(ErrorCode::StartFailed, message));
            }
            VmState::Starting => !view.guest_ready,
            // An agent that has just come back may not have reached the guest yet.
            VmState::Running | VmState::Stopping => !view.guest_ready,
            VmState::Created | VmState::Exited { .. } | VmState::BackOff { .. } => {
                return Err(NodeError::not_running(vm, state.word()).into());
            }
        };
        if !waiting || views.changed().await.is_err() {
            break;
        }
    }
    guest::connect(&handle.socket)
        .await
        .map_err(|error| NodeError::guest(kind.word(), vm, &error).into())
}

/// Passes frames in both directions until one end hangs up.
async fn relay(
    mut client: TokioIo<Upgraded>,
    mut guest: UnixStream,
    kind: Kind,
    sessions: &Sessions,
) -> Result<(), GuestCallError> {
    let slow = |_| io::Error::from(io::ErrorKind::TimedOut);
    let first = match timeout(FIRST_FRAME, first_frame(&mut client))
        .await
        .map_err(slow)?
    {
        Ok(None) => return Ok(()),
        Ok(Some((frame, bytes))) if kind.begins_with(&frame) => bytes,
        Ok(Some(_)) => {
            return refuse(
                &mut client,
                &format!("the first frame is no {} request", kind.word()),
            )
            .await;
        }
        Err(error) => return refuse(&mut client, &error.to_string()).await,
    };
    guest.write_all(&first).await?;
    drop(first);
    // Only when the guest has said yes does the session count: a start that waits for it loses no output then.
    let Some((answer, bytes)) = timeout(FIRST_FRAME, first_frame(&mut guest))
        .await
        .map_err(slow)??
    else {
        return Ok(());
    };
    let _session = (kind == Kind::Attach && matches!(answer, Frame::Reply(_))).then(|| sessions.enter());
    client.write_all(&bytes).await?;
    client.flush().await?;
    drop(bytes);
    copy(client, guest).await?;
    Ok(())
}

/// A half-closed connection is a closed one in this protocol, so that either end's hang-up ends both. What a guest has
/// said before it hangs up reaches the client.
async fn copy(client: TokioIo<Upgraded>, mut guest: UnixStream) -> io::Result<()> {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_guest, mut to_guest) = guest.split();
    let mut up = tokio::io::BufReader::with_capacity(COPY_BUFFER, &mut from_client);
    let mut down = tokio::io::BufReader::with_capacity(COPY_BUFFER, &mut from_guest);
    let upward = tokio::io::copy_buf(&mut up, &mut to_guest);
    let downward = async {
        tokio::io::copy_buf(&mut down, &mut to_client).await?;
        to_client.shutdown().await
    };
    tokio::select! {
        result = downward => result,
        result = upward => result.map(drop),
    }
}

async fn refuse(client: &mut TokioIo<Upgraded>, message: &str) -> Result<(), GuestCallError> {
    let error = GuestError {
        code: GuestErrorCode::BadRequest,
        message: message.to_string(),
    };
    client.write_all(&encode(&Frame::Error(error))?).await?;
    client.shutdown().await?;
    Ok(())
}
