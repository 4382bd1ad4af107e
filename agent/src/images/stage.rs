//! The way of an image into the store: copied or made beside the others, whole and checked, before it has a name there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use secovia_agent_api::Manifest;
use secovia_agent_api::image::{MANIFEST_FILE, ROOTFS_FILE, SCHEMA_VERSION};
use sha2::{Digest, Sha256};

use super::manifest::{NAME_RULE, is_image_name};
use super::oci::{self, Limits, OciError, Plan, Source, hex};
use super::{BUILD_AGAIN, ImageError, read_manifest};
use crate::caller::Caller;
use crate::sys;

/// What is on its way in begins so; no image's name does.
pub(super) const STAGING: &str = ".import-";

const COPY_BUFFER: usize = 256 * 1024;

/// An image that was copied and checked, and is not in the store yet. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct Staged {
    /// What it is.
    pub manifest: Manifest,
    place: Place,
}

impl Staged {
    /// The directory that it lies in.
    pub(super) fn dir(&self) -> &Path {
        &self.place.0
    }
}

/// A directory that goes when it is dropped.
#[derive(Debug)]
struct Place(PathBuf);

impl Place {
    fn new(store: &Path) -> Result<Self, ImageError> {
        let suffix = getrandom::u64()
            .map_err(|error| store_error("draw a name below", store, io::Error::other(error.to_string())))?;
        let dir = store.join(format!("{STAGING}{suffix:016x}"));
        make_dir(&dir).map_err(|error| store_error("make directory", &dir, error))?;
        Ok(Self(dir))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is left where this fails is removed when the store is opened next.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Copies the image at `source` into the store's directory. It is known by what it holds: a folder of ours has a name
/// already, which `name` wins over; an image from elsewhere needs one.
pub(super) fn stage(
    store: &Path,
    source: &Path,
    name: Option<&str>,
    caller: &Caller,
    limits: Limits,
) -> Result<Staged, ImageError> {
    let wrong = |problem: String| ImageError::Import {
        path: source.to_path_buf(),
        problem,
    };
    if let Some(name) = name {
        check_name(source, name)?;
    }
    let refused = |error| refused(source, error);
    let staged = match Source::open(source, caller).map_err(refused)? {
        None => {
            let mut manifest = read_manifest(&source.join(MANIFEST_FILE), caller, BUILD_AGAIN)?;
            manifest.name = name.map_or(manifest.name, str::to_string);
            let place = Place::new(store)?;
            let from = source.join(ROOTFS_FILE);
            copy_rootfs(&from, caller, &manifest, &place.0.join(ROOTFS_FILE))?;
            Staged { manifest, place }
        }
        Some(archive) => {
            let Some(name) = name else {
                let problem =
                    "holds an image from elsewhere; give it a name: `secovia image import NAME PATH`";
                return Err(wrong(problem.into()));
            };
            build(Place::new(store)?, &archive, source, name, limits)?
        }
    };
    finish(staged)
}

/// Makes an image of ours from another's; `source` is what that is called in messages.
fn build(
    place: Place,
    archive: &Source,
    source: &Path,
    name: &str,
    limits: Limits,
) -> Result<Staged, ImageError> {
    let path = place.0.join(ROOTFS_FILE);
    let failed = |error| store_error("write", &path, error);
    let rootfs = new_rootfs(&path).map_err(failed)?;
    let plan = oci::build(archive, limits, &rootfs).map_err(|error| match error {
        OciError::Write(error) => failed(error),
        error => refused(source, error),
    })?;
    let manifest = manifest_of(name, plan, &rootfs).map_err(failed)?;
    Ok(Staged { manifest, place })
}

/// What is left to do for any image.
fn finish(staged: Staged) -> Result<Staged, ImageError> {
    let path = staged.dir().join(MANIFEST_FILE);
    write_manifest(&path, &staged.manifest).map_err(|error| store_error("write", &path, error))?;
    sync_dir(staged.dir()).map_err(|error| store_error("sync", staged.dir(), error))?;
    Ok(staged)
}

fn check_name(source: &Path, name: &str) -> Result<(), ImageError> {
    if is_image_name(name) {
        return Ok(());
    }
    Err(ImageError::Import {
        path: source.to_path_buf(),
        problem: format!("the name is {name:?}; {NAME_RULE}"),
    })
}

/// An image that comes piece by piece, as an archive. It lies beside the others until it is whole; dropped, it leaves nothing.
#[derive(Debug)]
pub struct Arriving {
    store: PathBuf,
    place: Place,
    file: File,
    name: String,
    limits: Limits,
    size: u64,
}

/// What it is called in messages: it has no path of the caller's.
const UPLOAD: &str = "(as sent)";

impl Arriving {
    pub(super) fn new(store: &Path, name: &str, limits: Limits) -> Result<Self, ImageError> {
        check_name(Path::new(UPLOAD), name)?;
        let place = Place::new(store)?;
        let path = place.0.join("archive");
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        Ok(Self {
            store: store.to_path_buf(),
            place,
            file: file.map_err(|error| store_error("write", &path, error))?,
            name: name.to_string(),
            limits,
            size: 0,
        })
    }

    /// Takes the next piece. All together are not larger than what an image may unpack to.
    pub fn take(&mut self, piece: &[u8]) -> Result<(), ImageError> {
        self.size = self.size.saturating_add(piece.len() as u64);
        if self.size > self.limits.bytes {
            let (found, limit) = (self.size, self.limits.bytes);
            return Err(refused(Path::new(UPLOAD), OciError::Size { found, limit }));
        }
        let written = self.file.write_all(piece);
        written.map_err(|error| store_error("write", &self.place.0, error))
    }

    /// It is whole: checks every byte.
    pub fn stage(self) -> Result<Staged, ImageError> {
        let source = Path::new(UPLOAD);
        let archive = Source::archive(self.file).map_err(|error| refused(source, error))?;
        finish(build(
            Place::new(&self.store)?,
            &archive,
            source,
            &self.name,
            self.limits,
        )?)
    }
}

fn refused(path: &Path, error: OciError) -> ImageError {
    ImageError::Archive {
        path: path.to_path_buf(),
        source: Box::new(error),
    }
}

/// The manifest of an image that was made from another's.
fn manifest_of(name: &str, plan: Plan, rootfs: &File) -> io::Result<Manifest> {
    let mut reader = rootfs;
    reader.rewind()?;
    let mut size = 0;
    let digest = hash_all(&mut reader, |bytes| {
        size += bytes.len() as u64;
        Ok(())
    })?;
    rootfs.sync_all()?;
    let workload = plan.workload;
    Ok(Manifest {
        schema_version: SCHEMA_VERSION,
        name: name.to_string(),
        digest,
        size,
        entrypoint: workload.entrypoint,
        command: workload.command,
        env: workload.env,
        user: workload.user,
        working_dir: workload.working_dir,
        stop_signal: workload.stop_signal,
        labels: workload.labels,
        source: Some(plan.digest),
    })
}

fn copy_rootfs(source: &Path, caller: &Caller, manifest: &Manifest, path: &Path) -> Result<(), ImageError> {
    let wrong = |problem: String| ImageError::Rootfs {
        path: source.to_path_buf(),
        problem,
        remedy: BUILD_AGAIN,
    };
    let mut from = caller.open(source).map_err(|error| wrong(error.to_string()))?;
    let length = from.metadata().map_err(|error| wrong(error.to_string()))?.len();
    if length != manifest.size {
        return Err(wrong(format!(
            "has {length} bytes, its manifest says {}",
            manifest.size
        )));
    }
    let digest = copy_and_hash(&mut from, path, length).map_err(|error| store_error("write", path, error))?;
    if digest != manifest.digest {
        return Err(wrong(format!(
            "has digest {digest}, its manifest says {}",
            manifest.digest
        )));
    }
    Ok(())
}

/// Copies at most `length` bytes and returns the digest of what arrived.
fn copy_and_hash(from: &mut File, path: &Path, length: u64) -> io::Result<String> {
    let mut to = new_rootfs(path)?;
    let shared = sys::reflink(&*from, &to).is_ok();
    // Where the blocks are shared it is the copy that is hashed: the original may change any time.
    let mut input: Box<dyn Read> = if shared {
        to.rewind()?;
        Box::new((&to).take(length))
    } else {
        Box::new(from.take(length))
    };
    let digest = hash_all(
        &mut input,
        |bytes| if shared { Ok(()) } else { (&to).write_all(bytes) },
    )?;
    to.sync_all()?;
    Ok(digest)
}

/// Reads to the end, hands on what comes, and returns its digest.
fn hash_all(input: &mut impl Read, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; COPY_BUFFER];
    loop {
        let count = match input.read(&mut buffer) {
            Ok(0) => return Ok(hex(hash)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(&buffer[..count]);
        take(&buffer[..count])?;
    }
}

/// An empty file for a root file system.
fn new_rootfs(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    // VMs read it through their jails, each as a user of its own; the directory keeps everybody else out.
    file.set_permissions(fs::Permissions::from_mode(0o444))?;
    Ok(file)
}

fn write_manifest(path: &Path, manifest: &Manifest) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(&serde_json::to_vec_pretty(manifest)?)?;
    file.sync_all()
}

pub(super) fn make_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

pub(super) fn store_error(operation: &'static str, path: &Path, source: io::Error) -> ImageError {
    ImageError::Store {
        operation,
        path: path.to_path_buf(),
        source,
    }
}
