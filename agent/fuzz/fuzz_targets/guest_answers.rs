//! The agent's end of the guest protocol: a VMM's socket and the guest behind it, taken over by the fuzzer. The first
//! byte says what the agent asks for, and how the answer is cut into pieces.
#![no_main]

use std::sync::LazyLock;

use secovia_agent::guest::{first_frame, open};
use secovia_agent_fuzz::runtime;
use secovia_guest_protocol::{Decoder, Frame, Request};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

static DIR: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a directory"));

/// The frames that the bytes hold, up to the first that is none.
fn decode(bytes: &[u8]) -> Vec<Frame> {
    let mut decoder = Decoder::default();
    decoder.push(bytes);
    std::iter::from_fn(|| decoder.next_frame().ok().flatten()).collect()
}

async fn hostile_guest(listener: &UnixListener, answer: &[u8], piece: usize) -> std::io::Result<()> {
    let (mut stream, _) = listener.accept().await?;
    // The CONNECT line; without reading it the end would be a reset.
    let mut line = [0; 64];
    let _ = stream.read(&mut line).await?;
    for piece in answer.chunks(piece) {
        stream.write_all(piece).await?;
    }
    stream.shutdown().await?;
    // Until the agent has hung up.
    while stream.read(&mut line).await? > 0 {}
    Ok(())
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&choice, answer)) = data.split_first() else {
        return;
    };
    let request = match choice % 3 {
        0 => Request::Info {},
        1 => Request::Attach { from: 0, stdin: true },
        _ => Request::Signal { signal: 15 },
    };
    let piece = usize::from(choice / 3).max(1) * 16;
    let socket = DIR.path().join("vsock.sock");
    runtime().block_on(async {
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).expect("a socket");
        let agent = async {
            let (reply, mut stream) = open(&socket, request).await.ok()?;
            let mut frames = vec![Frame::Reply(reply)];
            while let Ok(Some(frame)) = stream.next().await {
                frames.push(frame);
            }
            Some(frames)
        };
        let (_, seen) = tokio::join!(hostile_guest(&listener, answer, piece), agent);
        // What the agent believes is what was said, after the greeting.
        if let Some(seen) = seen {
            let greeting = answer
                .iter()
                .position(|byte| *byte == b'\n')
                .expect("there was a greeting");
            assert_eq!(seen, decode(&answer[greeting + 1..]));
        }
        // The agent relays sessions; of these it reads the first frame alone.
        let mut rest = answer;
        if let Ok(Some((frame, read))) = first_frame(&mut rest).await {
            assert_eq!(decode(&read).first(), Some(&frame));
        }
    });
});
