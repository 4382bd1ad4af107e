//! Bytes of a hostile peer: the first says how the rest is cut into pieces. Whatever they are, the decoder must not
//! panic, must give the same frames however they are cut, and a frame that it gives must survive the wire again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use secovia_guest_protocol::{CodecError, Decoder, Frame, encode};

fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<String>) {
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
    }
    (frames, None)
}

fuzz_target!(|input: &[u8]| {
    let Some((cut, bytes)) = input.split_first() else {
        return;
    };
    let whole = decode(std::iter::once(bytes));
    let cut = decode(bytes.chunks(usize::from(*cut).max(1)));
    assert_eq!(whole, cut);
    for frame in whole.0 {
        match encode(&frame) {
            Ok(bytes) => assert_eq!(decode(std::iter::once(&bytes[..])), (vec![frame], None)),
            // JSON may grow when it is written again, but only where it was near the limit.
            Err(error) => assert!(matches!(error, CodecError::TooLarge(_))),
        }
    }
});
