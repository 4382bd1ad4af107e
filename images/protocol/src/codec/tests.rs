use super::*;
use crate::{
    ExitStatus, GuestError, GuestErrorCode, PodReport, ProcessSpec, Reply, Request, WindowSize, WorkloadSpec,
};

fn every_frame() -> Vec<Frame> {
    let process = ProcessSpec {
        argv: vec!["sh".into(), "-c".into(), "exit 7".into()],
        env: [("A".to_string(), "b=c".to_string())].into(),
        cwd: Some("/srv".into()),
        user: Some("www-data".into()),
        tty: Some(WindowSize { rows: 24, cols: 80 }),
    };
    vec![
        Frame::Request(Request::Info {}),
        Frame::Request(Request::Start(WorkloadSpec {
            hostname: "web-1".into(),
            network: None,
            process: process.clone(),
        })),
        Frame::Request(Request::Attach {
            from: 1 << 40,
            stdin: true,
        }),
        Frame::Request(Request::Exec(process)),
        Frame::Reply(Reply::Done {}),
        Frame::Error(GuestError {
            code: GuestErrorCode::NotFound,
            message: "no".into(),
        }),
        Frame::Stdin(vec![0; MAX_PAYLOAD]),
        Frame::StdinEof,
        Frame::Stdout(b"out".to_vec()),
        Frame::Stderr(vec![]),
        Frame::Gap(3),
        Frame::Resize(WindowSize { rows: 1, cols: 2 }),
        Frame::Signal(15),
        Frame::Exit(ExitStatus::Signaled(9)),
        Frame::Pod(PodReport::default()),
    ]
}

#[test]
fn frames_survive_the_wire_however_it_is_cut() {
    let frames = every_frame();
    let bytes: Vec<u8> = frames.iter().flat_map(|f| encode(f).unwrap()).collect();
    for step in [1, 2, 5, 7, 4096, bytes.len()] {
        let mut decoder = Decoder::default();
        let mut seen = Vec::new();
        for part in bytes.chunks(step) {
            decoder.push(part);
            while let Some(frame) = decoder.next_frame().unwrap() {
                seen.push(frame);
            }
        }
        assert!(decoder.is_empty());
        assert_eq!(seen, frames, "cut into pieces of {step}");
    }
}

#[test]
fn hostile_headers_are_refused_without_waiting_for_their_payload() {
    let mut decoder = Decoder::default();
    decoder.push(&[6, 0xff, 0xff, 0xff, 0xff]);
    assert!(matches!(decoder.next_frame(), Err(CodecError::TooLarge(_))));
    let mut decoder = Decoder::default();
    decoder.push(&[99, 0, 0, 0, 0]);
    assert!(matches!(decoder.next_frame(), Err(CodecError::UnknownKind(99))));
    let mut decoder = Decoder::default();
    decoder.push(&[1, 2, 0, 0, 0, b'{', b'}']);
    assert!(matches!(
        decoder.next_frame(),
        Err(CodecError::Payload { kind: 1, .. })
    ));
}

#[test]
fn a_frame_that_is_too_large_is_not_sent() {
    let frame = Frame::Stdout(vec![0; MAX_PAYLOAD + 1]);
    assert!(matches!(encode(&frame), Err(CodecError::TooLarge(_))));
}

/// Valid streams with random damage, and plain noise, cut at random: the decoder never panics, gives the same however
/// the bytes are cut, holds no more than one frame that is not whole, and what it gives survives the wire again.
#[test]
fn damaged_streams_never_surprise() {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |n: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % n as u64) as usize
    };
    let small: Vec<Frame> = every_frame()
        .into_iter()
        .filter(|f| !matches!(f, Frame::Stdin(_)))
        .collect();
    let (mut decoded, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let mut bytes = Vec::new();
        for _ in 0..below(4) {
            bytes.extend(encode(&small[below(small.len())]).unwrap());
        }
        for _ in 0..below(3) {
            let noise = below(256) as u8;
            match below(3) {
                0 if !bytes.is_empty() => {
                    let at = below(bytes.len());
                    bytes[at] = noise;
                }
                1 if !bytes.is_empty() => bytes.truncate(below(bytes.len())),
                _ => bytes.push(noise),
            }
        }
        let whole = decode_all(bytes.chunks(bytes.len().max(1)));
        let cut = decode_all(bytes.chunks(1 + below(9)));
        assert_eq!(whole, cut);
        for frame in whole.0 {
            let again = encode(&frame).unwrap();
            assert_eq!(decode_all(again.chunks(7)), (vec![frame], None));
            decoded += 1;
        }
        refused += usize::from(whole.1.is_some());
    }
    assert!(
        decoded > 5_000 && refused > 1_000,
        "{decoded} and {refused}: both were tried"
    );
}

fn decode_all<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<String>) {
    let mut decoder = Decoder::default();
    let mut frames = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error.to_string())),
            }
        }
        assert!(decoder.buffer.len() <= HEADER + MAX_PAYLOAD + piece.len());
    }
    (frames, None)
}
