//! An image's `manifest.json`. What is accepted has a name that is safe as a file's, a digest and a command; and what
//! was read can be written and read again.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use secovia_agent::caller::Caller;
use secovia_agent::images::read_manifest;
use secovia_agent_api::Manifest;
use tempfile::TempDir;

static FILE: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("manifest.json");
    (dir, path)
});

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    let path = &FILE.1;
    fs::write(path, text).expect("room for a manifest");
    match read_manifest(path, &Caller::root(), "do something") {
        Ok(manifest) => {
            let name = &manifest.name;
            assert!(
                !name.is_empty() && !name.contains('/') && !name.starts_with('.'),
                "{name:?}"
            );
            assert_eq!(manifest.digest.len(), "sha256:".len() + 64);
            assert!(
                manifest
                    .command
                    .first()
                    .is_some_and(|program| !program.is_empty())
            );
            let text = serde_json::to_vec(&manifest).expect("a manifest can be written");
            let again: Manifest = serde_json::from_slice(&text).expect("what was written can be read");
            assert_eq!(again, manifest);
        }
        Err(error) => assert!(error.to_string().contains("do something"), "{error}"),
    }
});
