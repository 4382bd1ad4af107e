//! Pulls from a registry on this machine that answers as it is told to: well, in pieces, wrongly, or not at all.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::StreamExt;
use secovia_registry::{Progress, Pull, PullError, pull};
use serde_json::json;
use sha2::{Digest, Sha256};

fn digest(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{digits}")
}

/// What the registry has, and how it behaves.
#[derive(Default)]
struct Shop {
    manifests: BTreeMap<String, Vec<u8>>,
    blobs: BTreeMap<String, Vec<u8>>,
    /// An answer breaks after so many bytes.
    breaks_after: Option<usize>,
    /// It cannot go on in the middle.
    no_ranges: bool,
    /// `user:password` in base64, without which it gives nothing.
    secret: Option<&'static str>,
    /// Requests for blobs, with the byte that they begin at.
    asked: Mutex<Vec<u64>>,
    refused: AtomicU32,
}

type Shared = State<Arc<Shop>>;

impl Shop {
    /// What it says to one whom it does not let in.
    fn refusal(&self, headers: &HeaderMap) -> Option<Response> {
        let secret = self.secret?;
        if headers
            .get(header::AUTHORIZATION)
            .is_some_and(|value| value == &format!("Basic {secret}"))
        {
            return None;
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"shop\"")];
        Some((StatusCode::UNAUTHORIZED, challenge).into_response())
    }
}

/// Where a client asks whether it is let in.
async fn door(State(shop): Shared, headers: HeaderMap) -> Response {
    shop.refusal(&headers)
        .unwrap_or_else(|| StatusCode::OK.into_response())
}

async fn manifest(
    State(shop): Shared,
    UrlPath((_, name)): UrlPath<(String, String)>,
    headers: HeaderMap,
) -> Response {
    if let Some(refused) = shop.refusal(&headers) {
        return refused;
    }
    match shop.manifests.get(&name) {
        Some(bytes) => {
            let kind = serde_json::from_slice::<serde_json::Value>(bytes)
                .ok()
                .and_then(|document| document["mediaType"].as_str().map(str::to_string));
            ([(header::CONTENT_TYPE, kind.unwrap_or_default())], bytes.clone()).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn blob(
    State(shop): Shared,
    UrlPath((_, name)): UrlPath<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let Some(bytes) = shop.blobs.get(&name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let from = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let from: usize = from.filter(|_| !shop.no_ranges).unwrap_or(0);
    shop.asked.lock().unwrap().push(from as u64);
    let rest = bytes[from..].to_vec();
    let length = rest.len();
    let body = match shop.breaks_after {
        Some(limit) if length > limit => {
            // The pieces before it are on their way when the connection breaks.
            let piece = Bytes::from(rest[..limit].to_vec());
            let broken = futures_util::stream::once(async {
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                Err(std::io::Error::other("broken"))
            });
            Body::from_stream(futures_util::stream::iter([Ok(piece)]).chain(broken))
        }
        _ => Body::from(rest),
    };
    let status = if range.is_some() && !shop.no_ranges {
        StatusCode::PARTIAL_CONTENT
    } else {
        StatusCode::OK
    };
    (status, body).into_response()
}

/// Serves the shop, and returns the registry's name.
async fn open(shop: Shop) -> (String, Arc<Shop>) {
    let shop = Arc::new(shop);
    let routes = Router::new()
        .route("/v2/", get(door))
        .route("/v2/{name}/manifests/{tag}", get(manifest))
        .route("/v2/{name}/blobs/{digest}", get(blob))
        .with_state(Arc::clone(&shop));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let name = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (name, shop)
}

const KIND: &str = "application/vnd.oci.image.manifest.v1+json";

/// A shop with one image, `app:1`, of two layers; also under an index, `app:all`.
fn stocked() -> Shop {
    let mut shop = Shop::default();
    let mut add = |bytes: Vec<u8>, kind: &str| {
        let digest = digest(&bytes);
        let descriptor = json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": bytes.len()
        });
        shop.blobs.insert(digest, bytes);
        descriptor
    };
    let config = add(
        br#"{"architecture": "amd64", "os": "linux"}"#.to_vec(),
        "config.v1+json",
    );
    let large: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let layers = [add(b"small".to_vec(), "layer.v1.tar"), add(large, "layer.v1.tar")];
    let manifest = json!({"schemaVersion": 2, "mediaType": KIND, "config": config, "layers": layers});
    let manifest = manifest.to_string().into_bytes();
    let entry = |architecture: &str, digest: &str| {
        json!({"mediaType": KIND, "digest": digest, "size": 1,
            "platform": {"architecture": architecture, "os": "linux"}})
    };
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry("arm64", &digest(b"other")), entry("amd64", &digest(&manifest))]
    });
    shop.manifests.insert("all".into(), index.to_string().into());
    shop.manifests.insert(digest(&manifest), manifest.clone());
    shop.manifests.insert("1".into(), manifest);
    shop
}

async fn fetch(reference: &str, dir: &Path) -> Result<(String, Vec<Progress>), PullError> {
    let mut seen = Vec::new();
    let wanted = Pull {
        reference,
        credentials: None,
        insecure: &[],
        size_max: 10 << 20,
        dir,
    };
    let digest = pull(&wanted, |progress| seen.push(progress)).await?;
    Ok((digest, seen))
}

/// What lies in `dir` is the whole layout, byte for byte what the shop has.
fn assert_whole(dir: &Path, shop: &Shop, manifest: &str) {
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"][0]["digest"], manifest);
    assert!(dir.join("oci-layout").exists());
    for (digest, bytes) in shop
        .blobs
        .iter()
        .chain([(&manifest.to_string(), &shop.manifests["1"])])
    {
        let there = fs::read(dir.join("blobs").join(digest.replace(':', "/"))).unwrap();
        assert!(there == *bytes, "{digest}");
    }
    let files = fs::read_dir(dir.join("blobs/sha256")).unwrap().count();
    assert_eq!(files, shop.blobs.len() + 1);
}

#[tokio::test]
async fn an_image_arrives_whole_by_tag_by_index_and_by_digest() {
    let (name, shop) = open(stocked()).await;
    let manifest = digest(&shop.manifests["1"]);
    for reference in [
        format!("{name}/app:1"),
        format!("{name}/app:all"),
        format!("{name}/app@{manifest}"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (found, progress) = fetch(&reference, dir.path()).await.unwrap();
        assert_eq!(found, manifest);
        assert_whole(dir.path(), &shop, &manifest);
        let total = shop.blobs.values().map(|blob| blob.len() as u64).sum();
        assert_eq!(progress.last(), Some(&Progress { done: total, total }));
        assert!(progress.windows(2).all(|pair| pair[0].done <= pair[1].done));
    }
}

/// Each answer breaks after a third of the large layer: the next one goes on behind it, not from the start.
#[tokio::test]
async fn a_break_is_gone_on_from() {
    let (name, shop) = open(Shop {
        breaks_after: Some(400_000),
        ..stocked()
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let (manifest, _) = fetch(&format!("{name}/app:1"), dir.path()).await.unwrap();
    assert_whole(dir.path(), &shop, &manifest);
    let mut asked = shop.asked.lock().unwrap().clone();
    asked.retain(|from| *from > 0);
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked.is_sorted() && asked[1] <= 800_000, "{asked:?}");
}

/// What an earlier run has is kept, whole blobs and parts of one.
#[tokio::test]
async fn the_next_run_goes_on_too() {
    let (name, shop) = open(stocked()).await;
    let dir = tempfile::tempdir().unwrap();
    let large = shop.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let path = dir.path().join("blobs").join(large.0.replace(':', "/"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path.with_extension("part"), &large.1[..1_000_000]).unwrap();
    let (manifest, _) = fetch(&format!("{name}/app:1"), dir.path()).await.unwrap();
    assert_whole(dir.path(), &shop, &manifest);
    assert!(shop.asked.lock().unwrap().contains(&1_000_000));
    shop.asked.lock().unwrap().clear();
    fetch(&format!("{name}/app:1"), dir.path()).await.unwrap();
    assert_eq!(shop.asked.lock().unwrap().len(), 0);
}

/// A registry that cannot give the rest gives all of it again.
#[tokio::test]
async fn without_ranges_it_begins_anew() {
    let (name, shop) = open(Shop {
        no_ranges: true,
        ..stocked()
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let large = shop.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let path = dir.path().join("blobs").join(large.0.replace(':', "/"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path.with_extension("part"), b"other bytes").unwrap();
    let (manifest, _) = fetch(&format!("{name}/app:1"), dir.path()).await.unwrap();
    assert_whole(dir.path(), &shop, &manifest);
}

#[tokio::test]
async fn wrong_bytes_are_refused_and_not_kept() {
    let mut shop = stocked();
    let wrong = shop
        .blobs
        .iter_mut()
        .max_by_key(|(_, bytes)| bytes.len())
        .unwrap();
    wrong.1[77] ^= 1;
    let named = wrong.0.clone();
    let (name, _) = open(shop).await;
    let dir = tempfile::tempdir().unwrap();
    let error = fetch(&format!("{name}/app:1"), dir.path()).await.unwrap_err();
    assert!(matches!(error, PullError::Digest { .. }), "{error}");
    assert!(error.to_string().contains(&named), "{error}");
    let left: Vec<_> = fs::read_dir(dir.path().join("blobs/sha256")).unwrap().collect();
    assert!(left.iter().all(|file| {
        !file
            .as_ref()
            .unwrap()
            .path()
            .to_string_lossy()
            .contains(&named[7..])
    }));
    assert!(
        !dir.path().join("index.json").exists(),
        "no layout, so nothing that could be imported"
    );

    // More than was told, a manifest that is not what was asked for.
    let mut shop = stocked();
    shop.blobs.values_mut().for_each(|bytes| bytes.push(0));
    let good = digest(&shop.manifests["1"]);
    shop.manifests.insert(good.clone(), b"{}".to_vec());
    let (name, _) = open(shop).await;
    let error = fetch(&format!("{name}/app:1"), dir.path())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("more than"), "{error}");
    let error = fetch(&format!("{name}/app@{good}"), dir.path())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.to_lowercase().contains("digest") || error.contains(&good),
        "{error}"
    );
}

#[tokio::test]
async fn what_cannot_be_says_what_to_do() {
    let (name, _) = open(stocked()).await;
    let dir = tempfile::tempdir().unwrap();
    let error = |reference: String| {
        let dir = dir.path().to_path_buf();
        async move { fetch(&reference, &dir).await.unwrap_err().to_string() }
    };
    let text = error(format!("{name}/app:2")).await;
    assert!(text.contains("has no such image"), "{text}");
    let text = error("UPPER//case".into()).await;
    assert!(text.contains("write REGISTRY/REPOSITORY:TAG"), "{text}");
    let small = Pull {
        reference: &format!("{name}/app:1"),
        credentials: None,
        insecure: &[],
        size_max: 1_000_000,
        dir: dir.path(),
    };
    let text = pull(&small, |_| {}).await.unwrap_err().to_string();
    assert!(text.contains("`images.image_max`"), "{text}");
    assert!(!dir.path().join("blobs").exists(), "nothing was fetched");
    // Not this machine's own name, and not named as one without TLS: it is spoken to with TLS, which it does not know.
    let port = name.rsplit(':').next().unwrap();
    let text = error(format!("0.0.0.0:{port}/app:1")).await;
    assert!(text.contains("images.insecure_registries"), "{text}");
}

#[tokio::test]
async fn credentials_come_from_a_file_of_ones_own() {
    let (name, shop) = open(Shop {
        secret: Some("dXNlcjpwYXNz"),
        ..stocked()
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let reference = format!("{name}/app:1");
    let text = fetch(&reference, dir.path()).await.unwrap_err().to_string();
    assert!(text.contains("--credentials-file"), "{text}");
    let file = dir.path().join("auth.json");
    let wanted = Pull {
        reference: &reference,
        credentials: Some(&file),
        insecure: &[],
        size_max: 10 << 20,
        dir: dir.path(),
    };
    fs::write(
        &file,
        json!({"auths": {&name: {"auth": "dXNlcjpwYXNz"}}}).to_string(),
    )
    .unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let text = pull(&wanted, |_| {}).await.unwrap_err().to_string();
    assert!(text.contains("chmod 600"), "{text}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    pull(&wanted, |_| {}).await.unwrap();
    assert!(shop.refused.load(Ordering::Relaxed) > 0);
}
