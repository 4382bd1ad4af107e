//! The directory of images: `NAME/manifest.json` and `NAME/rootfs.erofs`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use secovia_agent_api::Manifest;
use secovia_agent_api::image::{MANIFEST_FILE, ROOTFS_FILE};

use super::manifest::is_image_name;
use super::oci::Limits;
use super::stage::{Arriving, STAGING, Staged, make_dir, stage, store_error, sync_dir};
use super::{IMPORT_AGAIN, ImageError, read_manifest};
use crate::caller::{Caller, open_regular};

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
    /// When a VM was last made of it, or it came (Unix time in milliseconds).
    pub used_ms: u64,
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
        let imported_ms = modified_ms(&metadata);
        let used_ms = fs::metadata(&path).map_or(imported_ms, |metadata| modified_ms(&metadata));
        Ok(Image {
            manifest,
            rootfs,
            imported_ms,
            used_ms,
        })
    }

    /// Notes that the image is used now. Its manifest's time says so: what is lost of it in a crash is a time.
    pub fn touch(&self, name: &str) -> Result<(), ImageError> {
        let path = self.dir.join(name).join(MANIFEST_FILE);
        open_regular(&path)
            .and_then(|file| file.set_modified(SystemTime::now()))
            .map_err(|source| store_error("note the use of", &path, source))
    }

    /// Copies the image at `source`, which `caller` must be able to read, beside the others and checks every byte;
    /// [`ImageStore::commit`] lets it in.
    pub fn stage(
        &self,
        source: &Path,
        name: Option<&str>,
        caller: &Caller,
        limits: Limits,
    ) -> Result<Staged, ImageError> {
        stage(&self.dir, source, name, caller, limits)
    }

    /// Begins to take in an image of this name that comes piece by piece.
    pub fn receive(&self, name: &str, limits: Limits) -> Result<Arriving, ImageError> {
        Arriving::new(&self.dir, name, limits)
    }

    /// Puts a staged image in its place, instead of one that had the name before.
    pub fn commit(&self, staged: Staged) -> Result<Image, ImageError> {
        let name = staged.manifest.name.clone();
        let target = self.dir.join(&name);
        let put = |flags| renameat2(AT_FDCWD, staged.dir(), AT_FDCWD, &target, flags);
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

fn modified_ms(metadata: &fs::Metadata) -> u64 {
    let modified = metadata.modified().ok();
    let since = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_millis() as u64)
}
