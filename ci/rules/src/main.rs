//! Checks the house rules that neither compiler nor clippy knows: the arrows between crates and between modules,
//! which files hold unsafe code, and how long a file is.
//!
//! `secovia-rules TREE < METADATA`, where METADATA is what `cargo metadata` prints and TREE the workspace's folder.
//! Each finding is one line that names the place and the remedy; the status is 1 where there is a finding that is more
//! than a warning.

mod arrows;
mod crates;
mod rules;
mod source;
mod unsafety;

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use rules::{Finding, Rules};

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("usage: secovia-rules TREE, with cargo's metadata on standard input")]
    Usage,
    #[error("cannot read {what}: {source}")]
    Read { what: String, source: std::io::Error },
    #[error("cannot understand {what}: {source}")]
    Json { what: String, source: serde_json::Error },
    #[error(transparent)]
    Source(#[from] source::Error),
}

fn run() -> Result<Vec<Finding>, Error> {
    let tree = PathBuf::from(std::env::args_os().nth(1).ok_or(Error::Usage)?);
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|source| Error::Read {
            what: "cargo's metadata from standard input".into(),
            source,
        })?;
    let metadata: crates::Metadata = serde_json::from_str(&text).map_err(|source| Error::Json {
        what: "cargo's metadata".into(),
        source,
    })?;
    let rules = Rules::ours().map_err(|source| Error::Json {
        what: "ci/rules/rules.json".into(),
        source,
    })?;

    let mut findings = crates::check(&metadata, &rules);
    let mut files = Vec::new();
    for member in metadata.members() {
        for root in member.source_roots() {
            let sources = source::read_crate(&tree, root)?;
            findings.extend(arrows::check(&member.name, &sources));
            files.extend(sources);
        }
    }
    findings.extend(unsafety::check(&files, &rules));
    findings.extend(source::check_length(&files, &rules));
    Ok(findings)
}

fn main() -> ExitCode {
    match run() {
        Ok(findings) => {
            for finding in &findings {
                println!("{finding}");
            }
            ExitCode::from(u8::from(findings.iter().any(Finding::is_error)))
        }
        Err(error) => {
            eprintln!("secovia-rules: {error}");
            ExitCode::from(2)
        }
    }
}
