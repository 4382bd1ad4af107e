//! Documents of an image from elsewhere: index, manifest and configuration, or docker's two. The input is some files, of
//! which the first says which one is looked at first; digests are made right, so that what is behind them is reached.
//! Nothing that is read makes a plan with more layers than there may be, or with a layer outside of the archive.
#![no_main]

use std::fs::File;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use secovia_agent::images::oci::{LAYERS_MAX, Limits, Source, build, hex, read_plan};
use sha2::{Digest, Sha256};
use tar::{Builder, Header};

#[derive(Debug, Arbitrary)]
struct Files {
    is_docker: bool,
    /// `%0` to `%9` stand for the digests of those files.
    texts: Vec<String>,
}

const LIMITS: Limits = Limits {
    bytes: 1 << 20,
    members: 100,
};

fn archive(files: &Files) -> File {
    let mut builder = Builder::new(tempfile::tempfile().expect("a file"));
    let mut append = |name: &str, text: &str| {
        let mut header = Header::new_gnu();
        header.set_size(text.len() as u64);
        builder
            .append_data(&mut header, name, text.as_bytes())
            .expect("room for a file");
    };
    let mut digests: Vec<String> = Vec::new();
    for (number, text) in files.texts.iter().take(10).enumerate() {
        let mut text = text.clone();
        for (number, digest) in digests.iter().enumerate() {
            text = text.replace(&format!("%{number}"), digest);
        }
        let digest = hex(Sha256::new_with_prefix(&text));
        append(&format!("blobs/{}", digest.replace(':', "/")), &text);
        // The last one is where the reading begins.
        if number + 1 == files.texts.len().min(10) {
            append(
                if files.is_docker {
                    "manifest.json"
                } else {
                    "index.json"
                },
                &text,
            );
        }
        digests.push(digest);
    }
    builder.into_inner().expect("an archive")
}

libfuzzer_sys::fuzz_target!(|files: Files| {
    let Ok(source) = Source::archive(archive(&files)) else {
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
