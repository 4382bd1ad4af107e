use std::fs;
use std::io::Write;
use std::path::Path;

use secovia_agent_api::{LogEvent, LogRecord};

use super::*;

const LARGE: u64 = 1 << 20;

fn out(text: &str) -> Piece {
    Piece::Stdout(text.as_bytes().to_vec())
}

fn err(text: &str) -> Piece {
    Piece::Stderr(text.as_bytes().to_vec())
}

/// Everything that can be read, as `o:text`, `e:text`, `g:count`, pieces of one stream joined.
fn drain(reader: &mut LogReader) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    loop {
        let records: Vec<LogRecord> = reader.read().unwrap();
        if records.is_empty() {
            return all;
        }
        for record in records {
            let (kind, text) = match record.event {
                LogEvent::Stdout(bytes) => ("o:", String::from_utf8(bytes.into_bytes().unwrap()).unwrap()),
                LogEvent::Stderr(bytes) => ("e:", String::from_utf8(bytes.into_bytes().unwrap()).unwrap()),
                LogEvent::Gap(count) => ("g:", count.to_string()),
            };
            match all.last_mut() {
                Some(last) if last.starts_with(kind) && kind != "g:" => last.push_str(&text),
                _ => all.push(format!("{kind}{text}")),
            }
        }
    }
}

fn read(dir: &Path, tail: Option<u64>) -> Vec<String> {
    let selection = Selection { tail, since_ms: None };
    drain(&mut LogReader::new(dir, selection).unwrap())
}

#[test]
fn lines_survive() {
    let at = "2026-01-02T03:04:05.678901234Z".parse().unwrap();
    for kind in [
        Kind::Stdout { full: true },
        Kind::Stdout { full: false },
        Kind::Stderr { full: true },
        Kind::Stderr { full: false },
        Kind::Gap(77),
        Kind::Start,
    ] {
        for text in [&b""[..], b"a b  c", b"\xff\r\x00"] {
            let line = Line { at, kind, text };
            let mut bytes = Vec::new();
            line.write(&mut bytes);
            assert_eq!(bytes.pop(), Some(b'\n'));
            assert_eq!(Line::parse(&bytes), Ok(line));
        }
    }
    let mut bytes = Vec::new();
    let line = Line {
        at,
        kind: Kind::Stdout { full: true },
        text: b"hello",
    };
    line.write(&mut bytes);
    assert_eq!(bytes, b"2026-01-02T03:04:05.678901234Z stdout F hello\n");
    for junk in [
        &b""[..],
        b"x stdout F a",
        b"2026-01-02T03:04:05Z stdin F a",
        b"2026-01-02T03:04:05Z stdout",
    ] {
        assert!(Line::parse(junk).is_err());
    }
}

#[test]
fn output_comes_back_byte_for_byte_in_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = LogWriter::open(dir.path(), LARGE).unwrap();
    let pieces = [
        out("one\ntw"),
        err("oops"),
        out("o\n"),
        Piece::Gap(5),
        err("\n\n"),
        out("end"),
    ];
    for piece in &pieces {
        writer.append(std::slice::from_ref(piece)).unwrap();
    }
    assert_eq!(writer.output(), 6 + 4 + 2 + 5 + 2 + 3);
    assert_eq!(
        read(dir.path(), None),
        ["o:one\ntw", "e:oops", "o:o\n", "g:5", "e:\n\n", "o:end"]
    );
}

#[test]
fn a_writer_that_comes_back_knows_how_far_it_was() {
    let dir = tempfile::tempdir().unwrap();
    {
        let mut writer = LogWriter::open(dir.path(), LARGE).unwrap();
        writer.begin_run(None).unwrap();
        writer.append(&[out("first run")]).unwrap();
        writer.begin_run(None).unwrap();
        writer
            .append(&[out("ab\ncd"), err("ef\n"), Piece::Gap(100)])
            .unwrap();
        assert_eq!(writer.output(), 108);
    }
    // The agent was killed in the middle of a line.
    let path = dir.path().join("0-0.log");
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"2026-01-02T03:04:05Z stdout F half a li")
        .unwrap();
    let mut writer = LogWriter::open(dir.path(), LARGE).unwrap();
    assert_eq!(writer.output(), 108);
    writer.append(&[out("next\n")]).unwrap();
    assert_eq!(
        read(dir.path(), None),
        ["o:first runab\ncd", "e:ef\n", "g:100", "o:next\n"]
    );
}

#[test]
fn a_log_is_turned_over_and_still_knows_how_far_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = LogWriter::open(dir.path(), 1000).unwrap();
    writer.begin_run(None).unwrap();
    for number in 0..100 {
        writer.append(&[out(&format!("line {number:03}\n"))]).unwrap();
    }
    let names: Vec<_> = files(dir.path()).unwrap();
    assert_eq!(names.len(), 2);
    for name in &names {
        assert!(fs::metadata(name.path(dir.path())).unwrap().len() < 1100);
    }
    assert_eq!(writer.output(), 900);
    drop(writer);
    assert_eq!(LogWriter::open(dir.path(), 1000).unwrap().output(), 900);

    let all = read(dir.path(), None);
    let gone = names[0].base;
    assert_eq!(all[0], format!("g:{gone}"));
    let expected: String = (gone / 9..100)
        .map(|number| format!("line {number:03}\n"))
        .collect();
    assert_eq!(all[1], format!("o:{expected}"));
}

#[test]
fn a_tail_counts_lines_of_output() {
    let dir = tempfile::tempdir().unwrap();
    assert!(read(&dir.path().join("none"), Some(3)).is_empty());
    let mut writer = LogWriter::open(dir.path(), 200).unwrap();
    for number in 0..6 {
        writer.append(&[out("a"), out(&format!("{number}\n"))]).unwrap();
    }
    assert_eq!(read(dir.path(), Some(0)), Vec::<String>::new());
    assert_eq!(read(dir.path(), Some(1)), ["o:a5\n"]);
    assert_eq!(read(dir.path(), Some(3)), ["o:a3\na4\na5\n"]);
    writer.append(&[out("unfinished")]).unwrap();
    assert_eq!(read(dir.path(), Some(2)), ["o:a5\nunfinished"]);
}

#[test]
fn only_what_was_written_since() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = LogWriter::open(dir.path(), LARGE).unwrap();
    writer.append(&[out("old\n")]).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(5));
    let now = jiff::Timestamp::now().as_millisecond() as u64;
    writer.append(&[out("new\n")]).unwrap();
    let at = |since_ms| {
        let selection = Selection {
            tail: None,
            since_ms: Some(since_ms),
        };
        drain(&mut LogReader::new(dir.path(), selection).unwrap())
    };
    assert_eq!(at(now), ["o:new\n"]);
    assert_eq!(at(now + 60_000), Vec::<String>::new());
}

#[test]
fn a_reader_follows_the_writer_over_the_turn() {
    let dir = tempfile::tempdir().unwrap();
    let mut reader = LogReader::new(dir.path(), Selection::default()).unwrap();
    let mut writer = LogWriter::open(dir.path(), 150).unwrap();
    let mut seen = String::new();
    let mut expected = String::new();
    for number in 0..20 {
        let text = format!("{number}\n");
        writer.append(&[out(&text)]).unwrap();
        expected.push_str(&text);
        for piece in drain(&mut reader) {
            seen.push_str(piece.strip_prefix("o:").unwrap());
        }
    }
    assert_eq!(seen, expected);
}

#[test]
fn what_could_not_be_written_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = LogWriter::open(dir.path(), LARGE).unwrap();
    writer.append(&[out("a")]).unwrap();
    writer.lose(&[out("bcd"), Piece::Gap(2)]);
    assert_eq!(writer.output(), 6);
    writer.append(&[out("e")]).unwrap();
    assert_eq!(writer.output(), 7);
    assert_eq!(read(dir.path(), None), ["o:a", "g:5", "o:e"]);
}

/// A guest may claim any gap.
#[test]
fn a_gap_beyond_all_numbers_is_borne() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = LogWriter::open(dir.path(), LARGE).unwrap();
    for _ in 0..2 {
        writer.append(&[out("a"), Piece::Gap(u64::MAX)]).unwrap();
        writer.lose(&[Piece::Gap(u64::MAX), Piece::Gap(u64::MAX)]);
    }
    assert_eq!(LogWriter::open(dir.path(), LARGE).unwrap().output(), u64::MAX);
}

#[test]
fn a_run_is_known_by_its_number_however_often_its_log_was_turned_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = LogWriter::open(dir.path(), 200).unwrap();
    assert_eq!(writer.run(), None);
    writer.begin_run(Some(3)).unwrap();
    writer.append(&[out("x\n")]).unwrap();
    writer.begin_run(Some(7)).unwrap();
    for number in 0..50 {
        writer.append(&[out(&format!("line {number:03}\n"))]).unwrap();
        let again = LogWriter::open(dir.path(), 200).unwrap();
        assert_eq!((again.run(), again.output()), (Some(7), (number + 1) * 9));
    }
}
