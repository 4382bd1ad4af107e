use super::*;
use std::io::Write;

fn pair() -> (Stream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (Stream::new(ours, Role::Pending), theirs)
}

#[test]
fn the_connect_line_is_a_word_and_a_port() {
    for (line, port) in [
        ("CONNECT 0", Some(0)),
        ("CONNECT 1024", Some(1024)),
        ("CONNECT 1024\r", Some(1024)),
        ("CONNECT 4294967295", Some(u32::MAX)),
        ("CONNECT 4294967296", None),
        ("CONNECT -1", None),
        ("CONNECT +1", None),
        ("CONNECT  1", None),
        ("CONNECT 1 ", None),
        ("CONNECT ", None),
        ("CONNECT", None),
        ("connect 1", None),
        ("", None),
    ] {
        assert_eq!(parse_connect(line.as_bytes()), port, "{line:?}");
    }
    assert_eq!(parse_connect(b"CONNECT \xff"), None);
}

#[test]
fn the_line_may_come_in_pieces_and_what_follows_is_left() {
    let (mut stream, mut client) = pair();
    assert_eq!(stream.first_line(), FirstLine::Incomplete);
    client.write_all(b"CONN").unwrap();
    assert_eq!(stream.first_line(), FirstLine::Incomplete);
    client.write_all(b"ECT 77\nhello").unwrap();
    assert_eq!(stream.first_line(), FirstLine::Connect(77));
    let mut buffer = [0; 16];
    assert_eq!(stream.receive(&mut buffer), Some(5));
    assert_eq!(&buffer[..5], b"hello");
    assert_eq!(stream.receive(&mut buffer), None);
    drop(client);
    assert_eq!(stream.receive(&mut buffer), Some(0));
}

#[test]
fn a_line_that_never_ends_is_bad() {
    let (mut stream, mut client) = pair();
    client.write_all(&[b'C'; MAX_LINE - 1]).unwrap();
    assert_eq!(stream.first_line(), FirstLine::Incomplete);
    client.write_all(b"C").unwrap();
    assert_eq!(stream.first_line(), FirstLine::Bad);
    let (mut stream, client) = pair();
    drop(client);
    assert_eq!(stream.first_line(), FirstLine::Bad);
}

#[test]
fn what_the_socket_does_not_take_is_kept_and_sent_in_order() {
    let (mut stream, mut client) = pair();
    let data: Vec<u8> = (0..3_000_000u32).map(|value| (value / 3) as u8).collect();
    let mut sent = 0;
    for chunk in data.chunks(50_000) {
        sent += stream.send(chunk).unwrap();
    }
    assert!(sent > 0 && sent < data.len());
    assert_eq!(stream.kept(), data.len() - sent);
    let mut got = Vec::new();
    while got.len() < data.len() {
        let mut buffer = [0; 30_000];
        let read = client.read(&mut buffer).unwrap();
        got.extend_from_slice(&buffer[..read]);
        stream.flush().unwrap();
    }
    assert!(got == data, "the bytes differ");
    assert!(stream.is_drained());
    assert_eq!(stream.kept.capacity(), 0, "a drained stream holds no buffer");
    drop(client);
    assert!(stream.send(b"x").is_err());
}
