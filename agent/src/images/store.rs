//! The directory of images: `NAME/manifest.json` and `NAME/rootfs.erofs`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use secovia_agent_api::Manifest;
use secovia_agent_api::image::{MANIFEST_FILE, ROOTFS_FILE};
use sha2::{Digest, Sha256};

use super::manifest::is_image_name;
use super::{BUILD_AGAIN, IMPORT_AGAIN, ImageError, read_manifest};
use crate::caller::{Caller, open_regular};
use crate::sys;

/// What is on its way in begins so; no image's name does.
const STAGING: &str = ".import-";

const COPY_BUFFER: usize = 256 * 1024;

/// All images of the node.
#[derive(Debug)]
pub struct ImageStore {
    dir: PathBuf,
}

/// An image in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// What it is.
    pub manifest: Manifest,
    /// Its root file system.
    pub rootfs: PathBuf,
    /// When it came (Unix time in milliseconds).
    pub imported_ms: u64,
}

/// An image that was copied and checked, and is not in the store yet. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct Staged {
    /// What it is.
    pub manifest: Manifest,
    dir: PathBuf,
}

impl Drop for Staged {
    fn drop(&mut self) {
        // What is left where this fails is removed when the store is opened next.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl ImageStore {
    /// The store in `dir`, which is made where it is missing; unfinished imports of an earlier life are removed.
    pub fn open(dir: &Path) -> Result<Self, ImageError> {
        let store = Self {
            dir: dir.to_path_buf(),
        };
        make_dir(dir).map_err(|source| store_error("make directory", dir, source))?;
        for name in store
            .entries()?
            .into_iter()
            .filter(|name| name.starts_with(STAGING))
        {
            let path = dir.join(name);
            fs::remove_dir_all(&path).map_err(|source| store_error("remove", &path, source))?;
        }
        Ok(store)
    }

    /// All images that can be used, by name. One that cannot is logged and left out.
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        let mut names = self.entries()?;
        names.retain(|name| is_image_name(name));
        names.sort();
        let mut images = Vec::new();
        for name in names {
            match self.get(&name) {
                Ok(image) => images.push(image),
                Err(error) => log::warn!("{error}"),
            }
        }
        Ok(images)
    }

    /// The image of this name.
    pub fn get(&self, name: &str) -> Result<Image, ImageError> {
        let not_found = || ImageError::NotFound(name.to_string());
        if !is_image_name(name) {
            return Err(not_found());
        }
        let dir = self.dir.join(name);
        if !dir.exists() {
            return Err(not_found());
        }
        let path = dir.join(MANIFEST_FILE);
        let manifest = read_manifest(&path, &Caller::root(), IMPORT_AGAIN)?;
        if manifest.name != name {
            return Err(ImageError::Manifest {
                path,
                problem: format!("`name` is `{}`, the store has it as `{name}`", manifest.name),
                remedy: IMPORT_AGAIN,
            });
        }
        let rootfs = dir.join(ROOTFS_FILE);
        let wrong = |problem| ImageError::Rootfs {
            path: rootfs.clone(),
            problem,
            remedy: IMPORT_AGAIN,
        };
        let metadata = open_regular(&rootfs)
            .and_then(|file| file.metadata())
            .map_err(|error| wrong(error.to_string()))?;
        if metadata.len() != manifest.size {
            return Err(wrong(format!(
                "has {} bytes, its manifest says {}",
                metadata.len(),
                manifest.size
            )));
        }
        let imported_ms = metadata
            .modified()
            .ok()
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
            .map_or(0, |since| since.as_millis() as u64);
        Ok(Image {
            manifest,
            rootfs,
            imported_ms,
        })
    }

    /// Copies the image in `source`, which `caller` must be able to read, beside the others and checks every byte;
    /// [`ImageStore::commit`] lets it in.
    pub fn stage(&self, source: &Path, caller: &Caller) -> Result<Staged, ImageError> {
        let manifest = read_manifest(&source.join(MANIFEST_FILE), caller, BUILD_AGAIN)?;
        let suffix = getrandom::u64().map_err(|error| {
            store_error(
                "draw a name below",
                &self.dir,
                io::Error::other(error.to_string()),
            )
        })?;
        let dir = self.dir.join(format!("{STAGING}{suffix:016x}"));
        make_dir(&dir).map_err(|error| store_error("make directory", &dir, error))?;
        let staged = Staged { manifest, dir };
        copy_rootfs(&source.join(ROOTFS_FILE), caller, &staged)?;
        let path = staged.dir.join(MANIFEST_FILE);
        write_manifest(&path, &staged.manifest).map_err(|error| store_error("write", &path, error))?;
        sync_dir(&staged.dir).map_err(|error| store_error("sync", &staged.dir, error))?;
        Ok(staged)
    }

    /// Puts a staged image in its place, instead of one that had the name before.
    pub fn commit(&self, staged: Staged) -> Result<Image, ImageError> {
        let name = staged.manifest.name.clone();
        let target = self.dir.join(&name);
        let put = |flags| renameat2(AT_FDCWD, &staged.dir, AT_FDCWD, &target, flags);
        // An exchange, so that at no moment there is neither the old image nor the new one.
        let renamed = if target.exists() {
            put(RenameFlags::RENAME_EXCHANGE)
        } else {
            put(RenameFlags::RENAME_NOREPLACE)
        };
        renamed.map_err(|errno| store_error("put image", &target, errno.into()))?;
        sync_dir(&self.dir).map_err(|error| store_error("sync", &self.dir, error))?;
        self.get(&name)
    }

    /// Removes the image, also one that is damaged.
    pub fn remove(&self, name: &str) -> Result<(), ImageError> {
        let path = self.dir.join(name);
        if !is_image_name(name) || !path.exists() {
            return Err(ImageError::NotFound(name.to_string()));
        }
        // Renamed first: an interrupted removal leaves an unfinished import, not half an image.
        let doomed = self.dir.join(format!("{STAGING}removed-{name}"));
        fs::rename(&path, &doomed)
            .and_then(|()| fs::remove_dir_all(&doomed))
            .map_err(|source| store_error("remove", &path, source))
    }

    fn entries(&self) -> Result<Vec<String>, ImageError> {
        let read = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(&self.dir)? {
                names.extend(entry?.file_name().into_string());
            }
            Ok(names)
        };
        read().map_err(|source| store_error("read", &self.dir, source))
    }
}

fn copy_rootfs(source: &Path, caller: &Caller, staged: &Staged) -> Result<(), ImageError> {
    let manifest = &staged.manifest;
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
    let path = staged.dir.join(ROOTFS_FILE);
    let digest =
        copy_and_hash(&mut from, &path, length).map_err(|error| store_error("write", &path, error))?;
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
    let mut to = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    // VMs read it through their jails, each as a user of its own; the directory keeps everybody else out.
    to.set_permissions(fs::Permissions::from_mode(0o444))?;
    let shared = sys::reflink(&*from, &to).is_ok();
    let mut hash = Sha256::new();
    let mut buffer = vec![0; COPY_BUFFER];
    // Where the blocks are shared it is the copy that is hashed: the original may change any time.
    let mut input: Box<dyn Read> = if shared {
        to.rewind()?;
        Box::new((&to).take(length))
    } else {
        Box::new(from.take(length))
    };
    loop {
        let count = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(&buffer[..count]);
        if !shared {
            (&to).write_all(&buffer[..count])?;
        }
    }
    to.sync_all()?;
    let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256:{digits}"))
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

fn make_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn store_error(operation: &'static str, path: &Path, source: io::Error) -> ImageError {
    ImageError::Store {
        operation,
        path: path.to_path_buf(),
        source,
    }
}
