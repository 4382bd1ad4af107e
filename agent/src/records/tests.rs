use std::fs;

use secovia_agent_api::RestartPolicy;

use super::*;
use crate::lifecycle::{Failure, Life, Outcome, State};

/// A record with every optional field filled.
pub(crate) fn record(id: VmId, name: &str) -> Record {
    Record {
        id,
        name: name.into(),
        spec: Spec {
            image: "base".into(),
            image_digest: "sha256:00".into(),
            hostname: Some("web-0".into()),
            command: vec!["/bin/sh".into()],
            env: [("A".to_string(), "b".to_string())].into(),
            user: Some("www".into()),
            working_dir: Some("/srv".into()),
            cpus: 2,
            cpu_millis: Some(500),
            memory_mib: 256,
            disk_mib: Some(64),
            tty: None,
            stdin: true,
            pod: None,
            labels: [("app".to_string(), "web".to_string())].into(),
        },
        uid: 900_000,
        network: Some(crate::network::tests::port("8080:80")),
        containers: Vec::new(),
        hold: true,
        life: Life::new(RestartPolicy::OnFailure { max_retries: Some(2) }, true),
        created_ms: 5,
        timing: None,
    }
}

fn id(text: &str) -> VmId {
    text.parse().unwrap()
}

#[test]
fn identifiers_are_16_hexadecimal_digits() {
    let one = VmId::random().unwrap();
    assert_eq!(id(&one.to_string()), one);
    assert_eq!(id("00000000000000ff").to_string(), "00000000000000ff");
    for text in [
        "",
        "ff",
        "00000000000000FF",
        "+0000000000000ff",
        "00000000000000ff0",
        "0000000000000 ff",
    ] {
        assert!(text.parse::<VmId>().is_err(), "{text}");
    }
}

#[test]
fn records_outlive_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.redb");
    let first = record(id("0000000000000001"), "one");
    let mut second = record(id("0000000000000002"), "two");
    second.created_ms = 4;
    {
        let store = Store::open(&path).unwrap();
        store.put(&first).unwrap();
        store.put(&second).unwrap();
        for state in [
            State::Stopping {
                cause: crate::lifecycle::Cause::Request,
                outcome: Some(Outcome::Exited(7)),
                deadline_ms: 1,
            },
            State::Failed(Failure::new("why")),
            State::BackOff {
                until_ms: 9,
                last: Outcome::Failed(Failure::new("why")),
            },
        ] {
            second.life.state = state;
            store.put(&second).unwrap();
        }
    }
    let store = Store::open(&path).unwrap();
    assert_eq!(store.all().unwrap(), [second.clone(), first.clone()]);
    store.remove(first.id).unwrap();
    store.remove(first.id).unwrap();
    assert_eq!(store.all().unwrap(), [second]);
}

#[test]
fn a_store_that_cannot_be_read_is_named_with_a_remedy_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.redb");
    fs::write(&path, vec![0x5a; 8192]).unwrap();
    let error = Store::open(&path).unwrap_err().to_string();
    assert!(
        error.contains("open records") && error.contains("restore the file"),
        "{error}"
    );
    assert_eq!(fs::read(&path).unwrap(), vec![0x5a; 8192]);
}

#[test]
fn a_store_of_another_version_is_refused() {
    for (version, remedy) in [(1, "secovia rm"), (3, "install the newer agent")] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records.redb");
        {
            let table: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
            let database = redb::Database::create(&path).unwrap();
            let transaction = database.begin_write().unwrap();
            transaction
                .open_table(table)
                .unwrap()
                .insert("schema_version", version)
                .unwrap();
            transaction.commit().unwrap();
        }
        let error = Store::open(&path).unwrap_err().to_string();
        assert!(
            error.contains(&format!("schema version {version}")) && error.contains(remedy),
            "{error}"
        );
    }
}

#[test]
fn a_record_with_an_unknown_field_is_refused_by_name() {
    let one = record(id("0000000000000001"), "one");
    let text = serde_json::to_string(&one)
        .unwrap()
        .replace("\"name\"", "\"nme\"");
    let error = serde_json::from_str::<Record>(&text).unwrap_err().to_string();
    assert!(error.contains("nme"), "{error}");
}

#[test]
fn a_store_that_is_open_is_not_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.redb");
    let _first = Store::open(&path).unwrap();
    assert!(matches!(Store::open(&path), Err(StoreError::InUse { .. })));
}
