//! HTTP/1.1 over bytes: a request out of a buffer, an answer into one. Pure; the socket is the server's.
//!
//! Heads are parsed by httparse. What is around them is a page, written here, because no crate frames requests without
//! bringing an executor or threads of its own: bodies have a Content-Length or there are none, requests come one after the
//! other, and whatever is not understood ends the connection.

use std::fmt::Write;

/// The longest head that is read. Clients send a few hundred bytes.
pub const HEAD_MAX: usize = 8192;
/// The most header lines.
const LINES_MAX: usize = 32;

/// What a client may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "HTTP's own words")]
pub enum Method {
    Get,
    Put,
    Patch,
    Delete,
}

/// The first lines of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// What to do; `None` for a method that means nothing here.
    pub method: Option<Method>,
    /// With what.
    pub path: String,
    /// The client ends the connection after this.
    pub close: bool,
}

/// What a buffer begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// Less than a request.
    Partial {
        /// The client waits for word that it may send the body.
        waits: bool,
    },
    /// A request.
    Whole {
        /// Its head.
        head: Head,
        /// Where the body lies in the buffer; the next request begins at its end.
        body: std::ops::Range<usize>,
    },
}

/// A request that cannot be answered as what it is; the connection ends with the answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// It is no HTTP.
    #[error("this is no HTTP/1.1 request: {0}")]
    Head(String),
    /// Its head does not end.
    #[error("the head of the request is longer than {HEAD_MAX} bytes")]
    HeadSize,
    /// Its body is coded in a way that is not understood.
    #[error("Transfer-Encoding is not understood here; send a Content-Length")]
    Coding,
    /// Its length is no number, or two.
    #[error("Content-Length: {0:?}; give one number of bytes")]
    Length(String),
    /// Its body is too long.
    #[error("the body has {length} bytes, {limit} are read (--http-api-max-payload-size)")]
    BodySize {
        /// Its length.
        length: u64,
        /// What is read.
        limit: usize,
    },
}

impl HttpError {
    /// The status with which it is answered.
    pub fn status(&self) -> Status {
        match self {
            Self::BodySize { .. } => Status::TooLarge,
            Self::Head(_) | Self::HeadSize | Self::Coding | Self::Length(_) => Status::Bad,
        }
    }
}

/// How a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// 200, with a body of JSON.
    Ok,
    /// 200, with a body of text.
    Text,
    /// 204: done.
    Done,
    /// 400: refused.
    Bad,
    /// 413: too long.
    TooLarge,
}

impl Status {
    /// Number and phrase.
    fn line(self) -> &'static str {
        match self {
            Self::Ok | Self::Text => "200 OK",
            Self::Done => "204 No Content",
            Self::Bad => "400 Bad Request",
            Self::TooLarge => "413 Content Too Large",
        }
    }
}

/// Says that the body may come.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Looks what `buffer` begins with. Bodies are at most `limit` bytes long.
pub fn parse(buffer: &[u8], limit: usize) -> Result<Parsed, HttpError> {
    let mut lines = [httparse::EMPTY_HEADER; LINES_MAX];
    let mut request = httparse::Request::new(&mut lines);
    let start = match request.parse(buffer) {
        Ok(httparse::Status::Complete(start)) if start <= HEAD_MAX => start,
        Ok(httparse::Status::Partial) if buffer.len() < HEAD_MAX => {
            return Ok(Parsed::Partial { waits: false });
        }
        Ok(_) => return Err(HttpError::HeadSize),
        Err(error) => return Err(HttpError::Head(error.to_string())),
    };
    let mut length = None;
    let (mut close, mut waits) = (request.version == Some(0), false);
    for line in request.headers.iter() {
        let is = |name: &str| line.name.eq_ignore_ascii_case(name);
        let says = |word: &[u8]| line.value.trim_ascii().eq_ignore_ascii_case(word);
        if is("content-length") {
            let number = number(line.value);
            let text = || String::from_utf8_lossy(line.value).into_owned();
            let number = number.filter(|number| length.is_none_or(|other| other == *number));
            length = Some(number.ok_or_else(|| HttpError::Length(text()))?);
        } else if is("transfer-encoding") {
            return Err(HttpError::Coding);
        } else if is("connection") {
            close = close && !says(b"keep-alive") || says(b"close");
        } else if is("expect") {
            waits = says(b"100-continue");
        }
    }
    let length = length.unwrap_or(0);
    let body = usize::try_from(length).ok().filter(|length| *length <= limit);
    let Some(body) = body else {
        return Err(HttpError::BodySize { length, limit });
    };
    let end = start.saturating_add(body);
    if buffer.len() < end {
        return Ok(Parsed::Partial { waits });
    }
    let method = match request.method {
        Some("GET") => Some(Method::Get),
        Some("PUT") => Some(Method::Put),
        Some("PATCH") => Some(Method::Patch),
        Some("DELETE") => Some(Method::Delete),
        _ => None,
    };
    let path = request.path.unwrap_or_default().into();
    Ok(Parsed::Whole {
        head: Head { method, path, close },
        body: start..end,
    })
}

/// Digits and nothing else.
fn number(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value.trim_ascii()).ok()?;
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// An answer; after one that closes, the connection ends.
pub fn answer(status: Status, body: Option<&str>, close: bool) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {}\r\nServer: Secovia\r\n", status.line());
    if close {
        text.push_str("Connection: close\r\n");
    }
    if let Some(body) = body {
        let kind = match status {
            // The version of Prometheus' text form.
            Status::Text => "text/plain; version=0.0.4",
            Status::Ok | Status::Done | Status::Bad | Status::TooLarge => "application/json",
        };
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
    } else {
        text.push_str("\r\n");
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests;
