//! Reading and checking a `manifest.json`.

use std::io::Read;
use std::path::Path;

use secovia_agent_api::Manifest;
use secovia_agent_api::image::SCHEMA_VERSION;

use super::ImageError;
use crate::caller::Caller;

/// A manifest is a page of text; more than this is none.
const SIZE_MAX: u64 = 1024 * 1024;

/// Digits of a SHA-256.
const DIGEST_DIGITS: usize = 64;

/// Reads the manifest at `path` with the caller's rights; `remedy` is what a person is told to do where it is wrong.
pub fn read_manifest(path: &Path, caller: &Caller, remedy: &'static str) -> Result<Manifest, ImageError> {
    let wrong = |problem: String| ImageError::Manifest {
        path: path.to_path_buf(),
        problem,
        remedy,
    };
    let mut text = Vec::new();
    caller
        .open(path)
        .and_then(|file| file.take(SIZE_MAX + 1).read_to_end(&mut text))
        .map_err(|error| wrong(error.to_string()))?;
    if text.len() as u64 > SIZE_MAX {
        return Err(wrong(format!("is larger than {SIZE_MAX} bytes")));
    }
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    check(&manifest).map_err(wrong)?;
    Ok(manifest)
}

fn check(manifest: &Manifest) -> Result<(), String> {
    if manifest.schema_version != SCHEMA_VERSION {
        return Err(format!(
            "`schema_version` is {}, this agent reads {SCHEMA_VERSION}",
            manifest.schema_version
        ));
    }
    if !is_image_name(&manifest.name) {
        return Err(format!("`name` is {:?}; {NAME_RULE}", manifest.name));
    }
    let digits = manifest.digest.strip_prefix("sha256:").unwrap_or_default();
    if digits.len() != DIGEST_DIGITS || !digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(format!(
            "`digest` is {:?}; use `sha256:` and {DIGEST_DIGITS} of 0-9, a-f",
            manifest.digest
        ));
    }
    // An image from elsewhere may leave it to whoever runs it.
    let mut command = manifest.entrypoint.iter().chain(&manifest.command);
    if manifest.source.is_none() && command.next().is_none_or(String::is_empty) {
        return Err("`command` is empty; name the program that runs".into());
    }
    Ok(())
}

/// What a name looks like.
pub(super) const NAME_RULE: &str = "use 1 to 63 of a-z, 0-9, `.`, `_`, `-`, the first a letter or digit";

/// Whether an image may have this name. Such a name is also safe as a file's name.
pub(super) fn is_image_name(name: &str) -> bool {
    let first = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let rest = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    first && name.len() <= 63 && name.bytes().all(rest)
}
