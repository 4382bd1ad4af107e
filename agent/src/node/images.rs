//! The node's images: what comes in, what goes, and what may not.

use std::fmt::Display;
use std::path::Path;

use axum::body::Bytes;
use futures_util::{Stream, StreamExt};
use secovia_agent_api::{ErrorCode, ImageGc, ImageGcReport, ImageInfo, Manifest};
use tokio::task::block_in_place;

use super::error::NodeError;
use super::service::Node;
use crate::caller::Caller;
use crate::images::{Held, Image, NoRoom, Staged, give_way};
use crate::records::PodSpec;

impl Node {
    /// All images, by name.
    pub fn images(&self) -> Result<Vec<ImageInfo>, NodeError> {
        let images = block_in_place(|| self.context.images.list())?;
        Ok(images.into_iter().map(|image| self.image_info(image)).collect())
    }

    fn image_info(&self, image: Image) -> ImageInfo {
        let used_by = self.image_users(&image.manifest.name);
        ImageInfo {
            manifest: image.manifest,
            imported_at_ms: image.imported_ms,
            used_by,
        }
    }

    pub(super) fn image_users(&self, image: &str) -> Vec<String> {
        let mut names: Vec<String> = self
            .lock()
            .values()
            .map(|handle| handle.view.borrow().clone())
            .filter(|view| {
                let spec = &view.record.spec;
                let in_pod = |pod: &PodSpec| pod.images().contains_key(image);
                !view.removed && (spec.image == image || spec.pod.as_ref().is_some_and(in_pod))
            })
            .map(|view| view.record.name)
            .collect();
        names.sort();
        names
    }

    /// Takes an image into the store; images that no VM uses give way where there is no room else. An image of the same name gives way, unless a VM uses it and the
    /// content differs.
    pub async fn import_image(
        &self,
        path: &Path,
        name: Option<&str>,
        caller: &Caller,
    ) -> Result<ImageInfo, NodeError> {
        if !path.is_absolute() {
            let message = format!(
                "`path` is {:?}; give an absolute path",
                path.display().to_string()
            );
            return Err(NodeError::new(ErrorCode::BadRequest, message));
        }
        let staged = block_in_place(|| {
            let limits = self.context.config.images.limits();
            self.context.images.stage(path, name, caller, limits)
        })?;
        self.let_in(staged).await
    }

    /// Takes an image into the store that comes piece by piece, as an archive.
    pub async fn receive_image<E: Display>(
        &self,
        name: &str,
        pieces: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<ImageInfo, NodeError> {
        let limits = self.context.config.images.limits();
        let mut arriving = block_in_place(|| self.context.images.receive(name, limits))?;
        let mut pieces = std::pin::pin!(pieces);
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| {
                let message = format!("image `{name}` did not come whole: {error}");
                NodeError::new(ErrorCode::BadRequest, message)
            })?;
            block_in_place(|| arriving.take(&piece))?;
        }
        let staged = block_in_place(|| arriving.stage())?;
        self.let_in(staged).await
    }

    /// An image that was checked gets its name.
    async fn let_in(&self, staged: Staged) -> Result<ImageInfo, NodeError> {
        let _gate = self.gate.lock().await;
        let name = &staged.manifest.name;
        let users = self.image_users(name);
        let same = block_in_place(|| self.context.images.get(name))
            .is_ok_and(|image| image.manifest.digest == staged.manifest.digest);
        if !users.is_empty() && !same {
            return Err(in_use(name, &users));
        }
        self.make_room(&staged.manifest)?;
        let image = block_in_place(|| self.context.images.commit(staged))?;
        log::info!(
            "image {} ({}) imported",
            image.manifest.name,
            image.manifest.digest
        );
        Ok(self.image_info(image))
    }

    /// Removes an image that no VM uses.
    pub async fn remove_image(&self, name: &str) -> Result<(), NodeError> {
        let _gate = self.gate.lock().await;
        let users = self.image_users(name);
        if !users.is_empty() {
            return Err(in_use(name, &users));
        }
        block_in_place(|| self.context.images.remove(name))?;
        Ok(())
    }

    /// Removes images that no VM uses, the one used longest ago first, until all take at most what is asked for, or the
    /// quota.
    pub async fn collect_images(&self, gc: &ImageGc) -> Result<ImageGcReport, NodeError> {
        let _gate = self.gate.lock().await;
        let quota = gc.to_bytes.unwrap_or(self.config().images.quota);
        let held = self.held(None)?;
        let unused: Vec<Held> = held.iter().filter(|image| !image.in_use).cloned().collect();
        // What is in use stays, also where it is more than that.
        let in_use: u64 = held
            .iter()
            .filter(|image| image.in_use)
            .map(|image| image.size)
            .sum();
        let names = give_way(unused.clone(), 0, quota.saturating_sub(in_use)).unwrap_or_default();
        let freed = unused.iter().filter(|image| names.contains(&image.name));
        let freed_bytes = freed.map(|image| image.size).sum();
        self.remove_images(&names)?;
        Ok(ImageGcReport {
            removed: names,
            freed_bytes,
        })
    }

    /// Removes what has to give way to an image.
    fn make_room(&self, manifest: &Manifest) -> Result<(), NodeError> {
        let quota = self.config().images.quota;
        // One of the same name is exchanged for it.
        let held = self.held(Some(&manifest.name))?;
        let names = give_way(held, manifest.size, quota).map_err(|NoRoom { in_use }| {
            let message = format!(
                "image `{}` has {} bytes, the images that microVMs use have {in_use}, and all may have {quota}; remove \
                 microVMs, or widen `images.quota` in agent.toml",
                manifest.name, manifest.size
            );
            NodeError::new(ErrorCode::InsufficientResources, message)
        })?;
        self.remove_images(&names)
    }

    /// All images but that one, as far as room goes.
    fn held(&self, but: Option<&str>) -> Result<Vec<Held>, NodeError> {
        let mut images = block_in_place(|| self.context.images.list())?;
        images.retain(|image| Some(image.manifest.name.as_str()) != but);
        let held = images.into_iter().map(|image| Held {
            in_use: !self.image_users(&image.manifest.name).is_empty(),
            size: image.manifest.size,
            used_ms: image.used_ms,
            name: image.manifest.name,
        });
        Ok(held.collect())
    }

    fn remove_images(&self, names: &[String]) -> Result<(), NodeError> {
        for name in names {
            block_in_place(|| self.context.images.remove(name))?;
            log::info!("image {name} gave way: no microVM uses it");
        }
        Ok(())
    }
}

fn in_use(image: &str, users: &[String]) -> NodeError {
    let message = format!(
        "image `{image}` is used by {}; remove them first",
        users.join(", ")
    );
    NodeError::new(ErrorCode::ImageInUse, message)
}
