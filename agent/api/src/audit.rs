//! The audit log: what the agent did with what it lends, as a chain of lines that cannot be changed unnoticed.
//!
//! Each line is a JSON object. Its last member, `hash`, is the SHA-256 of all bytes of the line before `,"hash":`; `prev`
//! is the hash of the line before. So whoever changes, removes or inserts a line has to change every line after it,
//! and the last hash, once noted elsewhere, vouches for all that came before.

#[cfg(test)]
mod tests;

use std::io::{self, BufRead, Read};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::capacity::Amounts;

/// The `prev` of the first line.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// No line is longer.
const LINE_MAX: u64 = 64 * 1024;

/// What comes before the hash, and after it.
const BEFORE: &[u8] = b",\"hash\":\"";
const AFTER: &[u8] = b"\"}";

/// Characters of a hash.
const HASH_LENGTH: usize = GENESIS.len();

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditRecord {
    /// Counted from 1, without gaps.
    pub seq: u64,
    /// When it happened.
    pub at_ms: u64,
    /// What happened.
    pub event: AuditEvent,
    /// The hash of the line before.
    pub prev: String,
    /// The hash of this line.
    pub hash: String,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum AuditEvent {
    /// The agent started.
    AgentStarted {
        /// Its version.
        version: String,
    },
    /// The end of a line was missing, as after a power failure; the torn line was removed. Nothing was done on it.
    TornLineRemoved {
        /// How much was there of it.
        bytes: u64,
    },
    /// A policy is in force from now on.
    PolicyApplied {
        /// Whether anything is lent.
        lending: bool,
        /// What stays the owner's, where something is lent.
        reserve: Option<Amounts>,
    },
    /// A microVM was given its part of the machine.
    Admitted {
        /// Its identifier.
        vm: String,
        /// Its name.
        name: String,
        /// What it was given.
        amounts: Amounts,
    },
    /// A microVM gave it back.
    Returned {
        /// Its identifier.
        vm: String,
    },
    /// The ladder moved.
    LadderMoved {
        /// The rung before.
        from: String,
        /// The rung now.
        to: String,
        /// Why, in a word: the scarcity, whose order, or what came to its end.
        why: String,
    },
    /// A guest was asked to shut down.
    ShutDown {
        /// The microVM's identifier.
        vm: String,
        /// It is ended by force after this time.
        within_ms: u64,
    },
    /// A microVM was ended by force.
    Killed {
        /// Its identifier.
        vm: String,
    },
    /// microVMs stand still.
    Paused {
        /// Their identifiers.
        vms: Vec<String>,
    },
    /// They run again.
    Resumed {
        /// Their identifiers.
        vms: Vec<String>,
    },
    /// CPU and I/O of all microVMs are squeezed, or no longer.
    Squeezed {
        /// Which.
        on: bool,
    },
    /// The owner wants the machine back.
    ReclaimOrdered {
        /// Milliseconds until all is to be free.
        within_ms: u64,
        /// The user who asked.
        uid: u32,
    },
    /// The machine is free.
    Reclaimed {
        /// Milliseconds since the order.
        after_ms: u64,
    },
    /// The owner lends again.
    ReleaseOrdered {
        /// The user who asked.
        uid: u32,
    },
}

/// Where a chain stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The number of the last line.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
}

impl Default for Head {
    /// Before the first line.
    fn default() -> Self {
        Self {
            seq: 0,
            hash: GENESIS.into(),
        }
    }
}

/// Where a chain is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct Broken {
    /// Counted from 1.
    pub line: u64,
    /// What is wrong with it.
    pub problem: String,
}

/// Why a chain was not verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It is broken.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] io::Error),
}

#[derive(Serialize)]
struct Unsealed<'a> {
    seq: u64,
    at_ms: u64,
    event: &'a AuditEvent,
    prev: &'a str,
}

/// What verification needs of a line; events of later versions are none of its business.
#[derive(Deserialize)]
struct Links {
    seq: u64,
    prev: String,
}

/// The line that comes after `head`, with its end, and the head that it makes.
pub fn seal(head: &Head, at_ms: u64, event: &AuditEvent) -> Result<(Vec<u8>, Head), serde_json::Error> {
    let seq = head.seq + 1;
    let unsealed = Unsealed {
        seq,
        at_ms,
        event,
        prev: &head.hash,
    };
    let mut line = serde_json::to_vec(&unsealed)?;
    // The closing brace comes after the hash.
    line.pop();
    let hash = hash(&line);
    line.extend_from_slice(BEFORE);
    line.extend_from_slice(hash.as_bytes());
    line.extend_from_slice(AFTER);
    line.push(b'\n');
    Ok((line, Head { seq, hash }))
}

/// Checks a line without its end: the head that it makes. `after` is the line before it; without one any beginning is
/// taken, as older lines may have been turned over.
pub fn check(after: Option<&Head>, line: &[u8]) -> Result<Head, String> {
    let sealed_at = line
        .len()
        .checked_sub(BEFORE.len() + HASH_LENGTH + AFTER.len())
        .ok_or("is too short")?;
    let (sealed, seal) = line.split_at(sealed_at);
    let claimed = seal
        .strip_prefix(BEFORE)
        .and_then(|rest| rest.strip_suffix(AFTER))
        .ok_or("does not end with its hash")?;
    let hash = hash(sealed);
    if claimed != hash.as_bytes() {
        return Err("was changed: its hash is another".into());
    }
    let links: Links = serde_json::from_slice(line).map_err(|error| format!("is no record: {error}"))?;
    match after {
        Some(after) if links.seq != after.seq + 1 => Err(format!(
            "has number {}, {} was expected: lines were removed, inserted or exchanged",
            links.seq,
            after.seq + 1
        )),
        Some(after) if links.prev != after.hash => Err("does not follow the line before it".into()),
        None if links.seq == 1 && links.prev != GENESIS => {
            Err("is the first, and claims one before it".into())
        }
        _ => Ok(Head { seq: links.seq, hash }),
    }
}

/// Checks all lines: where the chain stands at its end, none where there is no line.
pub fn verify(mut lines: impl BufRead, after: Option<Head>) -> Result<Option<Head>, VerifyError> {
    let mut head = after;
    let mut number = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut lines).take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(head);
        }
        number += 1;
        let broken = |problem: String| Broken {
            line: number,
            problem,
        };
        let Some(record) = line.strip_suffix(b"\n") else {
            return Err(broken("has no end".into()).into());
        };
        head = Some(check(head.as_ref(), record).map_err(broken)?);
    }
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// How the audit log is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Only the last so many records.
    #[serde(default)]
    pub tail: Option<usize>,
}

/// What verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditVerdict {
    /// The number of the last record.
    pub records: u64,
    /// Its hash: noted elsewhere, it vouches for all records up to this one.
    pub head: String,
    /// The first line that is wrong, where one is.
    pub broken: Option<AuditBreak>,
}

/// The first line that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditBreak {
    /// The file.
    pub file: String,
    /// Counted from 1.
    pub line: u64,
    /// What is wrong with it.
    pub problem: String,
}
