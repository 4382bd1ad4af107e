use super::*;

const LIMIT: usize = 100;

fn whole(text: &str) -> (Head, String) {
    match parse(text.as_bytes(), LIMIT) {
        Ok(Parsed::Whole { head, body }) => (head, text[body].into()),
        other => panic!("{text:?}: {other:?}"),
    }
}

#[test]
fn a_request_is_whole_when_its_last_byte_is_there() {
    let text = "PUT /actions HTTP/1.1\r\nHost: x\r\ncontent-length: 4\r\nAccept: */*\r\n\r\n{ } ";
    for end in 0..text.len() {
        let part = parse(&text.as_bytes()[..end], LIMIT);
        assert_eq!(part, Ok(Parsed::Partial { waits: false }), "{end}");
    }
    let (head, body) = whole(&format!("{text}GET / HTTP/1.1\r\n\r\n"));
    assert_eq!(
        (head.method, head.path.as_str(), head.close),
        (Some(Method::Put), "/actions", false)
    );
    assert_eq!(body, "{ } ");
}

#[test]
fn methods_and_the_connections_end_are_told() {
    for (line, method) in [
        ("GET", Some(Method::Get)),
        ("PATCH", Some(Method::Patch)),
        ("DELETE", Some(Method::Delete)),
        ("POST", None),
        ("get", None),
    ] {
        assert_eq!(
            whole(&format!("{line} / HTTP/1.1\r\n\r\n")).0.method,
            method,
            "{line}"
        );
    }
    assert!(whole("GET / HTTP/1.1\r\nConnection: Close\r\n\r\n").0.close);
    assert!(whole("GET / HTTP/1.0\r\n\r\n").0.close);
    assert!(!whole("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").0.close);
}

#[test]
fn a_client_that_waits_is_told_to_go_on() {
    let text = "PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
    assert_eq!(parse(text.as_bytes(), LIMIT), Ok(Parsed::Partial { waits: true }));
}

#[test]
fn what_is_no_request_is_refused() {
    let refused = |text: &str| parse(text.as_bytes(), LIMIT).unwrap_err();
    assert!(matches!(refused("nonsense\r\n\r\n"), HttpError::Head(_)));
    assert!(matches!(refused("GET / HTTP/2.0\r\n\r\n"), HttpError::Head(_)));
    for length in [
        "",
        "-1",
        "+1",
        "1,1",
        "1x",
        "99999999999999999999",
        "1\r\nContent-Length: 2",
    ] {
        let error = refused(&format!("PUT / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n"));
        assert!(matches!(error, HttpError::Length(_)), "{length}");
    }
    let chunked = "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(refused(chunked), HttpError::Coding);
    let long = refused("PUT / HTTP/1.1\r\nContent-Length: 101\r\n\r\n");
    assert_eq!(
        long,
        HttpError::BodySize {
            length: 101,
            limit: 100
        }
    );
    assert_eq!(long.status(), Status::TooLarge);
    assert_eq!(
        refused(&format!("GET /{} HTTP/1.1\r\n", "a".repeat(HEAD_MAX))),
        HttpError::HeadSize
    );
    let many = "A: b\r\n".repeat(LINES_MAX + 1);
    assert!(matches!(
        refused(&format!("GET / HTTP/1.1\r\n{many}\r\n")),
        HttpError::Head(_)
    ));
}

#[test]
fn answers_say_how_long_they_are() {
    let text = String::from_utf8(answer(Status::Ok, Some("{\"a\":1}"), false)).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("Content-Length: 7\r\n\r\n{\"a\":1}"));
    let text = String::from_utf8(answer(Status::Done, None, true)).unwrap();
    assert!(text.starts_with("HTTP/1.1 204 No Content\r\n") && text.ends_with("Connection: close\r\n\r\n"));
}
