//! Documents of an image from elsewhere: index, manifest and configuration, or docker's two. The input is some files, with
//! a line of three dashes between; the last is where the reading begins, docker's if a line `docker` stands before all.
//! Digests are made right, so that what is behind them is reached: `%0` to `%9` in a text stand for those of earlier
//! files, which have their numbers for names too. Nothing that is read makes a plan with more layers than there may be, or with a layer outside of the archive.
#![no_main]

use std::fs::File;

use secovia_agent::images::oci::{LAYERS_MAX, Limits, Source, build, hex, read_plan};
use sha2::{Digest, Sha256};
use tar::{Builder, Header};

const LIMITS: Limits = Limits {
    bytes: 1 << 20,
    members: 100,
};

/// The files of an input, and the name that the last of them has beside its digest.
fn files(input: &[u8]) -> (Vec<&[u8]>, &'static str) {
    let (input, first) = match input.strip_prefix(b"docker\n") {
        Some(rest) => (rest, "manifest.json"),
        None => (input, "index.json"),
    };
    let (mut files, mut rest) = (Vec::new(), input);
    while files.len() < 9
        && let Some(at) = rest
            .windows(SEPARATOR.len())
            .position(|window| window == SEPARATOR)
    {
        files.push(&rest[..at]);
        rest = &rest[at + SEPARATOR.len()..];
    }
    files.push(rest);
    (files, first)
}

const SEPARATOR: &[u8] = b"\n---\n";

fn archive(input: &[u8]) -> File {
    let mut builder = Builder::new(tempfile::tempfile().expect("a file"));
    let mut append = |name: &str, content: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        builder
            .append_data(&mut header, name, content)
            .expect("room for a file");
    };
    let (files, first) = files(input);
    let mut digests: Vec<String> = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let content = match str::from_utf8(file) {
            Ok(text) => (0..)
                .zip(&digests)
                .fold(text.to_string(), |text, (number, digest)| {
                    text.replace(&format!("%{number}"), digest)
                })
                .into_bytes(),
            Err(_) => file.to_vec(),
        };
        let digest = hex(Sha256::new_with_prefix(&content));
        append(&format!("blobs/{}", digest.replace(':', "/")), &content);
        append(&number.to_string(), &content);
        if number + 1 == files.len() {
            append(first, &content);
        }
        digests.push(digest);
    }
    builder.into_inner().expect("an archive")
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Ok(source) = Source::archive(archive(input)) else {
        return;
    };
    if let Ok(plan) = read_plan(&source) {
        assert!(plan.layers.len() <= LAYERS_MAX);
        assert!(plan.workload.env.contains_key("PATH"));
    }
    let out = tempfile::tempfile().expect("a file");
    let _ = build(&source, LIMITS, &out);
    assert!(out.metadata().expect("its size").len() <= LIMITS.bytes);
});
