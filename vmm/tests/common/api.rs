//! A plain client of the API: one connection for each request, nothing but what the standard library has.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A machine's API.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) socket: PathBuf,
}

/// What the API answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Null, where there is no body.
    pub(crate) body: Value,
}

impl Answer {
    /// The refusal's text, where it is one.
    pub(crate) fn fault(&self) -> &str {
        self.body["fault_message"].as_str().unwrap_or_default()
    }
}

impl Api {
    /// The API behind `socket`, once it is there.
    pub(crate) fn at(socket: &Path) -> Self {
        let until = Instant::now() + Duration::from_secs(5);
        while UnixStream::connect(socket).is_err() {
            assert!(Instant::now() < until, "nobody listens on {}", socket.display());
            std::thread::sleep(Duration::from_millis(1));
        }
        Self {
            socket: socket.into(),
        }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "")
    }

    pub(crate) fn put(&self, path: &str, body: impl ToString) -> Answer {
        self.call("PUT", path, &body.to_string())
    }

    pub(crate) fn patch(&self, path: &str, body: impl ToString) -> Answer {
        self.call("PATCH", path, &body.to_string())
    }

    /// Puts what has to be taken.
    pub(crate) fn set(&self, path: &str, body: impl ToString) {
        let answer = self.put(path, body);
        assert_eq!(answer.status, 204, "{path}: {answer:?}");
    }

    pub(crate) fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n");
        self.raw(format!("{head}Connection: close\r\n\r\n{body}").as_bytes())
    }

    /// Sends these bytes, and reads the answer up to the connection's end.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(bytes).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        answer(&text)
    }
}

/// Reads an answer.
pub(crate) fn answer(text: &str) -> Answer {
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap();
    let body = if body.is_empty() {
        Value::Null
    } else if head.contains("Content-Type: text/plain") {
        body.into()
    } else {
        serde_json::from_str(body).unwrap()
    };
    Answer { status, body }
}
