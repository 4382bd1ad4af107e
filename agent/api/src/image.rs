//! Images: read-only root file systems that microVMs start from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The file of an image directory that says what the image is.
pub const MANIFEST_FILE: &str = "manifest.json";

/// The file of an image directory that holds the root file system, an EROFS.
pub const ROOTFS_FILE: &str = "rootfs.erofs";

/// The version of [`Manifest`] that this code reads and writes.
pub const SCHEMA_VERSION: u32 = 1;

/// An image directory's `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The image's name: 1 to 63 of a-z, 0-9, `.`, `_`, `-`, the first a letter or digit.
    pub name: String,
    /// `sha256:` and the 64 hexadecimal digits of `rootfs.erofs`' SHA-256.
    pub digest: String,
    /// Bytes of `rootfs.erofs`.
    pub size: u64,
    /// What stands before every command, the image's or the microVM's own: a program and first arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// What runs where the microVM names no command: program and arguments.
    pub command: Vec<String>,
    /// The environment that the workload starts from.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// `name`, `uid`, `name:group` or `uid:gid`; root where none is given.
    #[serde(default)]
    pub user: Option<String>,
    /// The workload's working directory; the root directory where none is given.
    #[serde(default)]
    pub working_dir: Option<String>,
    /// The signal that asks the workload to end, as the image's maker has it. (Not in use yet: it is SIGTERM.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// What the image's maker noted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The digest of the OCI manifest that the image was made from, or of docker's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// Asks the agent to take an image into its store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ImageImport {
    /// On the agent's host, absolute: a directory with `manifest.json` and `rootfs.erofs`, a directory in OCI's layout, or
    /// a tar of one or of docker's (`docker save`).
    pub path: String,
    /// The name that it is to have. Needed but for the first kind, whose manifest has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Sends the agent an image: the body is a tar of an OCI layout or of docker's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
pub struct ImageUpload {
    /// The name that it is to have.
    pub name: String,
}

/// Asks for images that no microVM uses to be removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ImageGc {
    /// Go on, with the one used longest ago first, until all images have at most so many bytes; the quota where none is
    /// given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_bytes: Option<u64>,
}

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImageGcReport {
    /// Names of the images.
    pub removed: Vec<String>,
    /// What they took, in bytes.
    pub freed_bytes: u64,
}

/// An image in the agent's store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImageInfo {
    /// What it was imported from.
    pub manifest: Manifest,
    /// When it was imported.
    pub imported_at_ms: u64,
    /// Names of the microVMs that use it, running or not.
    pub used_by: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_and_an_unknown_field_refused_by_name() {
        let text = r#"{"schema_version":1,"name":"base","digest":"sha256:00","size":4096,"command":["/bin/sh"],
            "env":{"PATH":"/bin"},"user":null,"working_dir":null}"#;
        let manifest: Manifest = serde_json::from_str(text).unwrap();
        assert_eq!(manifest.command, ["/bin/sh"]);
        let wrong = text.replace("\"user\"", "\"usr\"");
        let error = serde_json::from_str::<Manifest>(&wrong).unwrap_err().to_string();
        assert!(error.contains("usr"), "{error}");
    }
}
