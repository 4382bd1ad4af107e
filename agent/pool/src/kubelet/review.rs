//! Asks the region who somebody is and what he may do, and remembers the answer for a short while.
//!
//! Where the region does not answer nobody is let in. Whoever shows tokens that are none makes this node ask no more often
//! than a bucket allows, and keeps nobody out who has a certificate.

use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::access::{Need, User};
use super::cache::Cache;
use crate::error::PoolError;
use crate::rate::Bucket;
use crate::region::ask;

/// For so long somebody who showed a token is known, and what he may do is.
const HOLD_MS: u64 = 60_000;

/// For so long it is known that a token is none, and that somebody may not do a thing.
const HOLD_NO_MS: u64 = 10_000;

/// Whose a token is, is asked so often at once, and then once each so many milliseconds.
const QUESTIONS: Bucket = Bucket::new(20, 500);

/// Why somebody is not let in.
#[derive(Debug, thiserror::Error)]
pub(super) enum Denied {
    /// He showed nothing, or nothing that is any good.
    #[error("Unauthorized")]
    Unknown,
    /// He may not.
    #[error("Forbidden (user={user}, verb={verb}, resource=nodes, subresource={part})", verb = need.verb, part = need.part)]
    Forbidden {
        /// His name.
        user: String,
        /// What he would have to be allowed.
        need: Need,
    },
    /// Too many tokens are shown.
    #[error("too many show this node tokens that it does not know yet; try again in a moment")]
    Busy,
    /// The region cannot be asked.
    #[error(transparent)]
    Region(#[from] PoolError),
}

/// Tokens are remembered by what they hash to, so that none lies about in memory.
type Hash = [u8; 32];

/// The way to the region's answers.
#[derive(Debug)]
pub(super) struct Reviewer {
    node: String,
    tokens: Api<TokenReview>,
    access: Api<SubjectAccessReview>,
    begun: Instant,
    remembered: Mutex<Remembered>,
}

#[derive(Debug)]
struct Remembered {
    users: Cache<Hash, Option<User>>,
    verdicts: Cache<(User, Need), bool>,
    questions: Bucket,
}

impl Reviewer {
    pub(super) fn new(region: &Client, node: String) -> Self {
        Self {
            node,
            tokens: Api::all(region.clone()),
            access: Api::all(region.clone()),
            begun: Instant::now(),
            remembered: Mutex::new(Remembered {
                users: Cache::default(),
                verdicts: Cache::default(),
                questions: QUESTIONS,
            }),
        }
    }

    fn now_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_ask(&self) -> Result<(), Denied> {
        match self.remembered().questions.take(self.now_ms()) {
            true => Ok(()),
            false => Err(Denied::Busy),
        }
    }

    /// Whose token this is.
    pub(super) async fn bearer(&self, token: &str) -> Result<User, Denied> {
        let hash: Hash = Sha256::digest(token).into();
        let known = self.remembered().users.get(&hash, self.now_ms());
        let user = match known {
            Some(user) => user,
            None => {
                self.may_ask()?;
                let user = self.whose(token).await?;
                let hold_ms = if user.is_some() { HOLD_MS } else { HOLD_NO_MS };
                let now_ms = self.now_ms();
                self.remembered().users.put(hash, user.clone(), now_ms, hold_ms);
                user
            }
        };
        user.ok_or(Denied::Unknown)
    }

    async fn whose(&self, token: &str) -> Result<Option<User>, PoolError> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.into()),
                ..TokenReviewSpec::default()
            },
            ..TokenReview::default()
        };
        let params = PostParams::default();
        let answer = ask("ask whose a token is", self.tokens.create(&params, &review)).await?;
        let status = answer.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true));
        Ok(user.map(|user| User {
            name: user.username.unwrap_or_default(),
            uid: user.uid,
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        }))
    }

    /// Whether he may.
    pub(super) async fn allow(&self, user: &User, need: Need) -> Result<(), Denied> {
        let key = (user.clone(), need);
        let known = self.remembered().verdicts.get(&key, self.now_ms());
        let may = match known {
            Some(may) => may,
            None => {
                let may = self.may(user, need).await?;
                let hold_ms = if may { HOLD_MS } else { HOLD_NO_MS };
                let now_ms = self.now_ms();
                self.remembered().verdicts.put(key, may, now_ms, hold_ms);
                may
            }
        };
        match may {
            true => Ok(()),
            false => Err(Denied::Forbidden {
                user: user.name.clone(),
                need,
            }),
        }
    }

    async fn may(&self, user: &User, need: Need) -> Result<bool, PoolError> {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                uid: user.uid.clone(),
                groups: Some(user.groups.clone()),
                extra: Some(user.extra.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(need.verb.into()),
                    version: Some("v1".into()),
                    resource: Some("nodes".into()),
                    subresource: Some(need.part.into()),
                    name: Some(self.node.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let params = PostParams::default();
        let answer = ask("ask what somebody may do", self.access.create(&params, &review)).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}
