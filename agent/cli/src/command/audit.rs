//! `audit show` and `audit verify`.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use secovia_agent_api::audit::{self, Head, VerifyError};
use secovia_agent_api::client::Client;
use secovia_agent_api::{AuditBreak, AuditRecord, AuditVerdict};
use serde_json::Value;

use crate::failure::{FAILED, Failure, tell};
use crate::output::{human, print, print_json, printable};

/// `secovia audit show`.
pub(super) async fn show(client: &Client, tail: Option<usize>, json: bool) -> Result<u8, Failure> {
    let records = client.audit(tail).await.map_err(Failure::agent("audit show"))?;
    if json {
        print_json(&records)?;
    } else {
        let lines: String = records.iter().map(line).collect();
        print(&lines)?;
    }
    Ok(0)
}

/// One record: number, time, what happened, and what belongs to it as `key=value`.
fn line(record: &AuditRecord) -> String {
    let value = serde_json::to_value(&record.event).unwrap_or_default();
    let kind = value["kind"].as_str().unwrap_or("?").to_string();
    let details: String = value
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, value)| key.as_str() != "kind" && !value.is_null())
        .map(|(key, value)| format!(" {key}={}", detail(value)))
        .collect();
    format!(
        "{:>6}  {}  {}\n",
        record.seq,
        human::time(record.at_ms),
        printable(&(kind + &details))
    )
}

fn detail(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(detail).collect::<Vec<_>>().join(","),
        Value::Object(members) => members
            .iter()
            .map(|(key, value)| format!("{key}:{}", detail(value)))
            .collect::<Vec<_>>()
            .join(","),
        other => other.to_string(),
    }
}

/// `secovia audit verify`: the agent's log, or these files, oldest first.
pub(super) async fn verify(client: &Client, files: &[PathBuf], json: bool) -> Result<u8, Failure> {
    let verdict = if files.is_empty() {
        client
            .verify_audit()
            .await
            .map_err(Failure::agent("audit verify"))?
    } else {
        verify_files(files)?
    };
    if json {
        print_json(&verdict)?;
    } else if verdict.broken.is_none() {
        print(&format!(
            "whole: {} records, the last has the hash {}\n",
            verdict.records, verdict.head
        ))?;
    }
    match verdict.broken {
        None => Ok(0),
        Some(broken) => {
            tell(&format!(
                "audit verify: {}, line {}: {}",
                broken.file,
                broken.line,
                printable(&broken.problem)
            ));
            Ok(FAILED)
        }
    }
}

/// The same without an agent.
fn verify_files(files: &[PathBuf]) -> Result<AuditVerdict, Failure> {
    let failed = |path: &Path, error: std::io::Error| {
        Failure::other(format!("audit verify {}: {error}", path.display()))
    };
    let mut head: Option<Head> = None;
    let mut broken = None;
    for path in files {
        let file = File::open(path).map_err(|error| failed(path, error))?;
        match audit::verify(BufReader::new(file), head.clone()) {
            Ok(next) => head = next,
            Err(VerifyError::Read(error)) => return Err(failed(path, error)),
            Err(VerifyError::Broken(at)) => {
                broken = Some(AuditBreak {
                    file: path.display().to_string(),
                    line: at.line,
                    problem: at.problem,
                });
                break;
            }
        }
    }
    let head = head.unwrap_or_default();
    Ok(AuditVerdict {
        records: head.seq,
        head: head.hash,
        broken,
    })
}

#[cfg(test)]
mod tests {
    use secovia_agent_api::{Amounts, AuditEvent};

    use super::*;

    #[test]
    fn a_record_is_one_line() {
        let record = AuditRecord {
            seq: 12,
            at_ms: 1_500,
            event: AuditEvent::Admitted {
                vm: "0123456789abcdef".into(),
                name: "web\n".into(),
                amounts: Amounts {
                    cpu_millis: 1_000,
                    ..Amounts::default()
                },
            },
            prev: String::new(),
            hash: String::new(),
        };
        assert_eq!(
            line(&record),
            "    12  1970-01-01T00:00:01.500Z  admitted amounts=cpu_millis:1000,disk_bytes:0,memory_bytes:0 name=web? \
             vm=0123456789abcdef\n"
        );
    }

    #[test]
    fn files_are_one_chain() {
        let dir = tempfile::tempdir().unwrap();
        let mut head = Head::default();
        let files: Vec<PathBuf> = (0..3)
            .map(|number| {
                let path = dir.path().join(number.to_string());
                let event = AuditEvent::Returned {
                    vm: number.to_string(),
                };
                let (line, next) = audit::seal(&head, number, &event).unwrap();
                head = next;
                std::fs::write(&path, line).unwrap();
                path
            })
            .collect();
        let verdict = verify_files(&files).unwrap();
        assert_eq!((verdict.records, &verdict.broken), (3, &None));
        let verdict = verify_files(&[files[0].clone(), files[2].clone()]).unwrap();
        assert_eq!(verdict.broken.unwrap().file, files[2].display().to_string());
    }
}
