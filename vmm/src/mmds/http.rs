//! HTTP as guests speak it with the service: GET and PUT without bodies. Heads are parsed by httparse, as the API's are.

use std::fmt::Write;

/// The longest request, its head and a body that nobody looks at.
pub(super) const REQUEST_MAX: usize = 8192;
/// The most header lines.
const LINES_MAX: usize = 64;

/// What a guest may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "HTTP's own words")]
pub enum Method {
    Get,
    Put,
    Other,
}

/// One request, with those of its headers that count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub method: Method,
    /// With what; a path, also where the guest named a host before it.
    pub path: String,
    /// `Accept` asks for JSON.
    pub json: bool,
    /// `X-metadata-token`.
    pub token: Option<String>,
    /// `X-metadata-token-ttl-seconds`.
    pub seconds: Option<String>,
    /// There is an `X-Forwarded-For`.
    pub forwarded: bool,
    /// The guest ends the connection after this.
    pub close: bool,
}

/// What a buffer begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// Less than a request.
    Partial,
    /// A request, and how many bytes it has.
    Whole(Request, usize),
}

/// This is no request; the connection ends with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// It is no HTTP.
    #[error("this is no HTTP/1.1 request")]
    Head,
    /// It is too long.
    #[error("a request has at most {REQUEST_MAX} bytes here")]
    Size,
}

/// How a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// 200.
    Ok,
    /// 400.
    Bad,
    /// 401: no token, or one that does not hold.
    Unauthorised,
    /// 404.
    Missing,
    /// 405.
    Method,
    /// 501: it cannot be shown like this.
    Unable,
}

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Kind {
    Json,
    Text,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// How it went.
    pub status: Status,
    /// What the body is.
    pub kind: Kind,
    /// The body.
    pub body: String,
    /// How long the token in the body holds, where it is one.
    pub seconds: Option<u32>,
}

impl Status {
    /// Number and phrase.
    fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::Bad => "400 Bad Request",
            Self::Unauthorised => "401 Unauthorized",
            Self::Missing => "404 Not Found",
            Self::Method => "405 Method Not Allowed\r\nAllow: GET, PUT",
            Self::Unable => "501 Not Implemented",
        }
    }
}

impl Answer {
    /// What was asked for.
    pub(super) fn ok(kind: Kind, body: String) -> Self {
        Self {
            status: Status::Ok,
            kind,
            body,
            seconds: None,
        }
    }

    /// Why there is nothing.
    pub(super) fn refused(status: Status, why: &str) -> Self {
        Self {
            status,
            kind: Kind::Text,
            body: why.into(),
            seconds: None,
        }
    }

    /// Its bytes; after one that closes, the connection ends.
    pub(super) fn bytes(&self, close: bool) -> Vec<u8> {
        let kind = match self.kind {
            Kind::Json => "application/json",
            Kind::Text => "text/plain",
        };
        let mut text = format!("HTTP/1.1 {}\r\nServer: Secovia\r\n", self.status.line());
        if close {
            text.push_str("Connection: close\r\n");
        }
        // Writing to a string does not fail.
        if let Some(seconds) = self.seconds {
            for name in TTL {
                let _ = write!(text, "{name}: {seconds}\r\n");
            }
        }
        let length = self.body.len();
        let _ = write!(text, "Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
        text.push_str(&self.body);
        text.into_bytes()
    }
}

/// Firecracker's name and that of EC2's service, which clients of either send and expect.
const TTL: [&str; 2] = [
    "X-metadata-token-ttl-seconds",
    "X-aws-ec2-metadata-token-ttl-seconds",
];
const TOKEN: [&str; 2] = ["X-metadata-token", "X-aws-ec2-metadata-token"];

/// Looks what `buffer` begins with.
pub fn parse(buffer: &[u8]) -> Result<Parsed, HttpError> {
    let mut lines = [httparse::EMPTY_HEADER; LINES_MAX];
    let mut request = httparse::Request::new(&mut lines);
    let start = match request.parse(buffer) {
        Ok(httparse::Status::Complete(start)) => start,
        Ok(httparse::Status::Partial) if buffer.len() < REQUEST_MAX => return Ok(Parsed::Partial),
        Ok(httparse::Status::Partial) => return Err(HttpError::Size),
        Err(_) => return Err(HttpError::Head),
    };
    let mut parsed = Request {
        method: match request.method {
            Some("GET") => Method::Get,
            Some("PUT") => Method::Put,
            _ => Method::Other,
        },
        path: path(request.path.unwrap_or_default()).into(),
        json: false,
        token: None,
        seconds: None,
        forwarded: false,
        close: request.version == Some(0),
    };
    let mut body = 0;
    for line in request.headers.iter() {
        let is = |name: &str| line.name.eq_ignore_ascii_case(name);
        let text = std::str::from_utf8(line.value)
            .map_err(|_| HttpError::Head)?
            .trim();
        if is("content-length") {
            body = text.parse().map_err(|_| HttpError::Head)?;
        } else if is("transfer-encoding") {
            return Err(HttpError::Head);
        } else if is("connection") {
            parsed.close = parsed.close && !text.eq_ignore_ascii_case("keep-alive")
                || text.eq_ignore_ascii_case("close");
        } else if is("accept") {
            parsed.json = text.eq_ignore_ascii_case("application/json");
        } else if is("x-forwarded-for") {
            parsed.forwarded = true;
        } else if TOKEN.iter().any(|name| is(name)) {
            parsed.token = Some(text.into());
        } else if TTL.iter().any(|name| is(name)) {
            parsed.seconds = Some(text.into());
        }
    }
    match start.saturating_add(body) {
        REQUEST_MAX.. => Err(HttpError::Size),
        end if buffer.len() < end => Ok(Parsed::Partial),
        end => Ok(Parsed::Whole(parsed, end)),
    }
}

/// The path in what was asked for, which may be a whole address; without its query.
fn path(target: &str) -> &str {
    let path = match target.split_once("://") {
        Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default(),
        None => target,
    };
    path.split('?').next().unwrap_or_default()
}
