//! Asks an agent for its version, or to import the image directory that is named, or sends it the archive of its standard
//! input as an image (`--upload NAME`), and prints the whole answer, or why there is none: a client with whatever rights it was started with.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

fn main() {
    let mut words = std::env::args().skip(1);
    let socket = words.next().unwrap_or_default();
    let request: Vec<u8> = match words.next() {
        Some(word) if word == "--upload" => {
            let mut archive = Vec::new();
            let name = words.next().unwrap_or_default();
            if let Err(error) = std::io::stdin().read_to_end(&mut archive) {
                println!("{error}");
                return;
            }
            let mut request = format!(
                "POST /v1/upload/images?name={name} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\
                 Content-Length: {}\r\n\r\n",
                archive.len()
            )
            .into_bytes();
            request.append(&mut archive);
            request
        }
        None => "GET /v1/version HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n".into(),
        Some(path) => {
            let body = format!("{{\"path\":{path:?}}}");
            format!(
                "POST /v1/images HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .into()
        }
    };
    match ask(&socket, &request) {
        Ok(answer) => println!("{answer}"),
        Err(error) => println!("{error}"),
    }
}

fn ask(socket: &str, request: &[u8]) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(request)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
