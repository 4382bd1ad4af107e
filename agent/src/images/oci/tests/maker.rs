//! Makes archives of images, good and hostile.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::images::oci::hex;

pub(crate) fn digest(bytes: &[u8]) -> String {
    hex(Sha256::new_with_prefix(bytes))
}

/// A layer under way.
#[derive(Default)]
pub(crate) struct Layer(pub(crate) Vec<u8>);

impl Layer {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A member with any name: the crate's own methods know better than to write what is to be refused here.
    pub(crate) fn member(mut self, kind: EntryType, path: &[u8], link: &[u8], content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        for (name, long, at) in [
            (path, EntryType::GNULongName, 0),
            (link, EntryType::GNULongLink, 157),
        ] {
            if name.len() > 100 {
                self = self.member(long, b"././@LongLink", b"", &[name, b"\0"].concat());
            }
            let fits = name.len().min(100);
            header.as_mut_bytes()[at..at + fits].copy_from_slice(&name[..fits]);
        }
        header.set_cksum();
        self.raw(&header, content)
    }

    /// A header as it is, with content.
    pub(crate) fn raw(mut self, header: &Header, content: &[u8]) -> Self {
        self.0.extend(header.as_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, path: &str, content: &str) -> Self {
        self.member(EntryType::Regular, path.as_bytes(), b"", content.as_bytes())
    }

    pub(crate) fn dir(self, path: &str) -> Self {
        self.member(EntryType::Directory, path.as_bytes(), b"", b"")
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.member(EntryType::Symlink, path.as_bytes(), target.as_bytes(), b"")
    }

    pub(crate) fn link(self, path: &str, target: &str) -> Self {
        self.member(EntryType::Link, path.as_bytes(), target.as_bytes(), b"")
    }

    /// POSIX's extension for the member that follows.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut text = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length += 1;
            }
            text.extend(format!("{length} {key}=").bytes());
            text.extend(*value);
            text.push(b'\n');
        }
        self.member(EntryType::XHeader, b"pax", b"", &text)
    }

    pub(crate) fn tar(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An image: packed layers, and what they are unpacked.
#[derive(Default)]
pub(crate) struct Archive {
    pub(crate) layers: Vec<(Vec<u8>, String)>,
    pub(crate) config: Value,
}

impl Archive {
    /// Layers as they are.
    pub(crate) fn of(layers: impl IntoIterator<Item = Layer>) -> Self {
        Self::packed(layers.into_iter().map(|layer| {
            let tar = layer.tar();
            let unpacked = digest(&tar);
            (tar, unpacked)
        }))
    }

    pub(crate) fn packed(layers: impl IntoIterator<Item = (Vec<u8>, String)>) -> Self {
        Self {
            layers: layers.into_iter().collect(),
            config: json!({"Cmd": ["/bin/sh"]}),
        }
    }

    pub(crate) fn config(&self) -> Vec<u8> {
        let diff_ids: Vec<&String> = self.layers.iter().map(|(_, unpacked)| unpacked).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids}
        });
        config.to_string().into_bytes()
    }

    /// The files of an OCI layout.
    pub(crate) fn oci(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut blob = |bytes: &[u8], kind: &str| {
            let digest = digest(bytes);
            files.insert(format!("blobs/{}", digest.replace(':', "/")), bytes.to_vec());
            json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": bytes.len()})
        };
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|(bytes, _)| blob(bytes, "layer.v1.tar+gzip"))
            .collect();
        let config = blob(&self.config(), "config.v1+json");
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
        let manifest = blob(manifest.to_string().as_bytes(), "manifest.v1+json");
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        files.insert("index.json".into(), index.to_string().into());
        files.insert("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
        files
    }

    /// The files that `docker save` writes.
    pub(crate) fn docker(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        let config = self.config();
        let config_name = format!("{}.json", &digest(&config)[7..]);
        let mut names = Vec::new();
        for (number, (bytes, _)) in self.layers.iter().enumerate() {
            names.push(format!("{number}/layer.tar"));
            files.insert(format!("{number}/layer.tar"), bytes.clone());
        }
        let manifest = json!([{"Config": config_name, "RepoTags": ["test:latest"], "Layers": names}]);
        files.insert(config_name, config);
        files.insert("manifest.json".into(), manifest.to_string().into());
        files
    }
}

/// A tar of these files.
pub(crate) fn tar_of(files: &BTreeMap<String, Vec<u8>>) -> File {
    let mut builder = Builder::new(tempfile::tempfile().unwrap());
    for (name, bytes) in files {
        let mut header = Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    let mut file = builder.into_inner().unwrap();
    file.rewind().unwrap();
    file
}

/// A directory of these files.
pub(crate) fn directory_of(files: &BTreeMap<String, Vec<u8>>, dir: &Path) {
    for (name, bytes) in files {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}
