//! `[images]`: how much the store may hold.

use serde::Deserialize;

use crate::capacity::policy::quantity;
use crate::images::oci::Limits;

/// Members that all layers of an image may have: they are held in memory while it is taken in, each with some 300 bytes.
const MEMBERS_MAX: u32 = 500_000;

/// The section as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ImagesSpec {
    quota: String,
    image_max: String,
    insecure_registries: Vec<String>,
}

impl Default for ImagesSpec {
    fn default() -> Self {
        Self {
            quota: "20G".into(),
            image_max: "8G".into(),
            insecure_registries: Vec::new(),
        }
    }
}

/// What the store of images may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagesConfig {
    /// Bytes of all images.
    pub quota: u64,
    /// Bytes of one that comes from elsewhere, unpacked.
    pub image_max: u64,
}

impl ImagesConfig {
    /// What one image from elsewhere may be.
    pub fn limits(&self) -> Limits {
        Limits {
            bytes: self.image_max.min(self.quota),
            members: MEMBERS_MAX,
        }
    }
}

impl ImagesSpec {
    pub(super) fn check(self) -> Result<ImagesConfig, (&'static str, String)> {
        let size = |key, text: &str| match quantity::bytes(text) {
            Some(bytes) if bytes > 0 => Ok(bytes),
            _ => Err((key, format!("is {text:?}; use a size like \"20G\", more than 0"))),
        };
        // Who pulls reads that list itself; here it is only looked at that it is one.
        if let Some(wrong) = self.insecure_registries.iter().find(|host| host.contains('/')) {
            let problem = format!("has {wrong:?}; use a host's name, with `:` and a port where it has one");
            return Err(("images.insecure_registries", problem));
        }
        Ok(ImagesConfig {
            quota: size("images.quota", &self.quota)?,
            image_max: size("images.image_max", &self.image_max)?,
        })
    }
}
