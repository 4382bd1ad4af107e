//! `exec -it` on a real pseudo-terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use secovia_guest_protocol::{ExitStatus, Frame, Reply, Request, WindowSize};
use serde_json::json;

use crate::fake::{Answer, FakeAgent, web};

struct Terminal {
    keyboard: File,
    line: OwnedFd,
}

impl Terminal {
    fn open(rows: u16, cols: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let path = std::path::Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
        let line = rustix::fs::open(path, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let terminal = Self {
            keyboard: master.into(),
            line,
        };
        terminal.resize(rows, cols);
        terminal
    }

    fn resize(&self, rows: u16, cols: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: cols,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.line, size).unwrap();
    }

    fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.line).unwrap().local_modes;
        !modes.contains(LocalModes::ICANON) && !modes.contains(LocalModes::ECHO)
    }

    /// Reads what is shown until it ends so.
    fn expect(&mut self, end: &str) {
        let mut shown = Vec::new();
        let mut byte = [0];
        while !shown.ends_with(end.as_bytes()) {
            assert_eq!(self.keyboard.read(&mut byte).unwrap(), 1);
            shown.push(byte[0]);
            assert!(shown.len() < 10_000, "{}", String::from_utf8_lossy(&shown));
        }
    }

    fn exec(&self, agent: &FakeAgent) -> Child {
        let stdio = || Stdio::from(self.line.try_clone().unwrap());
        agent
            .command(&["exec", "-it", "web", "sh"])
            .env("TERM", "xterm-test")
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .unwrap()
    }
}

/// An agent whose guest shows each size and each key that it gets, and ends at `q`; what else it gets comes out of the
/// channel too.
fn agent() -> (FakeAgent, Receiver<Frame>) {
    let (sender, signals) = channel();
    let agent = FakeAgent::start();
    agent.on(
        "GET /v1/vms/web",
        Answer::Json(200, web(json!({"status": "running"}))),
    );
    agent.on(
        "POST /v1/vms/web/exec",
        Answer::session(|mut guest| async move {
            let Some(Frame::Request(Request::Exec(process))) = guest.receive().await else {
                panic!("no exec");
            };
            assert_eq!(process.tty, Some(WindowSize { rows: 30, cols: 90 }));
            assert_eq!(process.env["TERM"], "xterm-test");
            guest.send(Frame::Reply(Reply::Done {})).await;
            while let Some(frame) = guest.receive().await {
                let text = match frame {
                    Frame::Resize(size) => format!("size {}x{};", size.rows, size.cols),
                    Frame::Stdin(bytes) if bytes == b"q" => {
                        guest.send(Frame::Exit(ExitStatus::Exited(4))).await;
                        return;
                    }
                    Frame::Stdin(bytes) => format!("key {};", bytes[0]),
                    other => {
                        let text = format!("{other:?};");
                        sender.send(other).unwrap();
                        text
                    }
                };
                guest.send(Frame::Stdout(text.into_bytes())).await;
            }
        }),
    );
    (agent, signals)
}

#[test]
fn keys_and_sizes_go_to_the_guest_and_the_terminal_is_put_back() {
    let (agent, _signals) = agent();
    let mut terminal = Terminal::open(30, 90);
    assert!(!terminal.is_raw());
    let mut child = terminal.exec(&agent);
    terminal.expect("size 30x90;");
    assert!(terminal.is_raw());
    terminal.keyboard.write_all(b"\x03").unwrap();
    terminal.expect("key 3;");
    terminal.resize(40, 100);
    kill_process(Pid::from_child(&child), Signal::WINCH).unwrap();
    terminal.expect("size 40x100;");
    terminal.keyboard.write_all(b"q").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(4));
    assert!(!terminal.is_raw());
}

#[test]
fn a_signal_that_ends_the_session_puts_the_terminal_back() {
    let (agent, _signals) = agent();
    let mut terminal = Terminal::open(30, 90);
    let mut child = terminal.exec(&agent);
    terminal.expect("size 30x90;");
    for _ in 0..2 {
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        terminal.expect("Signal(15);");
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!terminal.is_raw());
}

#[test]
fn a_terminal_that_is_gone_ends_the_session_and_tells_the_guest() {
    let (agent, signals) = agent();
    let mut terminal = Terminal::open(30, 90);
    let mut child = terminal.exec(&agent);
    terminal.expect("size 30x90;");
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!terminal.is_raw());
    assert_eq!(signals.recv().unwrap(), Frame::Signal(1));
}
