use std::fs::File;
use std::io::{Read, pipe};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::*;
use crate::limiter::BucketConfig;
use crate::testing::{CountingInterrupt, TempPath};

const DATA: u64 = 0;
const IER: u64 = 1;
const LSR: u64 = 5;

#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Write for Screen {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(data);
        Ok(data.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Broken;

impl Write for Broken {
    fn write(&mut self, _data: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

fn read(serial: &mut Serial, register: u64) -> u8 {
    let mut data = [0xff];
    serial.read(register, &mut data);
    data[0]
}

fn send(serial: &mut Serial, text: &[u8]) {
    for &byte in text {
        assert_eq!(serial.write(DATA, &[byte]), Effect::None);
    }
}

#[test]
fn output_arrives_byte_for_byte_and_the_transmitter_is_always_empty() {
    let screen = Screen::default();
    let mut serial = Serial::new(Arc::new(CountingInterrupt::default()), Box::new(screen.clone()));
    send(&mut serial, b"login: ");
    assert_eq!(*screen.0.lock().unwrap(), b"login: ");
    assert_eq!(read(&mut serial, LSR) & 0x60, 0x60);
    assert_eq!(serial.counters().get().lost, 0);
}

#[test]
fn an_output_that_fails_costs_bytes_and_nothing_else() {
    let interrupt = Arc::new(CountingInterrupt::default());
    let mut serial = Serial::new(interrupt.clone(), Box::new(Broken));
    assert_eq!(serial.write(IER, &[2]), Effect::None);
    let before = interrupt.count();
    read(&mut serial, 2);
    send(&mut serial, b"x");
    assert_eq!(serial.counters().get().lost, 1);
    // The driver still hears that it may send the next byte.
    assert_eq!(interrupt.count(), before + 1);
    assert_eq!(read(&mut serial, LSR) & 0x60, 0x60);
}

#[test]
fn input_is_taken_up_to_the_fifos_room_and_read_in_order() {
    let interrupt = Arc::new(CountingInterrupt::default());
    let mut serial = Serial::new(interrupt.clone(), Box::new(io::sink()));
    assert_eq!(serial.write(IER, &[1]), Effect::None);
    assert_eq!(serial.enqueue(&[]), 0);
    assert_eq!(interrupt.count(), 0);

    let input: Vec<u8> = (0..100).collect();
    assert_eq!(serial.capacity(), 64);
    assert_eq!(serial.enqueue(&input), 64);
    assert_eq!(interrupt.count(), 1);
    assert_eq!((serial.capacity(), serial.enqueue(&input)), (0, 0));
    for expected in 0..10 {
        assert_eq!(read(&mut serial, LSR) & 1, 1);
        assert_eq!(read(&mut serial, DATA), expected);
    }
    assert_eq!(serial.enqueue(&input[64..]), 10);
    let rest: Vec<u8> = std::iter::from_fn(|| {
        let ready = read(&mut serial, LSR) & 1 != 0;
        ready.then(|| read(&mut serial, DATA))
    })
    .collect();
    assert_eq!(rest, (10..74).collect::<Vec<u8>>());
}

#[test]
fn whoever_filled_the_fifo_hears_when_there_is_room_again() {
    let mut serial = Serial::new(Arc::new(CountingInterrupt::default()), Box::new(io::sink()));
    let room = EventFd::new(libc::EFD_NONBLOCK).unwrap();
    serial.set_room_event(room.try_clone().unwrap());
    assert_eq!(serial.enqueue(&[1; 63]), 63);
    for _ in 0..63 {
        read(&mut serial, DATA);
    }
    assert!(room.read().is_err(), "there was room all the time");
    assert_eq!(serial.enqueue(&[2; 65]), 64);
    for _ in 0..63 {
        read(&mut serial, DATA);
    }
    assert!(room.read().is_err());
    assert_eq!(read(&mut serial, DATA), 2);
    assert_eq!(room.read().unwrap(), 1);
    assert_eq!(serial.enqueue(&[3]), 1);
}

#[test]
fn accesses_of_other_widths_and_registers_do_no_harm() {
    let screen = Screen::default();
    let mut serial = Serial::new(Arc::new(CountingInterrupt::default()), Box::new(screen.clone()));
    assert_eq!(serial.write(DATA, b"ab"), Effect::None);
    assert_eq!(serial.write(u64::MAX, b"a"), Effect::None);
    assert_eq!(serial.write(DATA, b""), Effect::None);
    assert!(screen.0.lock().unwrap().is_empty());
    let mut wide = [0xff; 4];
    serial.read(LSR, &mut wide);
    assert_eq!(wide, [0x60, 0, 0, 0]);
    serial.read(u64::MAX, &mut wide);
    assert_eq!(wide, [0; 4]);
    serial.read(LSR, &mut []);
}

#[test]
fn a_reader_that_stops_costs_bytes_but_never_more_than_the_patience() {
    let (mut reader, writer) = pipe().unwrap();
    let patience = Duration::from_millis(50);
    let output = PatientWriter::new(writer, patience);
    let mut serial = Serial::new(Arc::new(CountingInterrupt::default()), Box::new(output));

    // Fill the pipe, whatever its size is here; then go on for as many bytes again.
    let started = Instant::now();
    let mut sent = 0;
    while serial.counters().get().lost == 0 {
        send(&mut serial, b"a");
        sent += 1;
        assert!(sent < 10_000_000, "the pipe never filled");
    }
    let full = Instant::now();
    send(&mut serial, &vec![b'b'; 10_000]);
    // Once stalled, nobody waits: 10,000 times 50 ms would be more than 8 minutes.
    assert!(full.elapsed() < Duration::from_secs(60), "{:?}", full.elapsed());
    assert!(started.elapsed() >= patience);
    assert_eq!(serial.counters().get().lost, 10_001);

    // The reader comes back, and so does the output.
    let mut kept = vec![0; sent - 1];
    reader.read_exact(&mut kept).unwrap();
    assert!(kept.iter().all(|&byte| byte == b'a'));
    send(&mut serial, b"c");
    let mut next = [0];
    reader.read_exact(&mut next).unwrap();
    assert_eq!(&next, b"c");
    assert_eq!(serial.counters().get().lost, 10_001);
}

#[test]
fn a_reader_that_left_does_not_end_the_guest() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let output = PatientWriter::new(writer, Duration::from_secs(60));
    let mut serial = Serial::new(Arc::new(CountingInterrupt::default()), Box::new(output));
    send(&mut serial, b"xyz");
    assert_eq!(serial.counters().get().lost, 3);
}

#[test]
fn a_file_takes_everything() {
    let path = crate::testing::TempPath::new("console");
    let file = std::fs::File::create(path.as_path()).unwrap();
    let output = PatientWriter::new(file, Duration::ZERO);
    let mut serial = Serial::new(Arc::new(CountingInterrupt::default()), Box::new(output));
    send(&mut serial, b"to the log");
    assert_eq!(std::fs::read(path.as_path()).unwrap(), b"to the log");
}

#[test]
fn a_bounded_file_keeps_the_end_and_never_grows_beyond_its_limit() {
    let path = TempPath::new("console");
    for append in [false, true] {
        for limit in [0, 4096, 5000, 200_000] {
            std::fs::write(path.as_path(), "what was there\n").unwrap();
            // As the agent opens it: for writing alone.
            let file = File::options()
                .write(!append)
                .append(append)
                .open(path.as_path())
                .unwrap();
            let mut console = BoundedFile::new(file, limit).unwrap();
            let limit = limit.max(BoundedFile::LIMIT_MIN);
            let mut written = b"what was there\n".to_vec();
            for line in 0u64.. {
                let text = format!("line {line}\n");
                // A guest writes byte by byte, others at once.
                match line % 3 {
                    0 => text.bytes().for_each(|byte| console.write_all(&[byte]).unwrap()),
                    _ => console.write_all(text.as_bytes()).unwrap(),
                }
                written.extend(text.bytes());
                if line % 50 == 0 {
                    let kept = std::fs::read(path.as_path()).unwrap();
                    assert!(kept.len() as u64 <= limit, "{} of {limit}", kept.len());
                    if written.len() as u64 > limit {
                        let mark = b"left out]\n";
                        let at = kept.windows(mark.len()).position(|bytes| bytes == mark).unwrap();
                        let end = &kept[at + mark.len()..];
                        assert!(
                            written.ends_with(end) && end.len() as u64 >= (limit / 2).min(64 << 10) - 100
                        );
                    } else {
                        assert_eq!(kept, written);
                    }
                }
                if written.len() as u64 > 3 * limit {
                    break;
                }
            }
            let large = vec![b'x'; limit as usize * 2];
            console.write_all(&large).unwrap();
            let kept = std::fs::read(path.as_path()).unwrap();
            assert!(kept.len() as u64 <= limit && kept.ends_with(&[b'x'; 1024]));
        }
    }
}

/// Writes to a limited output, for so long; says how many bytes it took.
fn flood(limit: BucketConfig, time: Duration) -> (usize, SerialCounters) {
    let screen = Screen::default();
    let writer = LimitedWriter::new(screen.clone(), limit);
    let mut serial = Serial::new(Arc::new(CountingInterrupt::default()), Box::new(writer));
    let until = Instant::now() + time;
    let mut written = 0_u64;
    while Instant::now() < until {
        let _ = serial.write(DATA, b"x");
        written += 1;
    }
    let counters = serial.counters().get();
    let taken = screen.0.lock().unwrap().len();
    assert_eq!(written, taken as u64 + counters.limited);
    (taken, counters)
}

#[test]
fn a_limit_lets_through_what_it_says_and_counts_the_rest() {
    let limit = |size, one_time_burst, refill_time| BucketConfig {
        size,
        one_time_burst,
        refill_time,
    };
    let (taken, counters) = flood(limit(100, 50, 3_600_000), Duration::from_millis(20));
    assert_eq!((taken, counters.lost), (150, 0));
    assert!(counters.limited > 0);
    let (_, counters) = flood(limit(0, 0, 0), Duration::from_millis(5));
    assert_eq!(counters, SerialCounters::default());
}
