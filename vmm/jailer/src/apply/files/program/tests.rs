use super::*;

/// A program with segments of these kinds.
fn program(kinds: &[u32]) -> Vec<u8> {
    let mut bytes = vec![0; 64 + HEADER * kinds.len()];
    bytes[..7].copy_from_slice(&IDENT);
    bytes[16] = 2;
    bytes[18] = 62;
    bytes[32] = 64;
    bytes[54] = HEADER as u8;
    bytes[56] = kinds.len() as u8;
    for (index, kind) in kinds.iter().enumerate() {
        let at = 64 + index * HEADER;
        bytes[at..at + 4].copy_from_slice(&kind.to_le_bytes());
    }
    bytes
}

#[test]
fn a_static_program_passes() {
    assert_eq!(check_bytes(&program(&[1, 4, 7])), Ok(()));
}

#[test]
fn what_cannot_run_alone_is_refused() {
    assert_eq!(
        check_bytes(&program(&[1, INTERPRETER, 4])),
        Err("it needs a loader and libraries, which are not in the jail")
    );
    assert_eq!(
        check_bytes(b"#!/bin/sh\n"),
        Err("it is no 64-bit x86 ELF program")
    );
    assert_eq!(check_bytes(b""), Err("it is no 64-bit x86 ELF program"));
}

#[test]
fn no_cut_and_no_single_changed_byte_makes_it_stumble() {
    let whole = program(&[1, INTERPRETER]);
    for length in 0..whole.len() - HEADER {
        assert!(check_bytes(&whole[..length]).is_err(), "{length}");
    }
    for at in 0..whole.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            let _ = check_bytes(&bytes);
        }
    }
}
