use super::*;

#[test]
fn room_at_guest_counts_across_the_wrap() {
    let mut credit = Credit {
        sent: u32::MAX - 10,
        ..Credit::default()
    };
    credit.heard(100, u32::MAX - 10);
    assert_eq!(credit.room_at_guest(), 100);
    credit.sent(60);
    assert_eq!(credit.sent, 49);
    assert_eq!(credit.room_at_guest(), 40);
    credit.heard(100, 9);
    assert_eq!(credit.room_at_guest(), 60);
    credit.heard(10, 9);
    assert_eq!(
        credit.room_at_guest(),
        0,
        "a buffer that shrank below what is in flight has no room"
    );
}

#[test]
fn a_guest_that_claims_more_than_was_sent_gets_nothing() {
    let mut credit = Credit::default();
    credit.heard(u32::MAX - 1, 1);
    assert_eq!(credit.room_at_guest(), 0);
}

#[test]
fn the_guest_may_send_exactly_its_credit() {
    let mut credit = Credit {
        received: u32::MAX - 5,
        forwarded: u32::MAX - 5,
        ..Credit::default()
    };
    assert!(credit.receive(BUF_ALLOC));
    assert!(!credit.receive(1));
    credit.forwarded(10);
    assert!(credit.receive(10));
    assert!(!credit.receive(1));
    assert!(!credit.receive(u32::MAX));
    credit.forwarded_all();
    assert!(credit.receive(BUF_ALLOC));
}

#[test]
fn updates_are_sent_after_half_the_buffer_or_when_asked() {
    let mut credit = Credit::default();
    assert!(credit.receive(BUF_ALLOC));
    credit.forwarded(UPDATE_STEP - 1);
    assert!(!credit.must_tell());
    credit.forwarded(1);
    assert!(credit.must_tell());
    assert_eq!(credit.tell(), UPDATE_STEP);
    assert!(!credit.must_tell());
    credit.answer();
    assert!(credit.must_tell());
    credit.tell();
    assert!(!credit.must_tell());
}

#[test]
fn the_guest_is_asked_once_until_it_gives() {
    let mut credit = Credit::default();
    credit.heard(10, 0);
    credit.sent(10);
    assert!(credit.must_ask());
    credit.asked();
    credit.heard(10, 0);
    assert!(
        !credit.must_ask(),
        "an answer without credit is no reason to ask again"
    );
    credit.heard(10, 10);
    assert!(credit.must_ask());
}

/// Every state in which the counters stand at or near an edge, those of a wrapped sum included, and every packet: never
/// is more kept than [`BUF_ALLOC`], never more sent than the guest has room for.
#[test]
fn no_counter_and_no_packet_breaks_a_bound() {
    let near = |edge: u32| (0..3).map(move |by| edge.wrapping_add(by).wrapping_sub(1));
    let edges: Vec<u32> = [0, UPDATE_STEP, BUF_ALLOC, 1 << 31]
        .into_iter()
        .flat_map(near)
        .collect();
    let kept: Vec<u32> = edges.iter().copied().filter(|kept| *kept <= BUF_ALLOC).collect();
    for &forwarded in &edges {
        for &kept in &kept {
            for &bytes in &edges {
                let mut credit = Credit {
                    received: forwarded.wrapping_add(kept),
                    forwarded,
                    told: forwarded,
                    ..Credit::default()
                };
                let fits = u64::from(kept) + u64::from(bytes) <= u64::from(BUF_ALLOC);
                assert_eq!(credit.receive(bytes), fits, "{bytes} on top of {kept}");
                let now = credit.received.wrapping_sub(credit.forwarded);
                assert_eq!(now, if fits { kept + bytes } else { kept });
                credit.forwarded(now);
                assert_eq!(credit.must_tell(), now >= UPDATE_STEP);
                assert_eq!(credit.tell(), credit.received);
            }
        }
    }
    for &sent in &edges {
        for &acknowledged in &edges {
            for &room in &edges {
                let mut credit = Credit {
                    sent,
                    ..Credit::default()
                };
                credit.heard(room, acknowledged);
                // What the guest did not acknowledge is on its way, whatever it says.
                let under_way = u64::from(sent.wrapping_sub(acknowledged));
                let given = u64::from(credit.room_at_guest());
                assert_eq!(given, u64::from(room).saturating_sub(under_way));
                credit.sent(credit.room_at_guest());
                assert!(credit.room_at_guest() == 0);
            }
        }
    }
}
