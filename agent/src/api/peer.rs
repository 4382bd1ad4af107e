//! Who may use the API: root, the agent's own user, and the members of one group.

use std::sync::Arc;

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use secovia_agent_api::ErrorCode;

use super::error::ApiError;
use super::group::group_id;
use super::socket::Socket;
use crate::caller::Caller;
use crate::sys;

/// Who is at the other end of a connection, as the kernel says: it noted that when the connection was made.
#[derive(Debug, Clone)]
pub(super) struct Peer(Option<Arc<Caller>>);

/// Who may come in.
#[derive(Debug, Clone)]
pub(super) struct Access {
    own_uid: u32,
    group: Option<u32>,
    group_name: String,
}

impl Peer {
    /// The user, for the record. Whom the kernel does not name does not get here.
    pub(super) fn uid(&self) -> u32 {
        self.0.as_ref().map_or(u32::MAX, |credentials| credentials.uid)
    }
}

impl Connected<IncomingStream<'_, Socket>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Socket>) -> Self {
        let stream = stream.io();
        let credentials = stream.peer_cred().and_then(|peer| {
            Ok(Caller {
                uid: peer.uid(),
                gid: peer.gid(),
                groups: sys::peer_groups(stream)?,
            })
        });
        match credentials {
            Ok(credentials) => Self(Some(Arc::new(credentials))),
            Err(error) => {
                log::warn!("credentials of a client: {error}");
                Self(None)
            }
        }
    }
}

impl Peer {
    /// One who may do everything.
    pub(super) fn root() -> Self {
        Self(Some(Arc::new(Caller::root())))
    }

    /// Who it is; a failure where the kernel did not say.
    pub(super) fn caller(&self) -> Result<&Caller, ApiError> {
        self.0
            .as_deref()
            .ok_or_else(|| ApiError::new(ErrorCode::Forbidden, "the kernel does not say who asks"))
    }
}

impl Access {
    /// The members of the group of this name, where the host has it.
    pub(super) fn of_group(name: &str) -> Self {
        Self {
            own_uid: nix::unistd::geteuid().as_raw(),
            group: group_id(name),
            group_name: name.to_string(),
        }
    }

    fn admits(&self, peer: &Caller) -> bool {
        peer.uid == 0 || peer.uid == self.own_uid || self.group.is_some_and(|group| peer.is_of(group))
    }
}

/// Lets a request pass, or answers it.
pub(super) async fn admit(
    State(access): State<Access>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if peer.is_some_and(|peer| access.admits(&peer)) {
        return next.run(request).await;
    }
    let message = format!(
        "only root and members of group `{}` may use the agent",
        access.group_name
    );
    ApiError::new(ErrorCode::Forbidden, message).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_the_agent_and_the_group_come_in_nobody_else() {
        let access = Access {
            own_uid: 500,
            group: Some(70),
            group_name: "secovia".into(),
        };
        let without_group = Access {
            group: None,
            ..access.clone()
        };
        for (uid, gid, groups, admitted, admitted_without) in [
            (0, 9, vec![], true, true),
            (500, 9, vec![], true, true),
            (501, 70, vec![], true, false),
            (501, 9, vec![1, 2, 70], true, false),
            (501, 9, vec![1, 0], false, false),
            (70, 9, vec![], false, false),
        ] {
            let peer = Caller { uid, gid, groups };
            assert_eq!(access.admits(&peer), admitted, "{peer:?}");
            assert_eq!(without_group.admits(&peer), admitted_without, "{peer:?}");
        }
    }
}
