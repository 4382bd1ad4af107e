//! The route of a workload's output.

use std::io;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use secovia_agent_api::{ErrorBody, LogQuery, LogRecord, route};
use tokio::task::block_in_place;

use super::body::Parameters;
use super::error::ApiError;
use crate::logs::{LogReader, Selection};
use crate::node::{self, Node, NodeError};
use crate::supervisor::Handle;

/// A workload's output: JSON lines of `LogRecord`, from the first that is kept, and with `follow` until the microVM
/// ends.
#[utoipa::path(
    get, path = route::VM_LOGS, tag = "vms",
    params(("vm" = String, Path, description = "Identifier or name."), LogQuery),
    responses(
        (status = 200, description = "One record a line.", body = LogRecord, content_type = "application/x-ndjson"),
        (status = 400, description = "It has no such container.", body = ErrorBody),
        (status = 404, body = ErrorBody),
    )
)]
pub(super) async fn read(
    State(node): State<Arc<Node>>,
    Path(vm): Path<String>,
    Parameters(query): Parameters<LogQuery>,
) -> Result<Response, ApiError> {
    let handle = node.find(&vm)?;
    let selection = Selection {
        tail: query.tail,
        since_ms: query.since,
    };
    let dir = node.log_dir(&handle, query.container.as_deref())?;
    let reader = block_in_place(|| LogReader::new(&dir, selection)).map_err(NodeError::internal)?;
    let follower = Follower {
        reader,
        handle,
        follow: query.follow,
    };
    let chunks = stream::try_unfold(follower, |mut follower| async move {
        Ok::<_, io::Error>(follower.next().await?.map(|chunk| (chunk, follower)))
    });
    Ok((
        [(CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(chunks),
    )
        .into_response())
}

struct Follower {
    reader: LogReader,
    handle: Handle,
    follow: bool,
}

impl Follower {
    /// The next lines; none where there will be no more.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            // Asked before reading: what is written after this is either read now or found to be new.
            self.handle.log_grown.mark_unchanged();
            let active = {
                let view = self.handle.view.borrow_and_update();
                !view.removed && node::show(&view).state.is_active()
            };
            let records = block_in_place(|| self.reader.read()).map_err(io::Error::other)?;
            if !records.is_empty() {
                return lines(&records).map(Some);
            }
            if !self.follow || !active {
                return Ok(None);
            }
            let Handle { view, log_grown, .. } = &mut self.handle;
            tokio::select! {
                // The VM's task ends with the VM: look once more.
                _ = view.changed() => {}
                grown = log_grown.changed() => if grown.is_err() {
                    self.follow = false;
                },
            }
        }
    }
}

fn lines(records: &[LogRecord]) -> io::Result<Bytes> {
    let mut lines = Vec::new();
    for record in records {
        serde_json::to_writer(&mut lines, record)?;
        lines.push(b'\n');
    }
    Ok(lines.into())
}
