//! A Pod's image becomes one of the agent's store: it is there by that very name, or was fetched for that reference, or is
//! fetched now.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secovia_agent_api::client::{Client as Agent, UploadWriter, upload};
use secovia_agent_api::{ImageInfo, ImageUpload};
use secovia_registry::{Pull, PullError, digest, pull, usual_name};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::error::Failure;
use super::region::Region;
use crate::pod::{Identity, Machine, PullPolicy};

/// What all of an image may have, packed, in bytes. (The agent has a limit of its own for what it is unpacked.)
const SIZE_MAX: u64 = 8 << 30;

/// The key of a Secret with credentials, and the kind of file that it holds.
const CREDENTIALS_KEY: &str = ".dockerconfigjson";

/// Fetches images, one at a time.
#[derive(Clone)]
pub(super) struct Images {
    agent: Agent,
    region: Region,
    /// A directory of this program's own.
    cache: PathBuf,
    busy: Arc<Mutex<()>>,
}

/// An image of the agent's store, for a Pod.
pub(super) struct Found {
    /// Its name there.
    pub(super) name: String,
    /// It was fetched for this Pod.
    pub(super) is_new: bool,
}

impl Images {
    pub(super) fn new(agent: Agent, region: Region, cache: PathBuf) -> Self {
        Self {
            agent,
            region,
            cache,
            busy: Arc::default(),
        }
    }

    /// The image that the machine is to start from.
    pub(super) async fn find(&self, pod: &Identity, machine: &Machine) -> Result<Found, Failure> {
        let reference = &machine.create.image;
        let known = self
            .agent
            .list_images()
            .await
            .map_err(|error| Failure::agent(&error))?;
        let here = |name: String| Found { name, is_new: false };
        match (choose(reference, &known), machine.pull) {
            (Some(name), PullPolicy::IfNotPresent | PullPolicy::Never) => return Ok(here(name)),
            (None, PullPolicy::Never) => {
                let message = format!("image {reference} is not on this node, and imagePullPolicy is Never");
                return Err(Failure::held("ErrImageNeverPull", message));
            }
            (_, PullPolicy::Always) | (None, PullPolicy::IfNotPresent) => {}
        }
        let _turn = self.busy.lock().await;
        let dir = self.cache.join(hash(reference.as_bytes()));
        let fetched = self.fetch(pod, machine, &dir).await;
        // Credentials stay no longer than they are needed; what a break left of the image does.
        let _ = fs::remove_file(credentials_file(&dir));
        if fetched.is_ok() {
            let _ = fs::remove_dir_all(&dir);
        }
        fetched
    }

    async fn fetch(&self, pod: &Identity, machine: &Machine, dir: &Path) -> Result<Found, Failure> {
        let reference = &machine.create.image;
        let failed = |problem: String| Failure::held("ErrImagePull", problem);
        private(dir).map_err(|error| failed(format!("make directory {}: {error}", dir.display())))?;
        let mut last = None;
        // The first Secret that is good for this registry, and at last none at all.
        let names = machine.pull_secrets.iter().map(Some).chain([None]);
        for name in names {
            let credentials = match name {
                Some(name) => match self.credentials(pod, name, dir).await? {
                    Some(file) => Some(file),
                    None => continue,
                },
                None => None,
            };
            let wanted = Pull {
                reference,
                credentials: credentials.as_deref(),
                insecure: &[],
                size_max: SIZE_MAX,
                dir,
            };
            match digest(&wanted).await {
                Ok(digest) => return self.take(pod, &wanted, &digest).await,
                // The reason that is told is the registry's, rather than that a Secret is for another one.
                Err(error @ PullError::Credentials { .. }) => last = last.or(Some(error)),
                Err(error) => last = Some(error),
            }
        }
        Err(failed(last.map_or_else(String::new, |error| error.to_string())))
    }

    async fn take(&self, pod: &Identity, wanted: &Pull<'_>, digest: &str) -> Result<Found, Failure> {
        let reference = wanted.reference;
        let name = stored_name(reference, digest);
        let known = self
            .agent
            .list_images()
            .await
            .map_err(|error| Failure::agent(&error))?;
        if known.iter().any(|image| image.manifest.name == name) {
            return Ok(Found { name, is_new: false });
        }
        let message = format!("Pulling image \"{reference}\"");
        self.region.note_soon(pod, "Pulling", &message);
        let fetched = pull(wanted, |_| {}).await;
        fetched.map_err(|error| Failure::held("ErrImagePull", error.to_string()))?;
        // A tag may have been moved between the two questions; the name is that of what came.
        let image = ImageUpload { name: name.clone() };
        // The agent cannot see this program's files, and is not to: it is sent them.
        let (writer, body) = upload();
        let dir = wanted.dir.to_path_buf();
        let sending = spawn_blocking(move || send(&dir, writer));
        let taken = self.agent.upload_image(&image, body).await;
        // Why it could not be read says more than that it did not come whole.
        if let Ok(Err(error)) = sending.await
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            let message = format!("read {}: {error}", wanted.dir.display());
            return Err(Failure::held("ErrImagePull", message));
        }
        taken.map_err(|error| Failure::held("ErrImagePull", error.to_string()))?;
        Ok(Found { name, is_new: true })
    }

    async fn credentials(&self, pod: &Identity, name: &str, dir: &Path) -> Result<Option<PathBuf>, Failure> {
        let Some(data) = self.region.secret(&pod.namespace, name).await? else {
            return Ok(None);
        };
        let Some(text) = data.get(CREDENTIALS_KEY) else {
            return Ok(None);
        };
        let file = credentials_file(dir);
        let written = write_private(&file, text);
        written
            .map_err(|error| Failure::held("ErrImagePull", format!("write {}: {error}", file.display())))?;
        Ok(Some(file))
    }
}

/// Sends what was fetched, as a tar.
fn send(dir: &Path, writer: UploadWriter) -> io::Result<()> {
    let mut archive = tar::Builder::new(writer);
    archive.mode(tar::HeaderMode::Deterministic);
    for name in ["oci-layout", "index.json"] {
        archive.append_path_with_name(dir.join(name), name)?;
    }
    archive.append_dir_all("blobs", dir.join("blobs"))?;
    archive.into_inner()?.finish()
}

fn credentials_file(dir: &Path) -> PathBuf {
    dir.with_extension("credentials")
}

fn private(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)
}

/// The name of the image that is here for a reference, where one is: the node's own of that very name, or the last that was
/// fetched for it.
fn choose(reference: &str, known: &[ImageInfo]) -> Option<String> {
    let own = known.iter().find(|image| image.manifest.name == reference);
    let prefix = stem(reference);
    let fetched = || {
        let all = known
            .iter()
            .filter(|image| image.manifest.name.starts_with(&prefix));
        all.max_by_key(|image| image.imported_at_ms)
    };
    own.or_else(fetched).map(|image| image.manifest.name.clone())
}

/// The name that an image is kept under: its own for people, then of which reference, then which one.
fn stored_name(reference: &str, digest: &str) -> String {
    let hex = digest.rsplit(':').next().unwrap_or_default();
    format!("{}{}", stem(reference), hex.chars().take(12).collect::<String>())
}

fn stem(reference: &str) -> String {
    let plain = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-';
    let name = usual_name(reference).unwrap_or_default();
    let name: String = name.chars().filter(plain).take(32).collect();
    let name = name.trim_matches('-');
    let name = if name.is_empty() { "image" } else { name };
    let hash: String = hash(reference.as_bytes()).chars().take(8).collect();
    format!("{name}-{hash}-")
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str, imported_at_ms: u64) -> ImageInfo {
        serde_json::from_value(serde_json::json!({
            "manifest": {"schema_version": 1, "name": name, "digest": "sha256:00", "size": 1, "command": []},
            "imported_at_ms": imported_at_ms, "used_by": []
        }))
        .unwrap()
    }

    #[test]
    fn an_image_is_the_nodes_own_or_the_last_that_was_fetched_for_the_reference() {
        let reference = "r.lan:5000/town/Web_App:1";
        let names = ["sha256:aaaaaaaaaaaaaaaa", "sha256:bbbbbbbbbbbbbbbb"]
            .map(|digest| stored_name(reference, digest));
        assert_ne!(names[0], names[1]);
        let known = [image("web", 1), image(&names[0], 5), image(&names[1], 4)];
        assert_eq!(choose(reference, &known), Some(names[0].clone()));
        assert_eq!(choose("web", &known), Some("web".into()));
        assert_eq!(choose("r.lan:5000/town/Web_App:2", &known), None);
        let long = stored_name(&format!("r.lan/{}:1", "a".repeat(200)), "sha256:0123456789abcdef");
        assert!(
            long.len() <= 63 && long.starts_with("aaaa") && long.ends_with("-0123456789ab"),
            "{long}"
        );
    }

    #[test]
    fn credentials_are_nobody_elses_to_read() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("a/b");
        private(&cache).unwrap();
        let file = credentials_file(&cache);
        write_private(&file, b"{}").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
