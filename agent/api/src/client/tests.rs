use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::stream::Lines;
use super::*;
use crate::ErrorCode;

/// An answer with a body of known length.
fn whole(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Runs `call` against a peer that reads one request and answers with these bytes; gives the request and the result.
async fn against<F, T>(answer: impl AsRef<[u8]>, call: impl FnOnce(Client) -> F) -> (String, T)
where
    F: Future<Output = T>,
{
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let n = stream.read(&mut buffer).await.unwrap();
            request.extend_from_slice(&buffer[..n]);
            let text = String::from_utf8_lossy(&request).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head
                    .lines()
                    .find_map(|l| {
                        l.to_ascii_lowercase()
                            .strip_prefix("content-length: ")
                            .map(str::to_string)
                    })
                    .map_or(0, |l| l.parse().unwrap());
                if body.len() >= length {
                    break;
                }
            }
        }
        stream.write_all(answer.as_ref()).await.unwrap();
        (String::from_utf8(request).unwrap(), stream)
    };
    let ((request, _stream), result) = tokio::join!(serve, call(Client::new(&socket)));
    (request, result)
}

#[tokio::test]
async fn a_request_carries_its_body_and_the_answer_is_read() {
    let answer = whole("200 OK", r#"{"version":"1.2.3","api":"v1"}"#);
    let (request, version) = against(answer, |client| async move { client.version().await }).await;
    assert!(request.starts_with("GET /v1/version HTTP/1.1\r\n"), "{request}");
    assert_eq!(version.unwrap().version, "1.2.3");
}

#[tokio::test]
async fn the_agents_error_is_handed_on_with_its_code() {
    let answer = whole(
        "404 Not Found",
        r#"{"error":{"code":"vm_not_found","message":"no microVM x"}}"#,
    );
    let (request, result) = against(answer, |client| async move {
        client.stop_vm("x", &StopRequest { grace_s: 3 }).await
    })
    .await;
    assert!(request.starts_with("POST /v1/vms/x/stop "), "{request}");
    assert!(request.ends_with("{\"grace_s\":3}"), "{request}");
    let error = result.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::VmNotFound));
    assert_eq!(error.to_string(), "no microVM x");
}

#[tokio::test]
async fn an_answer_that_is_none_of_ours_names_what_was_asked() {
    let answer = whole("500 X", "oops");
    let (_, result) = against(answer, |client| async move { client.health().await }).await;
    let error = result.unwrap_err().to_string();
    assert!(error.contains("/v1/health") && error.contains("500"), "{error}");
}

#[tokio::test]
async fn an_upgrade_is_a_stream_both_ways() {
    let answer =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: secovia-guest/1\r\n\r\nframes";
    let (request, text) = against(answer, |client| async move {
        let mut stream = client.exec("web").await.unwrap();
        let mut bytes = [0; 6];
        stream.read_exact(&mut bytes).await.unwrap();
        stream.write_all(b"up").await.unwrap();
        bytes
    })
    .await;
    assert!(
        request.starts_with("POST /v1/vms/web/exec HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(
        request
            .to_ascii_lowercase()
            .contains("upgrade: secovia-guest/1\r\n"),
        "{request}"
    );
    assert_eq!(&text, b"frames");
}

#[tokio::test]
async fn log_records_come_however_they_are_cut() {
    let pieces = [
        "{\"at_ms\":1,\"event\":{",
        "\"stdout\":{\"text\":\"a\\n\"}}}\n\n{",
        "\"at_ms\":2,\"event\":{\"gap\"",
        ":7}}\n",
    ];
    let mut answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_string();
    for piece in pieces {
        answer += &format!("{:x}\r\n{piece}\r\n", piece.len());
    }
    answer += "0\r\n\r\n";
    let query = LogQuery {
        tail: Some(5),
        follow: true,
        since: None,
        container: Some("main".into()),
    };
    let (request, records) = against(answer, |client| async move {
        let mut stream = client.vm_logs("web", &query).await.unwrap();
        let mut records = Vec::new();
        while let Some(record) = stream.next().await.unwrap() {
            records.push(record);
        }
        records
    })
    .await;
    assert!(
        request.starts_with("GET /v1/vms/web/logs?container=main&follow=true&tail=5 "),
        "{request}"
    );
    assert_eq!(records.len(), 2);
    assert_eq!(records[1].event, crate::LogEvent::Gap(7));
}

#[tokio::test]
async fn an_absent_agent_is_told_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let error = Client::new(dir.path().join("none.sock"))
        .version()
        .await
        .unwrap_err();
    assert!(error.is_absence());
    let text = error.to_string();
    assert!(
        text.contains("systemctl start secovia-agent") && text.contains("none.sock"),
        "{text}"
    );
    let socket = dir.path().join("dead.sock");
    drop(UnixListener::bind(&socket).unwrap());
    let text = Client::new(socket).version().await.unwrap_err().to_string();
    assert!(text.contains("secovia doctor"), "{text}");
}

#[test]
fn a_refused_permission_is_told_with_the_remedy() {
    let error = ClientError::Connect {
        socket: "/s".into(),
        source: io::ErrorKind::PermissionDenied.into(),
    };
    assert!(!error.is_absence());
    assert!(error.to_string().contains("usermod -aG secovia"), "{error}");
}

#[test]
fn lines_are_cut_where_they_end() {
    let mut lines = Lines::default();
    lines.push(b"a");
    assert_eq!(lines.next(), None);
    lines.push(b"b\n\nc\nd");
    assert_eq!(lines.next().as_deref(), Some(&b"ab"[..]));
    assert_eq!(lines.next().as_deref(), Some(&b"c"[..]));
    assert_eq!(lines.next(), None);
    assert_eq!(lines.waiting(), 1);
}
