//! `image import`, `ls`, `gc`, `rm`.

use std::path::Path;

use secovia_agent_api::client::Client;
use secovia_agent_api::{ImageGc, ImageImport, ImageInfo};

use crate::failure::Failure;
use crate::output::{Table, human, print, print_json};

/// So much of a digest tells images apart by eye.
const DIGEST_WIDTH: usize = 12;

/// `secovia image import`.
pub(super) async fn import(client: &Client, name: Option<String>, path: &Path) -> Result<u8, Failure> {
    // The agent has another working directory.
    let absolute = path.canonicalize().map_err(|error| {
        Failure::other(format!(
            "image import {}: {error}; name a tar of an image, or a directory that holds one",
            path.display()
        ))
    })?;
    let text = absolute.to_str().ok_or_else(|| {
        Failure::other(format!(
            "image import {}: the path is not UTF-8; rename it",
            path.display()
        ))
    })?;
    let import = ImageImport {
        path: text.to_string(),
        name,
    };
    let image = client.import_image(&import).await.map_err(|error| {
        let hint = hint(&absolute, &error.to_string());
        match Failure::agent(format!("image import {}", path.display()))(error) {
            failure if hint.is_empty() => failure,
            failure => Failure::other(format!("{failure}{hint}")),
        }
    })?;
    print(&format!("{}\n", image.manifest.name))?;
    Ok(0)
}

/// What helps where the agent does not find what is there: as a service it has a directory for temporary files of its own.
fn hint(path: &Path, error: &str) -> &'static str {
    let temporary = ["/tmp", "/var/tmp"].iter().any(|dir| path.starts_with(dir));
    if temporary && error.contains("No such file") {
        "; the agent does not see this /tmp: put the image elsewhere, below /srv for one"
    } else {
        ""
    }
}

/// `secovia image ls`.
pub(super) async fn ls(client: &Client, json: bool) -> Result<u8, Failure> {
    let images = client.list_images().await.map_err(Failure::agent("image ls"))?;
    if json {
        print_json(&images)?;
    } else {
        print(&listing(&images, human::now_ms()))?;
    }
    Ok(0)
}

fn listing(images: &[ImageInfo], now_ms: u64) -> String {
    let mut table = Table::new(["NAME", "DIGEST", "SIZE", "IMPORTED", "USED BY", "COMMAND"]);
    for image in images {
        let manifest = &image.manifest;
        let digest = manifest
            .digest
            .strip_prefix("sha256:")
            .unwrap_or(&manifest.digest);
        let command = [&manifest.entrypoint[..], &manifest.command].concat();
        table.row([
            manifest.name.clone(),
            digest.chars().take(DIGEST_WIDTH).collect(),
            human::bytes(manifest.size),
            human::ago(image.imported_at_ms, now_ms),
            human::shortened(&image.used_by.join(","), 30),
            human::shortened(&human::command(&command), 40),
        ]);
    }
    table.render()
}

/// `secovia image gc`.
pub(super) async fn gc(client: &Client, all: bool, json: bool) -> Result<u8, Failure> {
    let gc = ImageGc {
        to_bytes: all.then_some(0),
    };
    let report = client.gc_images(&gc).await.map_err(Failure::agent("image gc"))?;
    if json {
        print_json(&report)?;
    } else {
        for name in &report.removed {
            print(&format!("{name}\n"))?;
        }
        print(&format!("{} freed\n", human::bytes(report.freed_bytes)))?;
    }
    Ok(0)
}

/// `secovia image rm`.
pub(super) async fn rm(client: &Client, names: Vec<String>) -> Result<u8, Failure> {
    let mut failed = false;
    for name in names {
        match client.delete_image(&name).await {
            Ok(()) => print(&format!("{name}\n"))?,
            Err(error) => {
                Failure::agent(format!("image rm {name}"))(error).tell();
                failed = true;
            }
        }
    }
    if failed { Err(Failure::Told) } else { Ok(0) }
}

#[cfg(test)]
mod tests {
    use secovia_agent_api::Manifest;

    use super::*;

    #[test]
    fn what_only_the_caller_sees_is_explained() {
        let missing = "read manifest: No such file or directory";
        assert!(hint(Path::new("/tmp/web"), missing).contains("elsewhere"));
        assert_eq!(hint(Path::new("/tmp/web"), "wrong digest"), "");
        assert_eq!(hint(Path::new("/srv/tmp/web"), missing), "");
    }

    #[test]
    fn a_listing_has_a_line_for_each() {
        let image = ImageInfo {
            manifest: Manifest {
                schema_version: 1,
                name: "base".into(),
                digest: "sha256:0123456789abcdef".into(),
                size: 5 << 20,
                command: vec!["/bin/sh".into()],
                env: Default::default(),
                user: None,
                working_dir: None,
                entrypoint: Vec::new(),
                stop_signal: None,
                labels: Default::default(),
                source: None,
            },
            imported_at_ms: 0,
            used_by: vec!["a".into(), "b".into()],
        };
        assert_eq!(
            listing(&[image], 5_000),
            "NAME  DIGEST        SIZE     IMPORTED  USED BY  COMMAND\n\
             base  0123456789ab  5.0 MiB  5 s ago   a,b      /bin/sh\n"
        );
    }
}
