use std::path::{Path, PathBuf};

use secovia_guest_protocol::{Decoder, Frame, GuestError, GuestErrorCode, Reply, Request, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::*;

/// A VMM's socket that reads the `CONNECT` line and the request, then says `answer` and hangs up.
fn guest(answer: Vec<u8>) -> (tempfile::TempDir, PathBuf, tokio::task::JoinHandle<Vec<u8>>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = vec![0; 4096];
        let mut length = stream.read(&mut heard).await.unwrap();
        let greeting = answer
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(answer.len(), |at| at + 1);
        stream.write_all(&answer[..greeting]).await.unwrap();
        length += stream.read(&mut heard[length..]).await.unwrap();
        stream.write_all(&answer[greeting..]).await.unwrap();
        heard.truncate(length);
        heard
    });
    (dir, path, task)
}

fn answer(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = b"OK 1073741824\n".to_vec();
    for frame in frames {
        bytes.extend(encode(frame).unwrap());
    }
    bytes
}

#[tokio::test]
async fn a_session_is_opened_and_followed() {
    let frames = [
        Frame::Reply(Reply::Done {}),
        Frame::Stdout(b"a".to_vec()),
        Frame::StdinEof,
    ];
    let (_dir, path, task) = guest(answer(&frames));
    let request = Request::Attach {
        from: 7,
        stdin: false,
    };
    let (reply, mut stream) = open(&path, request.clone()).await.unwrap();
    assert_eq!(reply, Reply::Done {});
    assert_eq!(stream.next().await.unwrap(), Some(frames[1].clone()));
    assert_eq!(stream.next().await.unwrap(), Some(frames[2].clone()));
    assert_eq!(stream.next().await.unwrap(), None);
    let heard = task.await.unwrap();
    let frame = heard.strip_prefix(b"CONNECT 1024\n").unwrap();
    let mut decoder = Decoder::default();
    decoder.push(frame);
    assert_eq!(decoder.next_frame().unwrap(), Some(Frame::Request(request)));
}

#[tokio::test]
async fn what_a_guest_may_not_say_is_an_error() {
    let refused = GuestError {
        code: GuestErrorCode::NotFound,
        message: "program `x` does not exist".into(),
    };
    let cut = {
        let mut bytes = answer(&[Frame::Reply(Reply::Done {})]);
        bytes.pop();
        bytes
    };
    let table = [
        (answer(&[Frame::Error(refused)]), "refused: program `x`"),
        (answer(&[Frame::Stdout(vec![1])]), "no reply"),
        (answer(&[]), "cannot be reached"),
        (cut, "cannot be reached"),
        (b"NO\n".to_vec(), "answers \"NO\""),
        (vec![b'x'; 100], "does not end"),
        (b"OK 1\n\xff\xff\xff\xff\xff\xff".to_vec(), "breaks the protocol"),
    ];
    for (bytes, expected) in table {
        let (_dir, path, _task) = guest(bytes);
        let error = call(&path, Request::Info {}).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let error = call(Path::new("/nonexistent/s"), Request::Info {})
        .await
        .unwrap_err();
    assert!(matches!(error, GuestCallError::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn the_first_frame_comes_with_all_that_was_read() {
    let first = Frame::Request(Request::Info {});
    let mut bytes = encode(&first).unwrap();
    bytes.extend(encode(&Frame::Stdin(b"more".to_vec())).unwrap());
    let (frame, read) = first_frame(&mut bytes.as_slice()).await.unwrap().unwrap();
    assert_eq!((frame, read), (first, bytes.clone()));
    assert!(first_frame(&mut &bytes[..3]).await.unwrap().is_none());
    assert!(first_frame(&mut &[99u8, 0, 0, 0, 0][..]).await.is_err());
}
