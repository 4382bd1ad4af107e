use secovia_guest_protocol::GuestErrorCode;

use super::*;

fn exec(stdin: bool) -> Pump {
    Pump::new(
        Purpose::Exec {
            container: None,
            process: process(),
            stdin,
        },
        false,
    )
}

fn process() -> ProcessSpec {
    ProcessSpec {
        argv: vec!["cat".into()],
        env: Default::default(),
        cwd: None,
        user: None,
        tty: None,
    }
}

/// A session whose streams flow.
fn streaming(purpose: Purpose) -> Pump {
    let mut pump = Pump::new(purpose, false);
    pump.open();
    assert!(!pump.is_streaming() && !pump.wants_stdin());
    assert_eq!(pump.step(Input::Frame(Frame::Reply(Reply::Done {}))), []);
    assert!(pump.is_streaming());
    pump
}

fn attached() -> Pump {
    streaming(Purpose::Attach { stdin: true })
}

#[test]
fn output_and_status_are_handed_on() {
    let mut pump = attached();
    assert_eq!(
        pump.step(Input::Frame(Frame::Stdout(b"a".to_vec()))),
        [Effect::Write(Output::Stdout, b"a".to_vec())]
    );
    assert_eq!(
        pump.step(Input::Frame(Frame::Stderr(b"b".to_vec()))),
        [Effect::Write(Output::Stderr, b"b".to_vec())]
    );
    assert_eq!(pump.outcome(), None);
    assert_eq!(pump.step(Input::Frame(Frame::Exit(ExitStatus::Exited(7)))), []);
    assert_eq!(pump.outcome(), Some(&Outcome::Exit(ExitStatus::Exited(7))));
    assert_eq!(pump.step(Input::Frame(Frame::Stdout(b"late".to_vec()))), []);
    assert_eq!(pump.step(Input::HangUp), []);
    assert_eq!(pump.outcome(), Some(&Outcome::Exit(ExitStatus::Exited(7))));
}

#[test]
fn input_is_cut_to_frames_and_ends_once() {
    let mut pump = attached();
    assert!(pump.wants_stdin());
    let effects = pump.step(Input::Stdin(vec![1; MAX_PAYLOAD + 1]));
    let sizes: Vec<usize> = effects
        .iter()
        .map(|effect| match effect {
            Effect::Send(Frame::Stdin(bytes)) => bytes.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sizes, [MAX_PAYLOAD, 1]);
    assert_eq!(pump.step(Input::StdinEof), [Effect::Send(Frame::StdinEof)]);
    assert!(!pump.wants_stdin());
}

#[test]
fn without_input_the_process_of_exec_finds_its_end() {
    let mut pump = exec(false);
    assert_eq!(
        pump.open(),
        [
            Effect::Send(Frame::Request(Request::Exec(process()))),
            Effect::Send(Frame::StdinEof)
        ]
    );
    let mut pump = exec(true);
    assert_eq!(
        pump.open(),
        [Effect::Send(Frame::Request(Request::Exec(process())))]
    );
}

#[test]
fn after_a_hang_up_the_output_goes_on_where_it_broke_off() {
    let mut pump = attached();
    pump.step(Input::Frame(Frame::Stdout(vec![0; 10])));
    assert_eq!(pump.step(Input::Frame(Frame::Gap(5))).len(), 1);
    pump.step(Input::Frame(Frame::Stderr(vec![0; 3])));
    pump.step(Input::StdinEof);
    pump.step(Input::HangUp);
    assert_eq!(pump.outcome(), Some(&Outcome::HungUp));
    let request = Request::Attach {
        from: 18,
        stdin: false,
    };
    assert_eq!(pump.open(), [Effect::Send(Frame::Request(request))]);
    assert_eq!(pump.outcome(), None);
}

#[test]
fn signals_and_sizes_go_to_the_guest_and_the_third_plea_leaves() {
    let mut pump = attached();
    let size = WindowSize { rows: 2, cols: 3 };
    assert_eq!(
        pump.step(Input::Resize(size)),
        [Effect::Send(Frame::Resize(size))]
    );
    for _ in 0..5 {
        assert_eq!(pump.step(Input::Signal(10)), [Effect::Send(Frame::Signal(10))]);
    }
    assert_eq!(pump.step(Input::Signal(SIGINT)), [Effect::Send(Frame::Signal(2))]);
    assert_eq!(
        pump.step(Input::Signal(SIGTERM)),
        [Effect::Send(Frame::Signal(15))]
    );
    assert_eq!(pump.step(Input::Signal(SIGINT)), []);
    assert_eq!(pump.outcome(), Some(&Outcome::Abandoned));
}

#[test]
fn a_terminal_that_is_gone_ends_the_session() {
    for tty in [false, true] {
        let mut pump = Pump::new(Purpose::Attach { stdin: true }, tty);
        pump.open();
        assert_eq!(
            pump.step(Input::Signal(SIGHUP)),
            [Effect::Send(Frame::Signal(SIGHUP))]
        );
        assert_eq!(pump.outcome(), tty.then_some(&Outcome::Abandoned));
    }
}

#[test]
fn a_refusal_ends_the_session_with_its_reason() {
    let error = GuestError {
        code: GuestErrorCode::NotFound,
        message: "no such program".into(),
    };
    let mut pump = exec(false);
    pump.open();
    pump.step(Input::Frame(Frame::Error(error.clone())));
    assert_eq!(pump.outcome(), Some(&Outcome::Refused(error)));
}

#[test]
fn a_guest_that_speaks_out_of_turn_is_cut_off() {
    for frame in [
        Frame::Stdout(b"x".to_vec()),
        Frame::Exit(ExitStatus::Exited(0)),
        Frame::StdinEof,
    ] {
        let mut pump = exec(false);
        pump.open();
        assert_eq!(pump.step(Input::Frame(frame)), []);
        assert_eq!(pump.outcome(), Some(&Outcome::HungUp));
    }
    for frame in [
        Frame::Reply(Reply::Done {}),
        Frame::Signal(1),
        Frame::Request(Request::Info {}),
    ] {
        let mut pump = attached();
        pump.step(Input::Frame(frame));
        assert_eq!(pump.outcome(), Some(&Outcome::HungUp));
    }
}

#[test]
fn a_closed_output_acts_as_a_broken_pipe() {
    let mut pump = attached();
    assert_eq!(
        pump.step(Input::OutputClosed(Output::Stdout)),
        [Effect::Send(Frame::Signal(SIGPIPE))]
    );
    assert_eq!(pump.step(Input::Frame(Frame::Stdout(b"more".to_vec()))), []);
    assert_eq!(
        pump.step(Input::Frame(Frame::Stderr(b"e".to_vec()))),
        [Effect::Write(Output::Stderr, b"e".to_vec())]
    );
    assert_eq!(pump.step(Input::OutputClosed(Output::Stderr)), []);
    assert_eq!(pump.step(Input::Frame(Frame::Stderr(b"e".to_vec()))), []);
    pump.step(Input::Frame(Frame::Exit(ExitStatus::Signaled(SIGPIPE))));
    assert_eq!(
        pump.outcome(),
        Some(&Outcome::Exit(ExitStatus::Signaled(SIGPIPE)))
    );

    let mut pump = streaming(Purpose::Exec {
        container: None,
        process: process(),
        stdin: false,
    });
    assert_eq!(pump.step(Input::OutputClosed(Output::Stdout)), []);
    assert_eq!(pump.outcome(), Some(&Outcome::Unread));
}
