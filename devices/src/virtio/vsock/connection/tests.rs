use super::super::credit::BUF_ALLOC;
use super::*;

/// A header as a guest with `room` bytes of buffer sends it.
fn header(room: u32, fwd_cnt: u32) -> Header {
    Header {
        buf_alloc: room,
        fwd_cnt,
        ..Header::default()
    }
}

fn data(len: u32) -> Header {
    Header {
        len,
        ..header(1000, 0)
    }
}

fn shutdown(flags: u32) -> Header {
    Header {
        flags,
        ..header(1000, 0)
    }
}

/// A stream that the guest opened, and whose response it has.
fn open() -> Connection {
    let mut connection = Connection::from_guest(&header(1000, 0));
    assert_eq!(connection.due(true), Some(Due::Control(Op::Response, 0)));
    connection.telling(Op::Response, 0);
    connection
}

fn violates(connection: &mut Connection, op: Op, header: &Header) -> bool {
    matches!(connection.receive(op, header), Reaction::Violation(_))
}

#[test]
fn a_hosts_stream_opens_by_request_and_response() {
    let mut connection = Connection::from_host();
    assert_eq!(connection.due(true), Some(Due::Control(Op::Request, 0)));
    connection.telling(Op::Request, 0);
    assert_eq!(
        connection.due(true),
        None,
        "no byte goes before the guest accepted"
    );
    assert_eq!(
        connection.receive(Op::Response, &header(700, 0)),
        Reaction::Accepted
    );
    assert_eq!(connection.due(false), None);
    assert_eq!(connection.due(true), Some(Due::Data(700)));
    assert!(violates(&mut connection, Op::Response, &header(700, 0)));
}

#[test]
fn nothing_but_an_answer_may_come_before_the_stream_is_open() {
    for op in [
        Op::Data,
        Op::Shutdown,
        Op::CreditUpdate,
        Op::CreditRequest,
        Op::Request,
    ] {
        let mut connection = Connection::from_host();
        connection.telling(Op::Request, 0);
        assert!(violates(&mut connection, op, &header(1, 0)), "{op:?}");
    }
    assert!(
        violates(&mut Connection::from_host(), Op::Response, &header(1, 0)),
        "before the request left"
    );
    assert!(violates(
        &mut Connection::from_guest(&header(1, 0)),
        Op::Data,
        &data(1)
    ));
    assert_eq!(
        Connection::from_host().receive(Op::Reset, &header(0, 0)),
        Reaction::Gone
    );
    assert!(violates(&mut open(), Op::Request, &header(1, 0)));
}

#[test]
fn the_guests_room_bounds_what_is_sent_and_is_asked_for_once() {
    let mut connection = open();
    assert_eq!(connection.due(true), Some(Due::Data(1000)));
    connection.telling(Op::Data, 1000);
    assert_eq!(connection.due(true), Some(Due::Control(Op::CreditRequest, 0)));
    connection.telling(Op::CreditRequest, 0);
    assert_eq!(connection.due(true), None);
    assert_eq!(
        connection.receive(Op::CreditUpdate, &header(1000, 0)),
        Reaction::Nothing
    );
    assert_eq!(connection.due(true), None);
    assert_eq!(
        connection.receive(Op::CreditUpdate, &header(1000, 400)),
        Reaction::Nothing
    );
    assert_eq!(connection.due(true), Some(Due::Data(400)));
}

#[test]
fn the_guest_hears_of_room_and_may_not_send_beyond_it() {
    let mut connection = open();
    assert_eq!(connection.receive(Op::Data, &data(BUF_ALLOC)), Reaction::Deliver);
    assert_eq!(connection.due(false), None);
    connection.forwarded(BUF_ALLOC / 2);
    assert_eq!(connection.due(false), Some(Due::Control(Op::CreditUpdate, 0)));
    assert_eq!(connection.telling(Op::CreditUpdate, 0), BUF_ALLOC / 2);
    assert_eq!(connection.due(false), None);
    assert_eq!(
        connection.receive(Op::CreditRequest, &header(1000, 0)),
        Reaction::Nothing
    );
    assert_eq!(connection.due(false), Some(Due::Control(Op::CreditUpdate, 0)));
    connection.telling(Op::CreditUpdate, 0);
    assert!(violates(&mut connection, Op::Data, &data(BUF_ALLOC / 2 + 1)));
}

#[test]
fn a_data_packet_carries_the_credit_too() {
    let mut connection = open();
    assert_eq!(connection.receive(Op::Data, &data(BUF_ALLOC)), Reaction::Deliver);
    connection.forwarded(BUF_ALLOC);
    assert_eq!(connection.due(true), Some(Due::Data(1000)));
    assert_eq!(connection.telling(Op::Data, 10), BUF_ALLOC);
    assert_eq!(connection.due(false), None);
}

#[test]
fn the_guest_ends_its_half_and_the_host_hears_once_all_went_out() {
    let mut connection = open();
    assert!(!connection.drained());
    assert_eq!(
        connection.receive(Op::Shutdown, &shutdown(SHUTDOWN_SEND)),
        Reaction::EndToHost
    );
    assert!(connection.drained());
    assert!(!connection.drained(), "once");
    assert_eq!(
        connection.due(true),
        Some(Due::Data(1000)),
        "the other half goes on"
    );
    assert!(violates(&mut connection, Op::Data, &data(1)));
}

#[test]
fn the_guest_refuses_the_hosts_half_and_gets_no_more_data() {
    let mut connection = open();
    assert_eq!(
        connection.receive(Op::Shutdown, &shutdown(SHUTDOWN_RECEIVE)),
        Reaction::EndToGuest
    );
    assert_eq!(connection.due(true), None);
    assert_eq!(
        connection.receive(Op::Data, &data(5)),
        Reaction::Deliver,
        "the other half goes on"
    );
    assert_eq!(
        connection.receive(Op::Shutdown, &shutdown(SHUTDOWN_RECEIVE)),
        Reaction::Nothing,
        "said again"
    );
}

#[test]
fn both_halves_ended_by_the_guest_finish_the_stream_in_any_order() {
    assert_eq!(
        open().receive(Op::Shutdown, &shutdown(SHUTDOWN_BOTH)),
        Reaction::Finished
    );
    for (first, second) in [
        (SHUTDOWN_SEND, SHUTDOWN_RECEIVE),
        (SHUTDOWN_RECEIVE, SHUTDOWN_SEND),
    ] {
        let mut connection = open();
        assert_ne!(
            connection.receive(Op::Shutdown, &shutdown(first)),
            Reaction::Finished
        );
        assert_eq!(
            connection.receive(Op::Shutdown, &shutdown(second)),
            Reaction::Finished
        );
    }
    let mut connection = open();
    connection.host_refused();
    assert_eq!(
        connection.receive(Op::Shutdown, &shutdown(SHUTDOWN_BOTH)),
        Reaction::Finished
    );
    let mut connection = open();
    assert_eq!(
        connection.receive(Op::Shutdown, &shutdown(!SHUTDOWN_BOTH)),
        Reaction::Nothing,
        "unknown flags"
    );
}

#[test]
fn the_hosts_end_is_told_once_and_after_its_bytes() {
    let mut connection = open();
    assert_eq!(connection.due(true), Some(Due::Data(1000)));
    connection.host_ended();
    assert_eq!(
        connection.due(false),
        Some(Due::Control(Op::Shutdown, SHUTDOWN_SEND))
    );
    connection.telling(Op::Shutdown, 0);
    assert_eq!(connection.due(true), None);
    assert_eq!(
        connection.receive(Op::Data, &data(5)),
        Reaction::Deliver,
        "the other half goes on"
    );
}

#[test]
fn a_host_that_hung_up_is_told_after_what_is_left_to_read() {
    let mut connection = open();
    assert_eq!(connection.host_gone(), Farewell::Shutdown);
    assert_eq!(connection.due(true), Some(Due::Data(1000)));
    assert_eq!(
        connection.due(false),
        Some(Due::Control(Op::Shutdown, SHUTDOWN_RECEIVE))
    );
    connection.telling(Op::Shutdown, 0);
    connection.host_ended();
    assert_eq!(
        connection.due(false),
        Some(Due::Control(Op::Shutdown, SHUTDOWN_BOTH))
    );
    connection.telling(Op::Shutdown, 0);
    assert_eq!(connection.due(true), None);
    assert_eq!(connection.receive(Op::Reset, &header(0, 0)), Reaction::Gone);
}

#[test]
fn a_host_that_hung_up_before_the_answer_is_given_up() {
    let mut connection = Connection::from_host();
    assert_eq!(connection.host_gone(), Farewell::Forget);
    connection.telling(Op::Request, 0);
    assert_eq!(connection.host_gone(), Farewell::Reset);
    assert_eq!(
        Connection::from_guest(&header(1, 0)).host_gone(),
        Farewell::Shutdown
    );
}

#[test]
fn data_that_nobody_takes_is_dropped_and_its_credit_returned() {
    let mut connection = open();
    assert_eq!(connection.receive(Op::Data, &data(BUF_ALLOC)), Reaction::Deliver);
    connection.host_refused();
    assert_eq!(
        connection.due(false),
        Some(Due::Control(Op::Shutdown, SHUTDOWN_RECEIVE))
    );
    assert_eq!(connection.telling(Op::Shutdown, 0), BUF_ALLOC);
    assert_eq!(connection.receive(Op::Data, &data(BUF_ALLOC)), Reaction::Nothing);
    assert_eq!(connection.due(false), Some(Due::Control(Op::CreditUpdate, 0)));
    assert_eq!(connection.telling(Op::CreditUpdate, 0), 2 * BUF_ALLOC);
    assert!(violates(&mut connection, Op::Data, &data(BUF_ALLOC + 1)));
}
