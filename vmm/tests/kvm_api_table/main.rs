//! The API's conformance table: every resource and every field, good and bad, before the start and after it, with the
//! status and what `/vm/config` says then. Over the socket, with a plain client.

mod after;
mod before;
#[path = "../common/mod.rs"]
mod common;
mod random;
mod row;

use common::api::{Answer, Api};
use common::{Machine, kvm};
use nix::sys::signal::Signal;
use secovia_stub_guests as stubs;
use serde_json::{Value, json};

use self::after::after;
use self::before::before;
use self::row::Expected::{self, Refused, Taken, Told};

/// Whether all of `part` is in `whole`.
fn is_in(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        // Of what is no JSON, that there is something.
        (Value::Object(part), Value::String(text)) if part.is_empty() => !text.is_empty(),
        (Value::Object(part), Value::Object(whole)) => part
            .iter()
            .all(|(key, value)| whole.get(key).is_some_and(|found| is_in(value, found))),
        _ => part == whole,
    }
}

fn check(api: &Api, method: &str, path: &str, body: &Value, expected: &Expected) {
    let name = format!("{method} {path} {body}");
    let before = api.get("/vm/config").body;
    let text = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let answer = api.call(method, path, &text);
    let after = api.get("/vm/config").body;
    match expected {
        Taken(pointer, value) => {
            assert_eq!(
                (answer.status, &answer.body),
                (204, &Value::Null),
                "{name}: {answer:?}"
            );
            let found = after.pointer(pointer).unwrap_or(&Value::Null);
            assert!(is_in(value, found), "{name}: {pointer} is {found}, not {value}");
        }
        Told(part) => {
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
            assert!(is_in(part, &answer.body), "{name}: {answer:?}");
        }
        Refused(part) => {
            assert_eq!(answer.status, 400, "{name}: {answer:?}");
            assert!(
                answer.fault().contains(part),
                "{name}: {answer:?}\nshould contain: {part}"
            );
            assert_eq!(after, before, "{name}");
        }
    }
}

#[test]
fn every_resource_and_field_before_and_after_the_start() {
    if !kvm() {
        return;
    }
    let machine = Machine::stub(stubs::IDLE);
    let (mut running, api) = machine.start_empty();
    let described = before(&machine);
    for (method, path, body, expected) in &described {
        check(&api, method, path, body, expected);
    }
    // What only a running machine can be asked for.
    for (method, path, body, expected) in &after(&machine) {
        let always = path == "/"
            || path == "/version"
            || path == "/machine-config"
            || path == "/mmds"
            || matches!(path.as_str(), "/balloon" | "/hotplug/memory") && *method == "GET";
        if !matches!(expected, Refused(_)) && !always {
            check(
                &api,
                method,
                path,
                body,
                &Refused("not possible while the machine is not started"),
            );
        }
    }
    let start = json!({ "action_type": "InstanceStart" });
    // There is no such tap; the machine can be described anew without it, as everything in its place can be.
    check(
        &api,
        "PUT",
        "/actions",
        &start,
        &Refused("network-interfaces.n.host_dev_name: tap no-such-tap"),
    );
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().status, Some(0));

    let (next, api) = machine.start_empty();
    running = next;
    for (method, path, body, expected) in described
        .iter()
        .filter(|row| !row.1.starts_with("/network") && row.1 != "/mmds/config")
    {
        if let Taken(..) = expected {
            check(&api, method, path, body, expected);
        }
    }
    check(&api, "PUT", "/actions", &start, &Taken("", json!({})));
    running.wait_for("ready\n");
    for (method, path, body, expected) in &after(&machine) {
        check(&api, method, path, body, expected);
    }
    for (method, path, body, expected) in &described {
        let running = format!("{method} {path}");
        match expected {
            // What is refused above has no body at all, and null is one.
            _ if path == "/mmds" => {}
            Taken(..) => check(
                &api,
                method,
                path,
                body,
                &Refused("not possible while the machine is running"),
            ),
            Refused(_) => {
                let answer: Answer = api.call(method, path, &body.to_string());
                assert_eq!(answer.status, 400, "{running} {body}: {answer:?}");
            }
            Told(_) => {}
        }
    }
    running.signal(Signal::SIGTERM);
    running.signal(Signal::SIGINT);
    let outcome = running.end();
    assert_eq!(
        (outcome.status, outcome.errors.as_str()),
        (Some(5), ""),
        "{outcome:?}"
    );
}
