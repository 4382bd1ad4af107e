//! Index, manifest and configuration of an image: which layers make its files, and what runs in it.

use std::collections::BTreeMap;

use oci_spec::image::{Arch, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType, Os};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::error::{LAYERS_MAX, OciError};
use super::layer::hex;
use super::source::{LAYOUT_FILE, Source};

/// An index may lead to an index, so often.
const INDEX_DEPTH: usize = 3;

const INDEX_FILE: &str = "index.json";

/// The file that docker's archives are known by.
const DOCKER_FILE: &str = "manifest.json";

/// Docker's word for what OCI calls a manifest, and an index.
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// The annotation of an index's entries that names an image.
const NAME_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// Where programs are looked for in an image that does not say it.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What an image is made of.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// The digest of the image's manifest, or of its configuration where it has no other document.
    pub digest: String,
    /// Its layers, the lowest first.
    pub layers: Vec<LayerFile>,
    /// What runs in it.
    pub workload: Workload,
}

/// Where a layer is.
#[derive(Debug, PartialEq, Eq)]
pub struct LayerFile {
    /// The name in the source.
    pub name: String,
    /// What its bytes must be, where the manifest says so.
    pub packed: Option<String>,
    /// What it must be unpacked.
    pub unpacked: String,
}

/// What runs in an image, as its configuration has it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// What a command is put behind.
    pub entrypoint: Vec<String>,
    /// The command where none is given.
    pub command: Vec<String>,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// The user.
    pub user: Option<String>,
    /// The working directory.
    pub working_dir: Option<String>,
    /// What asks it to end.
    pub stop_signal: Option<String>,
    /// What its maker noted.
    pub labels: BTreeMap<String, String>,
}

/// An image in docker's `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Reads what the image in `source` is made of.
pub fn read_plan(source: &Source) -> Result<Plan, OciError> {
    if source.has(LAYOUT_FILE) || !source.has(DOCKER_FILE) {
        read_oci(source)
    } else {
        read_docker(source)
    }
}

fn read_oci(source: &Source) -> Result<Plan, OciError> {
    if !source.has(INDEX_FILE) {
        return Err(OciError::NoImage);
    }
    let mut name = INDEX_FILE.to_string();
    let mut text = source.document(&name)?;
    for _ in 0..INDEX_DEPTH {
        let index: ImageIndex = parse(&name, &text)?;
        let chosen = choose(&name, &index)?;
        let is_index = match chosen.media_type() {
            MediaType::ImageManifest => false,
            MediaType::ImageIndex => true,
            MediaType::Other(kind) if kind == DOCKER_MANIFEST => false,
            MediaType::Other(kind) if kind == DOCKER_INDEX => true,
            other => {
                return Err(OciError::document(
                    &name,
                    format!("names a {other}, not an image"),
                ));
            }
        };
        (name, text) = blob(source, chosen)?;
        if !is_index {
            return read_manifest(source, chosen.digest().as_ref(), &name, &text);
        }
    }
    Err(OciError::document(&name, "is an index within too many others"))
}

/// The one image in an index that this host can run.
fn choose<'a>(name: &str, index: &'a ImageIndex) -> Result<&'a Descriptor, OciError> {
    let fits = |descriptor: &&Descriptor| {
        descriptor
            .platform()
            .as_ref()
            .is_none_or(|platform| *platform.architecture() == Arch::Amd64 && *platform.os() == Os::Linux)
    };
    let fitting: Vec<&Descriptor> = index.manifests().iter().filter(fits).collect();
    let Some(first) = fitting.first() else {
        return Err(OciError::document(name, "has no image for linux/amd64"));
    };
    if fitting.iter().any(|other| other.digest() != first.digest()) {
        let names: Vec<&str> = fitting
            .iter()
            .filter_map(|descriptor| descriptor.annotations().as_ref()?.get(NAME_ANNOTATION))
            .map(String::as_str)
            .collect();
        return Err(OciError::Several(shorten(&names)));
    }
    Ok(first)
}

fn read_manifest(source: &Source, digest: &str, name: &str, text: &[u8]) -> Result<Plan, OciError> {
    let manifest: ImageManifest = parse(name, text)?;
    for layer in manifest.layers() {
        let kind = layer.media_type().to_string();
        // What it is packed with is seen when it is read; what is encrypted or no layer at all cannot be read.
        if !(kind.contains("layer") || kind.contains("rootfs")) || kind.contains("encrypted") {
            return Err(OciError::document(
                name,
                format!("has a layer that is a {kind:?}"),
            ));
        }
    }
    let (config_name, config) = blob(source, manifest.config())?;
    let packed = manifest.layers().iter().map(|layer| {
        let digest = layer.digest();
        Ok((blob_name(digest)?, Some(digest.to_string())))
    });
    plan(
        digest,
        &config_name,
        &config,
        packed.collect::<Result<_, OciError>>()?,
    )
}

fn read_docker(source: &Source) -> Result<Plan, OciError> {
    let images: Vec<DockerImage> = parse(DOCKER_FILE, &source.document(DOCKER_FILE)?)?;
    let [image] = &images[..] else {
        let names = images.iter().flat_map(|image| image.repo_tags.iter().flatten());
        let names: Vec<&str> = names.map(String::as_str).collect();
        return Err(OciError::Several(shorten(&names)));
    };
    let config = source.document(&image.config)?;
    let digest = hex(Sha256::new_with_prefix(&config));
    // Docker names the file after its digest, with nothing or a folder before and nothing or `.json` behind.
    let digits = digest.trim_start_matches("sha256:");
    if !image.config.contains(digits) {
        return Err(OciError::Digest {
            what: image.config.clone(),
            expected: "the one that its name says".into(),
            found: digest,
        });
    }
    let layers = image.layers.iter().map(|name| (name.clone(), None)).collect();
    plan(&digest, &image.config, &config, layers)
}

fn plan(
    digest: &str,
    name: &str,
    text: &[u8],
    layers: Vec<(String, Option<String>)>,
) -> Result<Plan, OciError> {
    if layers.len() > LAYERS_MAX {
        return Err(OciError::Layers(layers.len()));
    }
    let config: ImageConfiguration = parse(name, text)?;
    if *config.architecture() != Arch::Amd64 || *config.os() != Os::Linux {
        let (os, arch) = (config.os(), config.architecture());
        return Err(OciError::document(
            name,
            format!("is of an image for {os}/{arch}, not linux/amd64"),
        ));
    }
    let unpacked = config.rootfs().diff_ids();
    if unpacked.len() != layers.len() {
        let (known, there) = (unpacked.len(), layers.len());
        return Err(OciError::document(
            name,
            format!("knows of {known} layers, the image has {there}"),
        ));
    }
    let layers = layers.into_iter().zip(unpacked);
    Ok(Plan {
        digest: digest.to_string(),
        workload: workload(name, &config)?,
        layers: layers
            .map(|((name, packed), unpacked)| LayerFile {
                name,
                packed,
                unpacked: unpacked.clone(),
            })
            .collect(),
    })
}

fn workload(name: &str, image: &ImageConfiguration) -> Result<Workload, OciError> {
    let mut env = BTreeMap::from([("PATH".to_string(), USUAL_PATH.to_string())]);
    let Some(config) = image.config() else {
        return Ok(Workload {
            env,
            ..Workload::default()
        });
    };
    for variable in config.env().iter().flatten() {
        let Some((key, value)) = variable.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(OciError::document(name, format!("has {variable:?} in `Env`")));
        };
        env.insert(key.to_string(), value.to_string());
    }
    let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let workload = Workload {
        entrypoint: config.entrypoint().clone().unwrap_or_default(),
        command: config.cmd().clone().unwrap_or_default(),
        env,
        user: some(config.user()),
        working_dir: some(config.working_dir()).map(|path| format!("/{}", path.trim_start_matches('/'))),
        stop_signal: some(config.stop_signal()),
        labels: config.labels().clone().unwrap_or_default().into_iter().collect(),
    };
    let words = workload.entrypoint.iter().chain(&workload.command);
    let mut texts = words
        .chain(workload.env.values())
        .chain(workload.env.keys())
        .chain(&workload.user)
        .chain(&workload.working_dir);
    if texts.any(|text| text.contains('\0')) {
        return Err(OciError::document(name, "has a zero byte in what it runs"));
    }
    Ok(workload)
}

/// Name and bytes of a document, which must be what its digest says.
fn blob(source: &Source, descriptor: &Descriptor) -> Result<(String, Vec<u8>), OciError> {
    let digest = descriptor.digest();
    let name = blob_name(digest)?;
    let bytes = source.document(&name)?;
    let found = hex(Sha256::new_with_prefix(&bytes));
    if found != digest.as_ref() {
        return Err(OciError::Digest {
            what: name,
            expected: digest.to_string(),
            found,
        });
    }
    Ok((name, bytes))
}

/// Where a blob is in OCI's layout. Its digits are checked, so that the name leads nowhere else.
fn blob_name(digest: &oci_spec::image::Digest) -> Result<String, OciError> {
    match digest.algorithm() {
        oci_spec::image::DigestAlgorithm::Sha256 => Ok(format!("blobs/sha256/{}", digest.digest())),
        other => Err(OciError::Algorithm(other.to_string())),
    }
}

fn parse<T: DeserializeOwned>(name: &str, text: &[u8]) -> Result<T, OciError> {
    serde_json::from_slice(text).map_err(|error| OciError::document(name, error.to_string()))
}

/// Some names, for a person.
fn shorten(names: &[&str]) -> String {
    let mut text = names.iter().take(5).copied().collect::<Vec<_>>().join(", ");
    if names.len() > 5 {
        text.push_str(", ...");
    }
    text
}
