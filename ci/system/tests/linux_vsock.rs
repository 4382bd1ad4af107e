//! A Linux guest's socket device under many streams at once.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use secovia_system_tests::{Bench, given};

const STREAMS: usize = 100;
/// What goes each way over each of them: more than one turn of either end.
const SIZE: usize = 100_000;
const PORT: u32 = 5001;

fn connect(socket: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(socket).expect("connect to the machine's socket");
    writeln!(stream, "CONNECT {PORT}").expect("ask for the port");
    let mut line = String::new();
    // The guest says nothing of itself, so nothing but this line can be in the reader's buffer.
    BufReader::with_capacity(1, &stream)
        .read_line(&mut line)
        .expect("read the answer");
    assert!(line.starts_with("OK "), "{line:?}");
    stream
}

/// No two streams' bytes are alike, nor two places' of one.
fn bytes(stream: usize) -> Vec<u8> {
    let mut state = stream as u64;
    let mut word = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (state ^ (state >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 24
    };
    (0..SIZE).map(|_| word() as u8).collect()
}

/// All are open before the first byte goes, and all are written and read at the same time.
#[test]
fn a_hundred_streams_come_back_whole() {
    let mut bench = Bench::new(&given("SECOVIA_KERNEL"), "");
    let socket = bench.add_vsock_and_entropy();
    bench.add_tools(&[env!("CARGO_BIN_EXE_secovia-traffic").as_ref()]);
    bench.script(&format!("secovia-traffic serve vsock:any:{PORT}"));
    let mut machine = bench.start();
    machine.wait_for_line("serving");

    let streams: Vec<UnixStream> = (0..STREAMS).map(|_| connect(&socket)).collect();
    let threads: Vec<_> = streams
        .into_iter()
        .enumerate()
        .map(|(number, mut stream)| {
            thread::spawn(move || {
                let sent = bytes(number);
                let expected = sent.clone();
                let mut writer = stream.try_clone().expect("another descriptor");
                let writing = thread::spawn(move || {
                    // The first byte asks for all others to be sent back.
                    writer.write_all(b"e").expect("the guest reads");
                    writer.write_all(&sent).expect("the guest reads");
                    writer.shutdown(Shutdown::Write).expect("end this direction");
                });
                let mut back = Vec::new();
                stream.read_to_end(&mut back).expect("the guest writes");
                writing.join().expect("all was written");
                // Byte by byte, which says more than a checksum and takes an emulated processor less.
                assert!(
                    back == expected,
                    "stream {number}: {} bytes of {SIZE}, or others",
                    back.len()
                );
            })
        })
        .collect();
    let failed = threads
        .into_iter()
        .filter_map(|thread| thread.join().err())
        .count();
    assert_eq!(failed, 0, "of {STREAMS} streams");
}
