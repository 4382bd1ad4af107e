use super::*;

fn request(guest: u32, host: u32) -> Header {
    Header {
        src_cid: 3,
        dst_cid: HOST_CID,
        src_port: guest,
        dst_port: host,
        kind: TYPE_STREAM,
        op: Op::Request.number(),
        buf_alloc: 100,
        ..Header::default()
    }
}

/// Lets whoever has the turn say what it has to; the stream goes back into line.
fn speak(muxer: &mut Muxer) -> Option<Header> {
    loop {
        match muxer.next_turn()? {
            Turn::Packet(header) => return Some(header),
            Turn::Stream(key) => {
                if let Some(Due::Control(op, flags)) = muxer.due(key, false) {
                    muxer.stand_in_line(key);
                    return muxer.tell(key, op, flags, 0);
                }
            }
        }
    }
}

#[test]
fn streams_are_told_apart_by_both_ports() {
    let mut muxer = Muxer::new(3);
    let one = muxer.open_from_guest(&request(10, 80), 1);
    let two = muxer.open_from_guest(&request(10, 81), 2);
    let three = muxer.open_from_guest(&request(11, 80), 3);
    assert_eq!(muxer.len(), 3);
    assert_eq!(muxer.get_mut(two).unwrap().socket, 2);
    assert_eq!(muxer.remove(one), Some(1));
    assert_eq!(muxer.remove(one), None);
    assert_eq!(muxer.get_mut(three).unwrap().socket, 3);
    let answer = speak(&mut muxer).unwrap();
    assert_eq!((answer.src_cid, answer.dst_cid), (HOST_CID, 3));
    assert_eq!((answer.src_port, answer.dst_port), (81, 10));
    assert_eq!((answer.op, answer.buf_alloc), (Op::Response.number(), BUF_ALLOC));
}

#[test]
fn host_ports_are_not_used_twice_also_after_the_wrap() {
    let mut muxer = Muxer::new(3);
    let first = muxer.open_from_host(1024, 1);
    assert_eq!(first.host, FIRST_HOST_PORT);
    muxer.next_port = u32::MAX;
    let last = muxer.open_from_host(1024, 2);
    assert_eq!(last.host, u32::MAX);
    let after = muxer.open_from_host(1024, 3);
    assert_eq!(after.host, FIRST_HOST_PORT + 1, "the first is still in use");
    // The guest took this port for a stream of its own.
    muxer.open_from_guest(&request(1024, FIRST_HOST_PORT + 2), 4);
    assert_eq!(muxer.open_from_host(1024, 5).host, FIRST_HOST_PORT + 3);
}

#[test]
fn turns_go_round() {
    let mut muxer = Muxer::new(3);
    let keys: Vec<_> = (0..3)
        .map(|port| muxer.open_from_guest(&request(port, 80), u64::from(port)))
        .collect();
    let mut seen = Vec::new();
    for _ in 0..6 {
        let Some(Turn::Stream(key)) = muxer.next_turn() else {
            panic!("nobody in line");
        };
        muxer.stand_in_line(key);
        muxer.stand_in_line(key);
        seen.push(key);
    }
    assert_eq!(seen[..3], keys[..]);
    assert_eq!(seen[3..], keys[..]);
}

#[test]
fn resets_go_first_and_bound_what_is_taken_from_the_guest() {
    let mut muxer = Muxer::new(3);
    muxer.open_from_guest(&request(1, 2), 1);
    for port in 0..MAX_RESETS {
        assert!(muxer.has_room());
        muxer.push_reset(request(port as u32, 9).reset());
    }
    assert!(!muxer.has_room());
    assert_eq!(speak(&mut muxer).unwrap().op, Op::Reset.number());
    assert!(muxer.has_room());
    for _ in 1..MAX_RESETS {
        assert_eq!(speak(&mut muxer).unwrap().op, Op::Reset.number());
    }
    assert_eq!(speak(&mut muxer).unwrap().op, Op::Response.number());
    assert_eq!(speak(&mut muxer), None);
    assert!(!muxer.has_turn());
}

#[test]
fn opening_and_removing_one_stream_for_ever_leaves_nothing_behind() {
    let mut muxer = Muxer::new(3);
    for _ in 0..1000 {
        let key = muxer.open_from_guest(&request(1, 2), 1);
        muxer.remove(key);
    }
    assert_eq!(muxer.line.len(), 0);
    assert!(!muxer.has_turn());
}
