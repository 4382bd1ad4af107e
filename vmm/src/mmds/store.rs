//! The data, and what of it a request gets.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use secovia_vmm_api::MmdsVersion;
use serde_json::{Map, Value};

use super::http::{Answer, Kind, Method, Request, Status};
use super::token::{SECONDS, Tokens};

/// Where tokens are asked for.
const TOKENS: &str = "/latest/api/token";

/// Why the data is not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MmdsError {
    /// There would be more than is kept.
    #[error("mmds: {size} bytes of JSON, {limit} are kept (--mmds-size-limit); put less there")]
    Size {
        /// What there would be.
        size: usize,
        /// What is kept.
        limit: usize,
    },
    /// There is nothing to change.
    #[error("mmds: there is no metadata yet; PUT it first")]
    Nothing,
}

/// The metadata service's data and rules.
#[derive(Debug)]
pub struct Mmds {
    /// Null: none.
    data: Value,
    limit: usize,
    version: MmdsVersion,
    /// Answers are text, whatever was asked for.
    text_only: bool,
    tokens: Tokens,
    origin: Instant,
}

/// The same for everybody. Locked for one request each.
#[derive(Debug, Clone)]
pub struct SharedMmds(Arc<Mutex<Mmds>>);

impl SharedMmds {
    /// A service without data that keeps up to `limit` bytes of JSON.
    pub fn new(limit: usize) -> io::Result<Self> {
        Ok(Self(Arc::new(Mutex::new(Mmds {
            data: Value::Null,
            limit,
            version: MmdsVersion::V1,
            text_only: false,
            tokens: Tokens::new()?,
            origin: Instant::now(),
        }))))
    }

    /// The service, for one request.
    pub fn lock(&self) -> MutexGuard<'_, Mmds> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mmds {
    /// Sets the rules by which the guest gets its answers.
    pub fn configure(&mut self, version: MmdsVersion, text_only: bool) {
        (self.version, self.text_only) = (version, text_only);
    }

    /// How many bytes of JSON are kept.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// All data, as JSON; an empty object where there is none.
    pub fn text(&self) -> String {
        match &self.data {
            Value::Null => "{}".into(),
            data => data.to_string(),
        }
    }

    /// Replaces all data.
    pub fn put(&mut self, data: Value) -> Result<(), MmdsError> {
        let size = data.to_string().len();
        if size > self.limit {
            return Err(MmdsError::Size {
                size,
                limit: self.limit,
            });
        }
        self.data = data;
        Ok(())
    }

    /// Changes the data as a JSON merge patch says (RFC 7396): all of it, or nothing.
    pub fn patch(&mut self, patch: &Value) -> Result<(), MmdsError> {
        if self.data.is_null() {
            return Err(MmdsError::Nothing);
        }
        let mut data = self.data.clone();
        merge(&mut data, patch);
        self.put(data)
    }

    /// Serves a request of the guest's.
    pub(super) fn answer(&self, request: &Request) -> Answer {
        self.answer_at(request, self.origin.elapsed())
    }

    /// The same at a time since the service's start.
    pub(super) fn answer_at(&self, request: &Request, now: Duration) -> Answer {
        match request.method {
            Method::Get => {
                let shown = request.token.as_deref();
                match (self.version, shown.map(|token| self.tokens.knows(token, now))) {
                    (MmdsVersion::V1, _) | (MmdsVersion::V2, Some(true)) => self.get(request),
                    (MmdsVersion::V2, Some(false)) => {
                        Answer::refused(Status::Unauthorised, "this token does not hold; ask for another")
                    }
                    (MmdsVersion::V2, None) => Answer::refused(
                        Status::Unauthorised,
                        "a token is missing: PUT /latest/api/token, and give what it answers as X-metadata-token",
                    ),
                }
            }
            Method::Put => self.give(request, now),
            Method::Other => Answer::refused(Status::Method, "only GET and PUT are understood here"),
        }
    }

    fn give(&self, request: &Request, now: Duration) -> Answer {
        if request.forwarded {
            return Answer::refused(Status::Bad, "X-Forwarded-For: tokens are not given to others");
        }
        if path(&request.path) != TOKENS {
            return Answer::refused(Status::Missing, "only /latest/api/token can be PUT");
        }
        let seconds = request.seconds.as_deref().map(str::parse);
        match seconds {
            Some(Ok(seconds)) if SECONDS.contains(&seconds) => Answer {
                status: Status::Ok,
                kind: Kind::Text,
                body: self.tokens.give(seconds, now),
                seconds: Some(seconds),
            },
            Some(_) => Answer::refused(Status::Bad, "X-metadata-token-ttl-seconds: give 1 to 21600"),
            None => Answer::refused(Status::Bad, "X-metadata-token-ttl-seconds is missing"),
        }
    }

    fn get(&self, request: &Request) -> Answer {
        let Some(found) = self
            .data
            .pointer(&path(&request.path))
            .filter(|found| !found.is_null())
        else {
            return Answer::refused(Status::Missing, "there is no such metadata");
        };
        if request.json && !self.text_only {
            return Answer::ok(Kind::Json, found.to_string());
        }
        match found {
            Value::String(text) => Answer::ok(Kind::Text, text.clone()),
            Value::Object(object) => Answer::ok(Kind::Text, names(object)),
            _ => Answer::refused(
                Status::Unable,
                "this is neither a string nor an object; ask for it with Accept: application/json",
            ),
        }
    }
}

/// A path as a JSON pointer: without doubled slashes, and without one at its end.
fn path(path: &str) -> String {
    let parts = path.split('/').filter(|part| !part.is_empty());
    parts.fold(String::new(), |path, part| path + "/" + part)
}

/// The names in an object, one a line; those of objects end with a slash.
fn names(object: &Map<String, Value>) -> String {
    let name = |(name, value): (&String, &Value)| match value {
        Value::Object(_) => format!("{name}/"),
        _ => name.clone(),
    };
    object.iter().map(name).collect::<Vec<_>>().join("\n")
}

/// RFC 7396. Both are as deep as serde_json reads them, which is no danger to the stack.
fn merge(data: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *data = patch.clone();
        return;
    };
    if !data.is_object() {
        *data = Value::Object(Map::new());
    }
    if let Value::Object(data) = data {
        for (name, change) in patch {
            if change.is_null() {
                data.remove(name);
            } else {
                merge(data.entry(name.clone()).or_insert(Value::Null), change);
            }
        }
    }
}
