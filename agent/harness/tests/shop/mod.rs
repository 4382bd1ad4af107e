//! An image of other people's making, as an archive and in a registry.

// Each test program uses its part.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image with one layer.
pub(crate) struct Image {
    blobs: BTreeMap<String, Vec<u8>>,
    manifest: Value,
}

fn digest(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{digits}")
}

fn tar_of(files: &[(String, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        archive.append_data(&mut header, name, *bytes).unwrap();
    }
    archive.into_inner().unwrap()
}

impl Image {
    /// One whose workload is this.
    pub(crate) fn new(command: &[&str]) -> Self {
        let layer = tar_of(&[("etc/motd".into(), b"hello\n")]);
        let config = json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": command, "Env": ["PATH=/usr/bin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]}});
        let config = config.to_string().into_bytes();
        let described = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()});
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
            "config": described("application/vnd.oci.image.config.v1+json", &config),
            "layers": [described("application/vnd.oci.image.layer.v1.tar", &layer)]});
        let blobs = [config, layer].map(|bytes| (digest(&bytes), bytes));
        Self {
            blobs: blobs.into(),
            manifest,
        }
    }

    /// A tar of its layout.
    pub(crate) fn archive(&self) -> Vec<u8> {
        let manifest = self.manifest.to_string().into_bytes();
        let index = json!({"schemaVersion": 2, "manifests": [
            {"mediaType": MANIFEST, "digest": digest(&manifest), "size": manifest.len()}]});
        let index = index.to_string().into_bytes();
        let mut files: Vec<(String, &[u8])> = vec![
            ("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#),
            ("index.json".into(), &index),
        ];
        let all = [(digest(&manifest), manifest.clone())];
        let blobs = self
            .blobs
            .iter()
            .chain(all.iter().map(|(digest, bytes)| (digest, bytes)));
        files.extend(
            blobs.map(|(digest, bytes)| (format!("blobs/{}", digest.replace(':', "/")), bytes.as_slice())),
        );
        tar_of(&files)
    }

    /// A registry on loopback that has it under any name.
    pub(crate) async fn registry(self) -> SocketAddr {
        let app = Router::new()
            .route("/v2/", get(|| async { "{}" }))
            .route("/v2/{town}/{app}/manifests/{tag}", get(manifest).head(manifest))
            .route("/v2/{town}/{app}/blobs/{digest}", get(blob))
            .with_state(Arc::new(self));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        address
    }
}

async fn manifest(State(image): State<Arc<Image>>) -> Response {
    let text = image.manifest.to_string();
    let digest = digest(text.as_bytes());
    let mut answer = ([(CONTENT_TYPE, MANIFEST)], text).into_response();
    let digest = HeaderValue::from_str(&digest).unwrap();
    answer.headers_mut().insert("docker-content-digest", digest);
    answer
}

async fn blob(
    State(image): State<Arc<Image>>,
    Path((_, _, digest)): Path<(String, String, String)>,
) -> Response {
    match image.blobs.get(&digest) {
        Some(bytes) => bytes.clone().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
