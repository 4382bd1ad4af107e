//! Asks an agent for its version and prints the whole answer, or why there is none: a client with whatever rights it was
//! started with.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

fn main() {
    let socket = std::env::args().nth(1).unwrap_or_default();
    match ask(&socket) {
        Ok(answer) => println!("{answer}"),
        Err(error) => println!("{error}"),
    }
}

fn ask(socket: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(b"GET /v1/version HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
