//! What probes ask over the network.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// An answer's first line is not longer than this.
const LINE_MAX: usize = 1024;

/// Whether the port takes connections.
pub(super) fn tcp(host: Option<&str>, own: IpAddr, port: u16, timeout: Duration) -> bool {
    connect(host, own, port, timeout).is_ok()
}

fn connect(host: Option<&str>, own: IpAddr, port: u16, timeout: Duration) -> io::Result<TcpStream> {
    let address = match host {
        None => own,
        Some(host) => host.parse().map_err(io::Error::other)?,
    };
    TcpStream::connect_timeout(&SocketAddr::new(address, port), timeout)
}

/// Whether a GET is answered with a status from 200 to 399.
pub(super) fn http(
    host: Option<&str>,
    own: IpAddr,
    port: u16,
    path: &str,
    headers: &[(String, String)],
    timeout: Duration,
) -> bool {
    let ask = || -> io::Result<Option<u16>> {
        let until = Instant::now().checked_add(timeout);
        let mut stream = connect(host, own, port, timeout)?;
        stream.set_write_timeout(Some(timeout))?;
        let name = host.map_or_else(|| own.to_string(), str::to_string);
        stream.write_all(request(&format!("{name}:{port}"), path, headers).as_bytes())?;
        let mut line = Vec::new();
        let mut buffer = [0; LINE_MAX];
        loop {
            let left = until.map_or(timeout, |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            stream.set_read_timeout(Some(left))?;
            let count = stream.read(&mut buffer)?;
            line.extend_from_slice(buffer.get(..count).unwrap_or_default());
            if count == 0 || line.contains(&b'\n') || line.len() >= LINE_MAX {
                return Ok(status(&line));
            }
        }
    };
    matches!(ask(), Ok(Some(200..=399)))
}

/// The request; a line end in what the host gave cannot become one of the request's own.
fn request(host: &str, path: &str, headers: &[(String, String)]) -> String {
    let plain = |text: &str| text.replace(['\r', '\n'], "");
    let has = |name: &str| headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
    let slash = if path.starts_with('/') { "" } else { "/" };
    let mut text = format!("GET {slash}{} HTTP/1.1\r\n", plain(path).replace(' ', "%20"));
    for (name, value) in [("Host", host), ("User-Agent", "secovia-probe"), ("Accept", "*/*")] {
        if !has(name) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    for (name, value) in headers {
        text.push_str(&format!("{}: {}\r\n", plain(name), plain(value)));
    }
    text.push_str("Connection: close\r\n\r\n");
    text
}

/// The status in an answer's first line: `HTTP/1.1 204 No Content`.
fn status(answer: &[u8]) -> Option<u16> {
    let rest = answer.strip_prefix(b"HTTP/1.")?;
    let digits = rest.get(2..5).filter(|_| rest.get(1) == Some(&b' '))?;
    let is_status = digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits)
        .ok()
        .filter(|_| is_status)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    const OWN: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn a_status_is_read_from_the_first_line_and_nothing_else() {
        for (answer, expected) in [
            (&b"HTTP/1.1 200 OK\r\n"[..], Some(200)),
            (b"HTTP/1.0 503", Some(503)),
            (b"HTTP/1.1 20", None),
            (b"HTTP/1.1 +20 x", None),
            (b"HTTP/2 200", None),
            (b"\xff\xff", None),
            (b"", None),
        ] {
            assert_eq!(status(answer), expected, "{answer:?}");
        }
    }

    #[test]
    fn a_header_cannot_break_out_of_its_line() {
        let headers = [("X-A\r\nB: c".to_string(), "1\r\n\r\nGET /x".to_string())];
        let text = request("h:1", "a b", &headers);
        assert!(text.starts_with("GET /a%20b HTTP/1.1\r\nHost: h:1\r\n"), "{text}");
        assert!(text.contains("\r\nX-AB: c: 1GET /x\r\n"), "{text}");
        let own = [("host".to_string(), "mine".to_string())];
        let text = request("h:1", "/", &own);
        assert!(text.contains("host: mine") && !text.contains("Host: h"), "{text}");
    }

    #[test]
    fn a_server_is_well_by_its_status_and_in_time() {
        let listener = TcpListener::bind((OWN, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            for answer in ["HTTP/1.1 204 \r\n\r\n", "HTTP/1.1 500 \r\n\r\n", ""] {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(answer.as_bytes());
                if answer.is_empty() {
                    std::thread::sleep(Duration::from_millis(300));
                }
            }
        });
        let ask = |timeout| http(None, OWN, port, "/", &[], Duration::from_millis(timeout));
        assert!(ask(5_000));
        assert!(!ask(5_000));
        let begun = Instant::now();
        assert!(!ask(50));
        assert!(begun.elapsed() < Duration::from_millis(290));
        server.join().unwrap();
        assert!(
            !tcp(None, OWN, port, Duration::from_secs(1)),
            "nobody listens any more"
        );
    }
}
