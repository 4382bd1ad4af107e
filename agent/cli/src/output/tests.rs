use secovia_agent_api::{LogBytes, LogEvent, LogRecord, RestartPolicy, Vm, VmState};

use super::log::LogPrinter;
use super::*;
use crate::session::pump::Output;

/// A microVM in this state, for tests.
pub(crate) fn vm(name: &str, state: VmState) -> Vm {
    Vm {
        id: "0123456789abcdef".into(),
        name: name.into(),
        state,
        image: "base".into(),
        image_digest: "sha256:00".into(),
        command: vec!["sh".into(), "-c".into(), "exit 7".into()],
        env: Default::default(),
        user: None,
        working_dir: None,
        containers: Vec::new(),
        cpus: 1,
        cpu_millis: 1_000,
        memory_mib: 256,
        disk_mib: None,
        network: None,
        restart: RestartPolicy::No,
        rm: false,
        labels: Default::default(),
        tty: false,
        stdin: false,
        created_at_ms: 1_000,
        started_at_ms: Some(2_000),
        ended_at_ms: Some(60_000),
        restarts: 0,
        starts: 1,
        last_run: None,
        paused: false,
        vmm_pid: None,
        timing: None,
    }
}

#[test]
fn sizes_and_times_read_well() {
    for (bytes, text) in [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (10 << 20, "10 MiB"),
        (1000 << 20, "1.0 GiB"),
        (u64::MAX, "16384 PiB"),
    ] {
        assert_eq!(human::bytes(bytes), text);
    }
    for (seconds, text) in [
        (0, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7200, "2 h"),
        (200_000, "2 d"),
    ] {
        assert_eq!(human::seconds(seconds), text);
    }
    assert_eq!(human::time(1_500), "1970-01-01T00:00:01.500Z");
    assert_eq!(human::time(u64::MAX), "18446744073709551615 ms");
    assert_eq!(human::ago(10_000, 9_000), "0 s ago");
}

#[test]
fn states_say_since_when() {
    for (state, text) in [
        (VmState::Created, "created"),
        (VmState::Running, "running 88 s"),
        (VmState::Exited { code: 7 }, "exited (7) 30 s ago"),
        (
            VmState::BackOff {
                until_ms: 91_500,
                reason: "x".into(),
            },
            "restarts in 2 s",
        ),
    ] {
        assert_eq!(human::state(&vm("web", state), 90_000), text);
    }
}

#[test]
fn commands_are_quoted_as_a_shell_needs() {
    let words = ["sh", "-c", "echo it's", ""].map(String::from);
    assert_eq!(human::command(&words), r"sh -c 'echo it'\''s' ''");
    assert_eq!(human::shortened("abcdef", 4), "abc…");
    assert_eq!(human::shortened("abcd", 4), "abcd");
}

#[test]
fn a_table_is_aligned_one_line_a_row_and_cannot_move_the_cursor() {
    let mut table = Table::new(["NAME", "STATE"]);
    table.row(["a-long-name".into(), "running".into()]);
    table.row(["b".into(), "bad\n\x1b[2J".into()]);
    assert_eq!(
        table.render(),
        "NAME         STATE\na-long-name  running\nb            bad??[2J\n"
    );
}

fn record(event: LogEvent) -> LogRecord {
    LogRecord { at_ms: 1_500, event }
}

#[test]
fn a_log_is_bytes_again() {
    let mut printer = LogPrinter::new(false);
    let bytes = LogBytes::from_bytes(b"\xff\n");
    assert_eq!(
        printer.take(record(LogEvent::Stderr(bytes))).unwrap(),
        (Output::Stderr, b"\xff\n".to_vec())
    );
    let (output, text) = printer.take(record(LogEvent::Gap(9))).unwrap();
    assert_eq!(output, Output::Stderr);
    assert!(String::from_utf8(text).unwrap().contains("9 bytes"));
    assert!(
        printer
            .take(record(LogEvent::Stdout(LogBytes::Base64("?".into()))))
            .is_err()
    );
}

#[test]
fn a_stamped_log_has_one_time_a_line() {
    let mut printer = LogPrinter::new(true);
    let mut take = |event| String::from_utf8(printer.take(record(event)).unwrap().1).unwrap();
    let text = |text: &str| LogBytes::Text(text.into());
    let stamp = "1970-01-01T00:00:01.500Z";
    assert_eq!(
        take(LogEvent::Stdout(text("a\nb"))),
        format!("{stamp} a\n{stamp} b")
    );
    assert_eq!(take(LogEvent::Stdout(text("c\n"))), "c\n");
    assert_eq!(take(LogEvent::Stdout(text("open"))), format!("{stamp} open"));
    assert_eq!(take(LogEvent::Stderr(text("e\n"))), format!("\n{stamp} e\n"));
}
