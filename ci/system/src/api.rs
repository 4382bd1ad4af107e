//! A machine's API, as a plain HTTP client sees it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

/// The answer's body, which is null for status 204; any status but 200 and 204 fails the test.
pub fn call(socket: &Path, request: &str, body: &str) -> Value {
    let mut stream = UnixStream::connect(socket).expect("connect to the API");
    let length = body.len();
    write!(
        stream,
        "{request} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .expect("send a request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("read the answer");
    assert!(text.starts_with("HTTP/1.1 20"), "{request} {body}: {text}");
    let (_, body) = text.split_once("\r\n\r\n").expect("an answer has a body or none");
    serde_json::from_str(body).unwrap_or_default()
}
