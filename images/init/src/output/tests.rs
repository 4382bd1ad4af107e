use super::*;

fn drain(output: &mut Output, id: ReaderId) -> Vec<Piece> {
    let mut pieces = Vec::new();
    loop {
        let piece = output.next(id, 1000);
        match &piece {
            Piece::Data(_, bytes) => output.advance(id, bytes.len() as u64),
            Piece::Gap(count) => output.advance(id, *count),
            Piece::UpToDate | Piece::Detached => return pieces,
        }
        pieces.push(piece);
    }
}

#[test]
fn streams_stay_apart_and_in_order() {
    let mut output = Output::new(1000);
    let id = output.attach(0).unwrap();
    assert_eq!(output.accept(Stream::Stdout, b"one "), 4);
    assert_eq!(output.accept(Stream::Stdout, b"two "), 4);
    assert_eq!(output.accept(Stream::Stderr, b"three"), 5);
    assert_eq!(output.accept(Stream::Stdout, b"four"), 4);
    assert_eq!(
        drain(&mut output, id),
        [
            Piece::Data(Stream::Stdout, b"one two ".to_vec()),
            Piece::Data(Stream::Stderr, b"three".to_vec()),
            Piece::Data(Stream::Stdout, b"four".to_vec()),
        ]
    );
    assert_eq!(output.total(), 17);
}

#[test]
fn an_attached_reader_is_waited_for() {
    let mut output = Output::new(100);
    let slow = output.attach(0).unwrap();
    let fast = output.attach(0).unwrap();
    let taken = output.accept(Stream::Stdout, &[1; 500]);
    assert_eq!(taken, 100 - RUN_COST);
    output.advance(fast, taken as u64);
    assert_eq!(
        output.accept(Stream::Stdout, &[2; 10]),
        0,
        "the slow one has read nothing"
    );
    output.advance(slow, 5);
    assert_eq!(output.accept(Stream::Stdout, &[2; 10]), 5);
    output.detach(slow);
    assert_eq!(
        output.accept(Stream::Stdout, &[3; 10]),
        10,
        "who is gone is not waited for"
    );
    assert_eq!(output.next(slow, 10), Piece::Detached);
}

#[test]
fn nobody_there_drops_the_oldest() {
    let mut output = Output::new(100);
    let bytes: Vec<u8> = (0..200).collect();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let taken = output.accept(Stream::Stdout, rest);
        assert_ne!(taken, 0);
        rest = &rest[taken..];
    }
    let kept = 100 - RUN_COST;
    let id = output.attach(3).unwrap();
    assert_eq!(
        drain(&mut output, id),
        [
            Piece::Gap(200 - 3 - kept as u64),
            Piece::Data(Stream::Stdout, bytes[200 - kept..].to_vec()),
        ]
    );
}

#[test]
fn the_history_can_be_read_again_from_any_byte() {
    let mut output = Output::new(1000);
    output.accept(Stream::Stdout, b"abc");
    output.accept(Stream::Stderr, b"def");
    let id = output.attach(4).unwrap();
    assert_eq!(
        drain(&mut output, id),
        [Piece::Data(Stream::Stderr, b"ef".to_vec())]
    );
    assert!(output.attach(6).is_some());
    assert!(output.attach(7).is_none(), "so much was never written");
}

#[test]
fn alternating_streams_stay_within_the_bound() {
    let mut output = Output::new(10_000);
    for i in 0..100_000_u32 {
        let stream = if i % 2 == 0 {
            Stream::Stdout
        } else {
            Stream::Stderr
        };
        assert_eq!(output.accept(stream, &[i as u8]), 1);
        assert!(output.used() <= 10_000);
    }
    assert_eq!(output.total(), 100_000);
    let id = output.attach(99_998).unwrap();
    assert_eq!(
        drain(&mut output, id),
        [
            Piece::Data(Stream::Stdout, vec![99_998_u32 as u8]),
            Piece::Data(Stream::Stderr, vec![99_999_u32 as u8]),
        ]
    );
}

/// Against a model that keeps everything: whatever the order of writes, reads, attachments and hang-ups, an attached
/// reader gets each byte with its stream, once and in order, and gaps only where nobody was there.
#[test]
fn agrees_with_a_model_that_forgets_nothing() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |n: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % n
    };
    for _ in 0..300 {
        let mut output = Output::new(64 + below(500) as usize);
        let mut all: Vec<(Stream, u8)> = Vec::new();
        let mut readers: Vec<(ReaderId, u64)> = Vec::new();
        for _ in 0..300 {
            match below(10) {
                0 => {
                    let from = below(all.len() as u64 + 1);
                    readers.push((output.attach(from).unwrap(), from));
                }
                1 if !readers.is_empty() => {
                    let (id, _) = readers.remove(below(readers.len() as u64) as usize);
                    output.detach(id);
                }
                2..=5 => {
                    let stream = if below(2) == 0 {
                        Stream::Stdout
                    } else {
                        Stream::Stderr
                    };
                    let data: Vec<u8> = (0..below(60)).map(|_| below(256) as u8).collect();
                    let taken = output.accept(stream, &data);
                    all.extend(data[..taken].iter().map(|b| (stream, *b)));
                    if readers.is_empty() && !data.is_empty() {
                        assert_ne!(taken, 0, "nobody holds it up");
                    }
                }
                _ if !readers.is_empty() => {
                    let i = below(readers.len() as u64) as usize;
                    let (id, at) = &mut readers[i];
                    match output.next(*id, 1 + below(40) as usize) {
                        Piece::Gap(count) => {
                            assert!(*at + count == output.start);
                            output.advance(*id, count);
                            *at += count;
                        }
                        Piece::Data(stream, bytes) => {
                            assert!(!bytes.is_empty());
                            let want = &all[*at as usize..][..bytes.len()];
                            assert!(want.iter().zip(&bytes).all(|(w, b)| *w == (stream, *b)));
                            output.advance(*id, bytes.len() as u64);
                            *at += bytes.len() as u64;
                        }
                        Piece::UpToDate => assert_eq!(*at, all.len() as u64),
                        Piece::Detached => unreachable!(),
                    }
                }
                _ => {}
            }
            assert_eq!(output.total(), all.len() as u64);
            assert!(output.used() <= output.capacity);
        }
    }
}
