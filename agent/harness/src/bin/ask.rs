//! Asks an agent for its version, or to import the image directory that is named, and prints the whole answer, or why
//! there is none: a client with whatever rights it was started with.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

fn main() {
    let mut words = std::env::args().skip(1);
    let socket = words.next().unwrap_or_default();
    let request = match words.next() {
        None => "GET /v1/version HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n".into(),
        Some(path) => {
            let body = format!("{{\"path\":{path:?}}}");
            format!(
                "POST /v1/images HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            )
        }
    };
    match ask(&socket, &request) {
        Ok(answer) => println!("{answer}"),
        Err(error) => println!("{error}"),
    }
}

fn ask(socket: &str, request: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
